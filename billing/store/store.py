"""The one object the streams and commands hold: every operation of the store on one pool of connections.

Synchronous and thread-safe; call it from executor threads. Each method is one transaction.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from billing.accounts.account import Account
from billing.catalog.model import Catalog
from billing.commits.commit_record import CommitRecord, OutboxRow, PartitionState
from billing.commits.identities import HashHour
from billing.corrections.history import AccountHistory
from billing.store import account_rows as accounts
from billing.store import outbox_rows as outbox
from billing.store import partition_rows as partition
from billing.store import published_catalog as catalog
from billing.store.commits import write_commit as commit
from billing.store.database import Database
from billing.store.outbox_rows import Listener
from billing.store.published_catalog import PublishResult
from schemas.refusals import Refusal


class Store:
    """What is committed. A method raises ``DatabaseDown`` when the server cannot answer; the next call reconnects."""

    def __init__(self, database_url: str, pool_size: int = 4) -> None:
        self._database = Database(database_url, pool_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections."""
        self._database.close()

    # Partitions and commits

    def acquire(self, number: int) -> tuple[int, PartitionState]:
        """Become the owner of a partition: its new epoch and its state
        (:func:`billing.store.partition_rows.acquire`)."""
        return partition.acquire(self._database, number)

    def positions(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """Next offsets by (topic, partition) (:func:`billing.store.partition_rows.positions`)."""
        return partition.positions(self._database, partitions)

    def commit(self, epoch: int, record: CommitRecord) -> None:
        """Write one commit, or nothing (:func:`billing.store.commits.write_commit.write_commit`)."""
        commit.write_commit(self._database, epoch, record)

    def prune_identities(self, number: int, before_hour_us: int) -> int:
        """Drop identities out of reach (:func:`billing.store.partition_rows.prune_identities`)."""
        return partition.prune_identities(self._database, number, before_hour_us)

    # Accounts and identities

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        """The accounts that exist among ``ids`` (:func:`billing.store.account_rows.load_accounts`)."""
        return accounts.load_accounts(self._database, ids)

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Outcome of commands decided before, by (source, id)."""
        return accounts.known_commands(self._database, ids)

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of (account, payment_ref) used before."""
        return accounts.known_payments(self._database, pairs)

    def load_hours(self, number: int, hours: Iterable[int]) -> list[HashHour]:
        """Identities of unnumbered sources filed under these hours; an hour may come in several pieces."""
        return accounts.load_hours(self._database, number, hours)

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        """Refuse with ``history_unavailable``: decisions are in the log; a store that reads the log overrides this."""
        return Refusal("history_unavailable", f"no log to read what was decided for {', '.join(accounts)}")

    def due_accounts(self, number: int, log_time_us: int, limit: int) -> list[str]:
        """Accounts of the partition that change by themselves by this log time, earliest first."""
        return accounts.due_accounts(self._database, number, log_time_us, limit)

    def first_due(self, before_us: int) -> list[tuple[int, str]]:
        """By partition the account that is due first, where one was due before a time."""
        return accounts.first_due(self._database, before_us)

    # Catalogue

    def catalog(self) -> tuple[int, Catalog]:
        """Epoch and entries of one moment."""
        return catalog.read_catalog(self._database)

    def catalog_epoch(self) -> int:
        """The catalogue's epoch: 0 before the first publication."""
        return catalog.catalog_epoch(self._database)

    def publish(self, entries: Catalog, rerate: bool = False) -> PublishResult:
        """Add what is new (:func:`billing.store.published_catalog.publish`)."""
        return catalog.publish(self._database, entries, rerate)

    def worker_seen(self, name: str, epoch: int) -> None:
        """Note that a worker lives and which epoch it uses; at least every few seconds."""
        catalog.worker_seen(self._database, name, epoch)

    def wait_for_workers(self, epoch: int, timeout_seconds: float) -> list[str]:
        """Wait until living workers use ``epoch``; the names of those that do not in time."""
        return catalog.wait_for_workers(self._database, epoch, timeout_seconds)

    # Outbox

    def outbox_read(self, number: int, after_commit_no: int, max_bytes: int) -> list[tuple[int, OutboxRow]]:
        """Output of whole commits after one, in publishing order (:func:`billing.store.outbox_rows.outbox_read`)."""
        return outbox.outbox_read(self._database, number, after_commit_no, max_bytes)

    def outbox_delete(self, number: int, through_commit_no: int) -> None:
        """Drop what was published."""
        outbox.outbox_delete(self._database, number, through_commit_no)

    def published(self, number: int) -> int:
        """The last commit whose output was dropped."""
        return outbox.published(self._database, number)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Hear of commits from now on, on a connection of its own."""
        with outbox.listen(self._database) as listener:
            yield listener
