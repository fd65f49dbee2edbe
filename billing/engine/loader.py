"""Loading of stored data that a partition's memory lacks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from billing.accounts.account import Account
from billing.accounts.held import Held
from billing.calculator.interface import Calculator
from billing.catalog.model import Catalog
from billing.commits.commit_record import PartitionState
from billing.commits.identities import HashHour, LogPart
from billing.corrections.history import AccountHistory
from billing.record_keys import RecordKeys
from schemas.refusals import Refusal


class Loader(Protocol):
    """Source of data that a partition's memory lacks: ``billing.store.store.Store``, or memory in ``simulate``."""

    def record_keys(self) -> RecordKeys:
        """Return the keys that show which records are the product's own, for one commit."""

    def load_accounts(self, ids: Sequence[str]) -> Sequence[Account]:
        """Return the accounts among ``ids`` that exist."""

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the outcomes of the commands among ``ids`` that were decided before, by (source, id)."""

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the (account, payment_ref) among ``pairs`` that were used before."""

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        """Return all identities stored under these hours of event time."""

    def log_parts(self, partition: int, from_us: int, at_most: int) -> list[LogPart]:
        """Return the parts of the identities rated from this hour of log time on, oldest first.

        A part of more than one commit has at most ``at_most`` identities.
        """

    def load_part(self, partition: int, part: LogPart) -> list[bytes]:
        """Return the payloads of the identities of a part (:class:`billing.commits.identities.HashHour`)."""

    def held(
        self, accounts: Sequence[str], read: Callable[[str], Account | None], catalog: Catalog
    ) -> Mapping[str, Held]:
        """Return what open holds hold now, by account; accounts without holds are left out.

        ``read`` returns an account as it is before the commit. A replay returns what the commit recorded.
        """

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        """Return the known history of these accounts, from all commits of the partition so far.

        Refused with ``history_unavailable``, ``history_not_kept`` or ``history_too_long`` if they cannot be read now.
        """


def load_missing(loader: Loader, calculator: Calculator, names: Iterable[str]) -> None:
    """Load the accounts that the calculator does not hold."""
    missing = sorted(name for name in set(names) if not calculator.holds(name))
    if missing:
        load_accounts(loader, calculator, missing)


def load_accounts(loader: Loader, calculator: Calculator, names: Sequence[str]) -> None:
    """Load accounts into the calculator; an account that does not exist is left out."""
    calculator.put_stored(loader.load_accounts(names))
