"""The journal's control accounts and balanced postings (double entry; debit positive, credit negative).

A negative customer deposit is a receivable: usage that happened is never refused, so a wallet may fall below zero.
Owns: which control account a fact touches. Never: amounts, which the rules decide.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of the journal: debit positive, credit negative, in pico of ``currency``."""

    account_code: str
    currency: str
    detail: str
    """The dimension below the control account: a plan (``token-9.9@1``), a price book, or empty."""
    amount_pico: int
    concerns: str = ""
    """The usage that a correction names, ``["SOURCE","ID"]``; empty for everything that is no correction."""


CASH = "cash"
CUSTOMER_DEPOSITS = "customer_deposits"
CONTRACT_LIABILITY = "contract_liability"
OUTPUT_VAT_PENDING = "output_vat_pending"
"""Tax in a prepaid fee that is not yet due (待转销项税额)."""
OUTPUT_VAT = "output_vat"
REVENUE_USAGE = "revenue_usage"
REVENUE_BREAKAGE = "revenue_breakage"
REVENUE_COMMITMENT = "revenue_commitment"
"""What was missing to a committed spend at the end of its period."""
PROMOTION_EXPENSE = "promotion_expense"
"""Gift money put into wallets."""
ADJUSTMENTS = "adjustments"
"""What corrections by hand gave (debit) or took (credit)."""
TRANSFER_CLEARING = "transfer_clearing"
"""Liability on its way between two accounts, by transfer; zero when nothing is on its way."""
RECEIVABLES = "receivables"
"""Bills that are not paid."""
ROUNDING = "rounding"
"""What lies below the fen in a refund."""


class UnbalancedError(ArithmeticError):
    """Lines that do not add up to zero: a defect of a rule, never of its input."""


class Postings:
    """Lines summed by (what they concern, control account, currency, detail); every fact added balances by itself."""

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str], int] = {}

    def post(self, currency: str, *lines: tuple[str, str, int]) -> None:
        """Add one balanced fact: lines of (control account, detail, amount in pico).

        Raises:
            UnbalancedError: the lines do not add up to zero.
        """
        if sum(amount for _, _, amount in lines) != 0:
            raise UnbalancedError(f"lines do not balance: {lines}")
        for code, detail, amount_pico in lines:
            self.add(code, currency, detail, amount_pico)

    def add(self, code: str, currency: str, detail: str, amount_pico: int, concerns: str = "") -> None:
        """Add one side of a fact whose other side is added by the same caller."""
        key = (concerns, code, currency, detail)
        self._sums[key] = self._sums.get(key, 0) + amount_pico

    def merge_lines(self, lines: Iterable[Posting]) -> None:
        """Add lines that were summed elsewhere."""
        for line in lines:
            self.add(line.account_code, line.currency, line.detail, line.amount_pico, line.concerns)

    def lines(self) -> Iterator[Posting]:
        """The summed lines without zeros, sorted; those that concern nothing in particular come first.

        Raises:
            UnbalancedError: a currency does not add up to zero.
        """
        totals: dict[str, int] = {}
        for (_, _, currency, _), amount_pico in self._sums.items():
            totals[currency] = totals.get(currency, 0) + amount_pico
        for currency, total_pico in totals.items():
            if total_pico:
                raise UnbalancedError(f"journal lines in {currency} add up to {total_pico} pico, not 0")
        for (concerns, code, currency, detail), amount_pico in sorted(self._sums.items()):
            if amount_pico:
                yield Posting(code, currency, detail, amount_pico, concerns)
