"""The accounts of a batch of commands, as plain values that stay open between its commands.

The calculator keeps accounts in a compact form, and to read one or to put one back looks at each of its buckets. An
account that gets a thousand grants in one batch is read and put back once, not a thousand times. What a commit records
is the same: rows are marked as changed as if the account had been put back after every command.
"""

from dataclasses import dataclass

from billing.accounts.account import Account, Hints, grants_of
from billing.calculator.interface import CHANGED_ROW, REPLACED_ROW, SAME_ROW, Calculator
from billing.decide.carry_out import ONLY_ADD
from schemas.commands import CommandData


@dataclass(slots=True)
class _Open:
    account: Account
    waits: bool = False
    """True if it was changed and not put back."""
    mark: int = SAME_ROW
    """The greatest change of its row since it was put back."""


class OpenAccounts:
    """The accounts of one batch of commands; :meth:`close` puts back those that wait."""

    def __init__(self, calculator: Calculator) -> None:
        self._calculator = calculator
        self._open: dict[str, _Open] = {}
        self._before: tuple[object, object] = ((), ())

    def account(self, name: str) -> Account | None:
        """Return the account as a value that the command may change, or None if it is not in memory."""
        known = self._open.get(name)
        return self._calculator.account(name) if known is None else known.account

    def prepare(self, account: Account | None, data: CommandData, now_us: int) -> bool:
        """Get ready for a command at log time ``now_us``; return True if the account need not be put back after it.

        That is so for commands that only add buckets, where nothing is due. They change an existing bucket in no way,
        and the account's row in ways that :meth:`put` can see. Before any other command the account is put back.
        """
        if account is None:
            return False
        if isinstance(data, ONLY_ADD) and now_us < account.next_due_us:
            if account.hints is None:
                account.hints = Hints(grants_of(account))
            self._before = _changeable(account), _replaceable(account)
            return True
        account.hints = None
        known = self._open.get(account.account)
        if known is not None and known.waits:
            self._put_back(known)
        return False

    def put(self, account: Account, quick: bool) -> None:
        """Take the account as it is after a command; ``quick`` is what :meth:`prepare` returned."""
        known = self._open.setdefault(account.account, _Open(account))
        known.account = account
        if quick:
            changeable, replaceable = self._before
            if changeable != _changeable(account):
                known.mark |= CHANGED_ROW
            if replaceable != _replaceable(account):
                known.mark |= REPLACED_ROW
        known.waits = True
        if not quick or account.hints is None:
            self._put_back(known)

    def close(self) -> None:
        """Put back the accounts that wait, and forget all."""
        for known in self._open.values():
            if known.waits:
                self._put_back(known)
        self._open.clear()

    def _put_back(self, known: _Open) -> None:
        hints, known.account.hints = known.account.hints, None
        self._calculator.put_account(known.account, stored=False, at_least=known.mark)
        known.account.hints = hints
        known.waits, known.mark = False, SAME_ROW


def _changeable(account: Account) -> tuple[object, ...]:
    """Return what a command may change of an account's row and change back, without its terms."""
    return account.wallet_pico, account.absorbed_micro, account.absorbed_pico, account.next_due_us, account.clock_us


def _replaceable(account: Account) -> tuple[object, ...]:
    """Return what a command may change of an account's terms and change back."""
    return account.extras.gift_pico, account.extras.wallet_alert_sent
