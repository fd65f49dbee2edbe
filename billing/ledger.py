"""Control accounts of the journal, and balanced postings (double entry; debit positive, credit negative).

A customer deposit below zero is a receivable: past usage is never refused, so a wallet may fall below zero. Amounts are
decided by the rules that post them (docs/reference/principles.md, "Double entry").
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from billing.errors import UnbalancedError


@dataclass(frozen=True, slots=True)
class Posting:
    """One journal line in pico of ``currency``: debit positive, credit negative."""

    account_code: str
    currency: str
    detail: str
    """The dimension below the control account: a plan (``token-9.9@1``), a price book, or empty."""
    amount_pico: int
    concerns: str = ""
    """The usage that a correction names, as ``["SOURCE","ID"]``; empty if the line is not a correction."""
    account: str = ""
    """The customer's account that a command or time changed; empty for a sum over accounts, as usage's lines are."""


CASH = "cash"
CUSTOMER_DEPOSITS = "customer_deposits"
CONTRACT_LIABILITY = "contract_liability"
OUTPUT_VAT_PENDING = "output_vat_pending"
"""VAT in a prepaid fee that is not yet due (待转销项税额)."""
OUTPUT_VAT = "output_vat"
REVENUE_USAGE = "revenue_usage"
REVENUE_BREAKAGE = "revenue_breakage"
REVENUE_COMMITMENT = "revenue_commitment"
"""Shortfall of a committed spend at the end of its period."""
REVENUE_TRUE_UP = "revenue_true_up"
"""Difference between the volume price of a whole period and what was charged when its usage happened."""
REVENUE_DEBT = "revenue_debt"
"""Quota of a grant that paid for earlier usage, which was owed."""
PROMOTION_EXPENSE = "promotion_expense"
"""Gift money that the operator put into wallets."""
ADJUSTMENTS = "adjustments"
"""Manual adjustments of balances: given to the account (debit) or taken from it (credit)."""
TRANSFER_CLEARING = "transfer_clearing"
"""Liability in transit between two accounts, with the transfer id as detail; zero when nothing is in transit."""
RECEIVABLES = "receivables"
"""Unpaid bills."""
ROUNDING = "rounding"
"""The part of a refund below one minor unit of the currency, such as a fen."""


class Postings:
    """Journal lines summed by (corrected usage, control account, currency, detail, account).

    Each posting balances by itself.
    """

    __slots__ = ("_sums",)

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str, str, str], int] = {}

    def post(self, currency: str, *lines: tuple[str, str, int]) -> None:
        """Add one balanced posting: lines of (control account, detail, amount in pico).

        Raises:
            UnbalancedError: the lines do not add up to zero.
        """
        if sum(amount for _, _, amount in lines) != 0:
            raise UnbalancedError(f"lines do not balance: {lines}")
        for code, detail, amount_pico in lines:
            self.add(code, currency, detail, amount_pico)

    def add(
        self, code: str, currency: str, detail: str, amount_pico: int, concerns: str = "", account: str = ""
    ) -> None:
        """Add one side of a posting; the caller must also add the other side."""
        key = (concerns, code, currency, detail, account)
        self._sums[key] = self._sums.get(key, 0) + amount_pico

    def merge(self, others: "Postings", account: str = "") -> None:
        """Add the sums of other postings; those that name no account get ``account``.

        Raises:
            UnbalancedError: a currency of the other postings does not add up to zero.
        """
        others._check_balanced()
        for (concerns, code, currency, detail, named), amount_pico in others._sums.items():
            if amount_pico:
                self.add(code, currency, detail, amount_pico, concerns, named or account)

    def merge_lines(self, lines: Iterable[Posting]) -> None:
        """Add lines that were summed by another ``Postings``."""
        for line in lines:
            self.add(line.account_code, line.currency, line.detail, line.amount_pico, line.concerns, line.account)

    def lines(self) -> Iterator[Posting]:
        """Yield the summed lines without zeros, sorted; lines that are not corrections come first.

        Raises:
            UnbalancedError: a currency does not add up to zero.
        """
        self._check_balanced()
        for (concerns, code, currency, detail, account), amount_pico in sorted(self._sums.items()):
            if amount_pico:
                yield Posting(code, currency, detail, amount_pico, concerns, account)

    def _check_balanced(self) -> None:
        totals: dict[str, int] = {}
        for (_, _, currency, _, _), amount_pico in self._sums.items():
            totals[currency] = totals.get(currency, 0) + amount_pico
        for currency, total_pico in totals.items():
            if total_pico:
                raise UnbalancedError(f"journal lines in {currency} add up to {total_pico} pico, not 0")
