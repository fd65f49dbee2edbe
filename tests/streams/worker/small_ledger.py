"""Worker with a minimal store for tests of the input path: SQLite replaces PostgreSQL, and offsets replace money.

The store has the contract of ``billing.store.store.Store``: epoch and positions are compared and set in the
transaction that writes the results. Every committed offset is a row with a primary key, so that a lost or repeated
record is detected.
Run as a program, the module is one worker process.
"""

import logging
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from billing.commits.commit_record import AccountChanges, CommitCounts, CommitRecord, PartitionState
from billing.commits.identities import DedupeChange
from billing.commits.input_batch import InputBatch, PositionMove
from billing.commits.partition_stop import PartitionStop, StoppedPartition
from billing.errors import CatalogMoved, Fenced
from schemas.topics import COMMAND_TOPIC, INPUT_TOPICS, USAGE_TOPIC

SCHEMA = """
create table if not exists owner (partition integer primary key, epoch integer not null);
create table if not exists position (topic text, partition integer, next integer not null,
                                     primary key (topic, partition));
create table if not exists event (topic text, partition integer, offset integer, value blob, commands_before integer,
                                  primary key (topic, partition, offset));
create table if not exists assigned (worker text, partition integer);
"""


@dataclass
class SmallRecord(CommitRecord):
    """Commit record that includes the input batches."""

    rows: Sequence[InputBatch] = ()


def small_record(partition: int, batches: Sequence[InputBatch], catalog_epoch: int = 1) -> SmallRecord:
    """Return a commit record that changes only positions and counts."""
    usage = sum(len(batch.records) for batch in batches if batch.topic.startswith("usage"))
    return SmallRecord(
        partition=partition, commit_no=1, catalog_epoch=catalog_epoch, log_time_us=0,
        positions=[PositionMove(batch.topic, batch.start, batch.end) for batch in batches],
        counts=CommitCounts(rated=usage), changes=AccountChanges(), postings=[], rollups=[], dedupe=DedupeChange(),
        commands_seen=[], payments=[], outbox=[], next_sequences={}, forward_next={}, forward_cursors={}, findings=[],
        book_times={}, limits={}, rows=batches,
    )  # fmt: skip


class SmallEngine:
    """Engine without rules that passes the input on to the store."""

    def __init__(self, state: PartitionState, catalog_epoch: int, catalog: object) -> None:
        self.state = state
        self.catalog_epoch = catalog_epoch

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Do nothing: there is no state to load."""

    def decide(self, batches: Sequence[InputBatch], due: object = ()) -> CommitRecord:
        return small_record(self.state.partition, batches, self.catalog_epoch)

    def committed(self, digest: bytes) -> None:
        """Do nothing: no state is kept."""


class SmallStore:
    """Store in SQLite, described in the module's docstring."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._open()) as connection:
            connection.executescript(SCHEMA)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=off")
        return connection

    def acquire(self, partition: int) -> tuple[int, PartitionState]:
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            connection.execute(
                "insert into owner values (?, 1) on conflict (partition) do update set epoch = epoch + 1", (partition,)
            )
            (epoch,) = connection.execute("select epoch from owner where partition = ?", (partition,)).fetchone()
            for topic in INPUT_TOPICS:
                connection.execute("insert or ignore into position values (?, ?, 0)", (topic, partition))
            connection.execute("commit")
        found = self.positions([partition])
        return epoch, PartitionState(partition, 0, positions={topic: end for (topic, _), end in found.items()})

    def positions(self, partitions: list[int]) -> Mapping[tuple[str, int], int]:
        with closing(self._open()) as connection:
            rows = connection.execute("select topic, partition, next from position").fetchall()
        return {(topic, number): end for topic, number, end in rows if number in partitions}

    def commit(self, epoch: int, record: CommitRecord) -> bytes:
        assert isinstance(record, SmallRecord)
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            owner = connection.execute("select epoch from owner where partition = ?", (record.partition,)).fetchone()
            if owner != (epoch,):
                raise Fenced(f"epoch {owner}, not {epoch}")
            commands = 0
            for batch in record.rows:
                moved = connection.execute(
                    "update position set next = ? where topic = ? and partition = ? and next = ?",
                    (batch.end, batch.topic, record.partition, batch.start),
                )
                if moved.rowcount != 1:
                    raise Fenced(f"{batch.topic} is not at {batch.start}")
                if batch.topic == COMMAND_TOPIC:
                    commands = batch.end
            if not commands:
                (commands,) = connection.execute(
                    "select next from position where topic = ? and partition = ?", (COMMAND_TOPIC, record.partition)
                ).fetchone()
            for batch in record.rows:
                connection.executemany(
                    "insert into event values (?, ?, ?, ?, ?)",
                    [(batch.topic, record.partition, one.offset, one.value, commands) for one in batch.records],
                )
            connection.execute("commit")
        return b""

    def stop_of(self, partition: int) -> None:
        return None

    def stopped(self) -> list[StoppedPartition]:
        return []

    def record_stop(self, stop: PartitionStop, worker: str) -> None:
        """Do nothing: a stop is not kept."""

    def catalog(self) -> tuple[int, object]:
        return 1, None

    def catalog_epoch(self) -> int:
        return 1

    def due_accounts(self, partition: int, log_time_us: int, limit: int) -> list[str]:
        return []

    def worker_seen(self, name: str, epoch: int) -> None:
        if epoch != 1:
            raise CatalogMoved(1)

    # Used by the tests.

    def counted(self, topic: str = USAGE_TOPIC) -> tuple[int, int]:
        """Return (rows, sum of positions) of a topic; they are equal if no record is lost."""
        with closing(self._open()) as connection:
            (rows,) = connection.execute("select count(*) from event where topic = ?", (topic,)).fetchone()
            (ends,) = connection.execute(
                "select coalesce(sum(next), 0) from position where topic = ?", (topic,)
            ).fetchone()
        return rows, ends

    def values(self, topic: str = USAGE_TOPIC) -> list[tuple[bytes, int]]:
        """Return (value, command position when it was decided) of every event."""
        with closing(self._open()) as connection:
            return connection.execute("select value, commands_before from event where topic = ?", (topic,)).fetchall()


def main() -> int:
    from streams.worker.worker_app import WorkerSettings, build_app, run_app

    kafka, path, prefix, name, port = sys.argv[1:6]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = WorkerSettings(
        kafka=kafka, name=name, web_port=int(port), session_timeout_seconds=6.0, group=prefix + "g", topic_prefix=prefix
    )
    return run_app(build_app(settings, SmallStore(Path(path)), SmallEngine))


if __name__ == "__main__":
    sys.exit(main())
