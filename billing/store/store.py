"""Facade of the store for the streams and the command line: its operations on one connection pool.

Synchronous and thread-safe: call it from executor threads. Each method is one transaction.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from billing.accounts.account import Account
from billing.accounts.held import Held
from billing.catalog.model import Catalog
from billing.commits.commit_record import CommitRecord, OutboxPage, OutputHistory, PartitionState
from billing.commits.identities import HashHour, LogPart
from billing.commits.partition_stop import PartitionStop, StoppedPartition
from billing.commits.stored_accounts import StoredAccounts
from billing.corrections.history import AccountHistory
from billing.errors import Fenced
from billing.record_keys import RecordKeys
from billing.store import account_rows as accounts
from billing.store import held_of_accounts as holds
from billing.store import outbox_rows as outbox
from billing.store import output_histories as histories
from billing.store import partition_rows as partition
from billing.store import partition_stops as stops
from billing.store import published_catalog as catalog
from billing.store.commits import write_commit as commit
from billing.store.database import Database
from billing.store.outbox_rows import Listener
from billing.store.published_catalog import PublishResult
from billing.store.record_key_rows import StoredRecordKeys, read_record_keys
from billing.store.summed_tables import RowSums
from schemas.refusals import Refusal


class Store:
    """Committed state in PostgreSQL.

    A method raises ``DatabaseDown`` if the server cannot answer; the next call reconnects.
    """

    def __init__(self, database_url: str, pool_size: int = 4) -> None:
        self._database = Database(database_url, pool_size)
        self._sums: dict[int, tuple[int, RowSums]] = {}
        """Epoch and sums of the rows of each partition acquired here."""
        self._record_keys = StoredRecordKeys(lambda: read_record_keys(self._database))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the idle connections."""
        self._database.close()

    # Partitions and commits

    def acquire(self, number: int) -> tuple[int, PartitionState]:
        """Acquire a partition and return its new epoch and its state (:func:`billing.store.partition_rows.acquire`)."""
        epoch, state, sums = partition.acquire(self._database, number)
        self._sums[number] = epoch, sums
        return epoch, state

    def positions(self, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
        """Return next offsets by (topic, partition) (:func:`billing.store.partition_rows.positions`)."""
        return partition.positions(self._database, partitions)

    def commit(self, epoch: int, record: CommitRecord) -> bytes:
        """Write one commit, or nothing; return its digest (:func:`billing.store.commits.write_commit.write_commit`)."""
        acquired, known = self._sums.get(record.partition, (None, None))
        if known is None or acquired != epoch:
            raise Fenced(f"partition {record.partition} was not acquired here with epoch {epoch}")
        digest, sums = commit.write_commit(self._database, epoch, record, known)
        self._sums[record.partition] = epoch, RowSums(sums)
        return digest

    # Stopped partitions

    def stop_of(self, number: int) -> PartitionStop | None:
        """Return why the partition is stopped, or None (:func:`billing.store.partition_stops.stop_of`)."""
        return stops.stop_of(self._database, number)

    def stopped(self) -> list[StoppedPartition]:
        """Return the stopped partitions (:func:`billing.store.partition_stops.stopped_partitions`)."""
        return stops.stopped_partitions(self._database)

    def record_stop(self, stop: PartitionStop, worker: str) -> None:
        """Record that a partition stopped (:func:`billing.store.partition_stops.record_stop`)."""
        stops.record_stop(self._database, stop, worker)

    # Accounts and identities

    def load_accounts(self, ids: Sequence[str]) -> StoredAccounts:
        """Return the accounts that exist among ``ids`` (:func:`billing.store.account_rows.load_accounts`)."""
        found, strange = accounts.load_accounts(self._database, ids)
        for number, names in strange.items():
            if number in self._sums:
                self._sums[number][1].strange += names
        return found

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """Return the outcome of the commands that were accepted before, by (source, id)."""
        return accounts.known_commands(self._database, ids)

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return those (account, payment_ref) pairs that were used before."""
        return accounts.known_payments(self._database, pairs)

    def load_hours(self, number: int, hours: Iterable[int]) -> list[HashHour]:
        """Return identities of unnumbered sources filed under these hours. An hour may be returned in several parts."""
        return accounts.load_hours(self._database, number, hours)

    def held(
        self, accounts: Sequence[str], read: Callable[[str], Account | None], catalog: Catalog
    ) -> Mapping[str, Held]:
        """Return what open holds hold now (:func:`billing.store.held_of_accounts.held`)."""
        return holds.held(self._database, accounts, read, catalog)

    def log_parts(self, number: int, from_us: int, at_most: int) -> list[LogPart]:
        """Return parts of the identities of unnumbered sources (:func:`billing.store.account_rows.log_parts`)."""
        return accounts.log_parts(self._database, number, from_us, at_most)

    def load_part(self, number: int, part: LogPart) -> list[bytes]:
        """Return the payloads of the identities of a part, in commit order."""
        return accounts.load_part(self._database, number, part)

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        """Return the past decisions for these accounts.

        They are in the Kafka log, not in SQL: always refused with ``history_unavailable``. A subclass that can read
        the log overrides this method.
        """
        return Refusal("history_unavailable", f"no log to read what was decided for {', '.join(accounts)}")

    def due_accounts(self, number: int, log_time_us: int, limit: int) -> list[str]:
        """Return accounts of the partition with a change due by this log time, earliest first."""
        return accounts.due_accounts(self._database, number, log_time_us, limit)

    def first_due(self, before_us: int) -> list[tuple[int, str]]:
        """Return (partition, account) of the account due first, for each partition where one was due before a time."""
        return accounts.first_due(self._database, before_us)

    def record_keys(self) -> RecordKeys:
        """Return the keys that show which records are the product's own, to decide one commit or sign one record."""
        return self._record_keys.now()

    # Catalogue

    def catalog(self) -> tuple[int, Catalog]:
        """Return the epoch and the entries, read in one snapshot."""
        return catalog.read_catalog(self._database)

    def catalog_epoch(self) -> int:
        """Return the epoch of the catalogue: 0 before the first publication."""
        return catalog.catalog_epoch(self._database)

    def publish(self, entries: Catalog, rerate: bool = False) -> PublishResult:
        """Publish the new entries (:func:`billing.store.published_catalog.publish`)."""
        return catalog.publish(self._database, entries, rerate)

    def worker_seen(self, name: str, epoch: int) -> None:
        """Store the heartbeat of a worker and its catalogue epoch. Call it at least every few seconds."""
        catalog.worker_seen(self._database, name, epoch)

    def wait_for_workers(self, epoch: int, timeout_seconds: float) -> list[str]:
        """Wait until all live workers use ``epoch``; return the names of those that do not when the timeout ends."""
        return catalog.wait_for_workers(self._database, epoch, timeout_seconds)

    # Outbox

    def outbox_read(self, number: int, after_commit_no: int, max_bytes: int) -> OutboxPage:
        """Return the output of complete commits after one (:func:`billing.store.outbox_rows.outbox_read`)."""
        return outbox.outbox_read(self._database, number, after_commit_no, max_bytes)

    def outbox_delete(self, number: int, through_commit_no: int) -> None:
        """Delete the published rows up to and including a commit."""
        outbox.outbox_delete(self._database, number, through_commit_no)

    def commit_digest(self, number: int, commit_no: int) -> bytes | None:
        """Return the digest of a commit; None if there is no such commit."""
        return outbox.commit_digest(self._database, number, commit_no)

    def last_commit(self, number: int) -> int:
        """Return the number of the last commit of a partition, 0 before the first."""
        return outbox.last_commit(self._database, number)

    def last_history(self, number: int) -> OutputHistory | None:
        """Return the newest history of a partition's output; None in the first one."""
        return histories.last_history(self._database, number)

    def begin_histories(self, wanted: Sequence[OutputHistory], begun_by: str) -> list[OutputHistory]:
        """Begin histories of output (:func:`billing.store.output_histories.begin_histories`)."""
        return histories.begin_histories(self._database, wanted, begun_by)

    def published(self, number: int) -> int:
        """Return the last commit whose output was published and deleted."""
        return outbox.published(self._database, number)

    def outbox_sizes(self) -> list[tuple[int, int, int, int | None]]:
        """Return what waits in the outbox (:func:`billing.store.outbox_rows.outbox_sizes`)."""
        return outbox.outbox_sizes(self._database)

    def log_times(self, commits: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
        """Return the log times of ranges of commits (:func:`billing.store.outbox_rows.log_times`)."""
        return outbox.log_times(self._database, commits)

    @contextmanager
    def listen(self) -> Iterator[Listener]:
        """Receive notifications of commits from now on, on a dedicated connection."""
        with outbox.listen(self._database) as listener:
            yield listener
