"""The writer of a partition: a serial task that decides the offered batches and commits the results.

The writer takes batches of all four input topics, checks that no offset is missing, and continues only when SQL has the
commit. Every command acknowledged before the usage was produced is applied first (:mod:`streams.worker.fence`). After
any failure the writer discards its memory and reloads it from SQL (docs/reference/principles.md, "Commit"). It uses
neither a Kafka client nor SQL directly: :class:`streams.worker.intake.Log` and :class:`WriterStore` are its interfaces
to them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch
from billing.commits.partition_stop import PartitionStop
from billing.errors import CatalogMoved, DatabaseDown, DecideAgain, StoreError
from schemas.topics import INPUT_TOPICS
from streams.stream_errors import LogBroken, PartitionStopped, StreamFault, Undecided
from streams.worker.fence import CommandFence, log_ends, log_starts
from streams.worker.intake import Batch, InputPartition, Intake, Log, Offered
from streams.worker.worker_metrics import WorkerMetrics

log = logging.getLogger("tokenbill.writer")

_T = TypeVar("_T")


class Engine(Protocol):
    """The billing rules of one partition; implemented by ``billing.engine.partition_engine.PartitionEngine``."""

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Load the state needed to decide the batches, which may take long; blocking."""

    def decide(self, batches: Sequence[InputBatch], due: Sequence[str] = ()) -> CommitRecord:
        """Decide the batches in the given order and roll forward the ``due`` accounts; blocking."""

    def committed(self, digest: bytes, /) -> None:
        """Accept the last decision as committed in SQL, with the digest of the commit."""


class WriterStore(Protocol):
    """The part of ``billing.store.store.Store`` that a writer uses; blocking, thread-safe."""

    def acquire(self, partition: int, /) -> tuple[int, PartitionState]:
        """Raise the partition's epoch and load its state; return both."""

    def stop_of(self, partition: int, /) -> PartitionStop | None:
        """Return why the partition is stopped, or None if it is not."""

    def commit(self, epoch: int, record: CommitRecord, /) -> bytes:
        """Write the record in one transaction and return its digest; raises Fenced, DecideAgain, DatabaseDown."""

    def catalog(self) -> tuple[int, Any]:
        """Return the epoch of the catalogue in force, and the catalogue."""

    def due_accounts(self, partition: int, log_time_us: int, limit: int, /) -> list[str]:
        """Return up to ``limit`` accounts with a time-driven change due at or before ``log_time_us``."""


_OF_THE_PROCESS = (StoreError, StreamFault, MemoryError, OSError)
"""Failures that are not those of a partition's data: the database, the broker, the machine."""


class _TryFewer(Exception):
    """The same input is decided again, with fewer records or without changes that are due by time."""


EngineMaker = Callable[[PartitionState, int, Any], Engine]
"""Factory of engines: (state, catalogue epoch, catalogue) to an engine."""


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Sizes and time limits of a writer."""

    max_commit_records: int = 100_000
    first_commit_records: int = 20_000
    """Size of the first commit; the size doubles while commits are quick and halves after a slow one."""
    slow_commit_seconds: float = 5.0
    """Duration above which a commit is slow. A rebalance waits for the commit in flight, so none may take long."""
    max_buffer_bytes: int = 64 << 20
    """Buffer limit per topic; one batch may exceed it."""
    commands_wait_seconds: float = 5.0
    """Wait for commands below the command fence, after which they are read again."""
    backoff_seconds: tuple[float, float] = (0.1, 5.0)
    """First and longest wait between attempts while the database is down."""
    due_seconds: float = 1.0
    """Interval of the search for accounts with a time-driven change that is due."""
    max_due_accounts: int = 1_000


class PartitionWriter:
    """Serial writer of one partition, for one generation of the consumer group."""

    def __init__(
        self,
        partition: int,
        *,
        store: WriterStore,
        kafka_log: Log,
        make_engine: EngineMaker,
        executor: Executor,
        metrics: WorkerMetrics,
        settings: WriterSettings,
        turns: threading.Semaphore,
    ) -> None:
        """``turns`` is shared by the writers of a process; it limits how many decide at the same time."""
        self.partition = partition
        self.intakes = {topic: Intake(topic, 0) for topic in INPUT_TOPICS}
        self.positioned = False
        """True if the state in memory and the reading positions agree with SQL."""
        self.catalog_epoch = 0
        self.waiting: dict[str, int] = dict.fromkeys(INPUT_TOPICS, 0)
        """Number of :meth:`offer` calls that wait for room in the buffer, by topic."""
        self._store = store
        self._log = kafka_log
        self._make_engine = make_engine
        self._executor = executor
        self._metrics = metrics
        self._settings = settings
        self._turns = turns
        self._epoch = 0
        self._log_time_us = 0
        self._limit = min(settings.first_commit_records, settings.max_commit_records)
        self._due_next = 0.0
        self._due: list[str] = []
        self._due_failure: Exception | None = None
        """Failure of a decision that included changes due by time; the next one is tried without them."""
        self._engine: Engine | None = None
        self._fence = CommandFence(partition, self.intakes, kafka_log, metrics, settings.commands_wait_seconds)
        self._stopping = False
        self._wanted_catalog_epoch = 0
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._in_flight: asyncio.Future[Any] | None = None
        self._broken: LogBroken | None = None
        """The fault of a topic's log, once it is known; the records before it are still committed."""

    # Public methods.

    async def offer(self, topic: str, batch: Batch) -> None:
        """Buffer a batch once there is room; drop a stale batch, and read again if records are missing before it."""
        intake = self.intakes[topic]
        self.waiting[topic] += 1
        try:
            while not self._stopping and (not self.positioned or self._full(intake)):
                self._room.clear()
                await self._room.wait()
        finally:
            self.waiting[topic] -= 1
        if self._stopping or (self._broken is not None and self._broken.topic == topic):
            return
        outcome = intake.offer(batch)
        if outcome is Offered.TAKEN:
            self._more.set()
        elif outcome is Offered.GAP:
            log.info("p%d %s: got %d, next is %d: reading again", self.partition, topic, batch.start, intake.tail)
            self._metrics.rewinds.labels("gap").inc()
            await self._log.rewind({(topic, self.partition): intake.tail})
        elif outcome is Offered.HOLE:
            broken = await self._hole(topic, batch)
            self._broken = self._broken or broken
            self._more.set()

    async def _hole(self, topic: str, batch: Batch) -> LogBroken:
        """Return what is wrong with the offsets that the batch should have, read twice."""
        place, tail = (topic, self.partition), self.intakes[topic].tail
        where = f"{topic} partition {self.partition}"
        if batch.problem is not None and batch.start <= tail:
            return LogBroken("unreadable", topic, tail, batch.end - 1, f"{where}: {batch.problem} (read twice)")
        start = (await log_starts(self._log, self.partition, [place]))[place]
        if start > tail:
            return _deleted(topic, self.partition, tail, start)
        first, last = batch.missing(tail)
        why = f"{where}: the log does not have every record from {tail} to {batch.end}: {first} to {last} are missing"
        return LogBroken("missing", topic, tail, last, f"{why} (read twice)")

    def deleted(self, topic: str, position: int, start: int) -> None:
        """Stop at ``position``: the log of the topic begins at ``start``."""
        self._broken = self._broken or _deleted(topic, self.partition, position, start)
        self._more.set()

    def give_up(self) -> None:
        """Accept no more batches; calls of :meth:`offer` that wait return. The writer's task has ended."""
        self._stopping = True
        self._room.set()
        for intake in self.intakes.values():
            intake.reset(intake.next)

    async def stop(self, task: asyncio.Task[None]) -> None:
        """Accept no more batches, wait for the commit in flight, and cancel ``task`` (which runs :meth:`run`)."""
        self._stopping = True
        self._room.set()
        self._more.set()
        if self._in_flight is not None:
            await asyncio.wait([self._in_flight])
        task.cancel()
        await asyncio.wait([task])

    def catalog_moved(self, epoch: int) -> None:
        """Use the catalogue of ``epoch`` from the next commit on, if it is newer."""
        if epoch > self._wanted_catalog_epoch:
            self._wanted_catalog_epoch = epoch
            self._more.set()

    # The writer's task.

    async def run(self) -> None:
        """Commit the offered records until stopped.

        Raises:
            Fenced: another writer owns the partition.
            LogBroken: records are missing from the log or cannot be read.
            Undecided: the rules failed on a record, or a forwarded record is missing.
            PartitionStopped: the partition was stopped before, and nobody resumed it.
            Exception: any other exception is a fault of the process, not of the partition.
        """
        down_since: float | None = None
        wait_seconds, longest = self._settings.backoff_seconds
        while not self._stopping:
            try:
                await self._acquire()
                if down_since is not None:
                    log.warning("p%d: database back after %.1f s", self.partition, time.monotonic() - down_since)
                down_since, wait_seconds = None, self._settings.backoff_seconds[0]
                await self._commit_until_stopped()
            except _TryFewer:
                log.info("p%d: trying %d records at once", self.partition, self._limit)
            except DecideAgain as reason:
                log.info("p%d: deciding the same input again: %s", self.partition, reason)
            except DatabaseDown as error:
                down_since = down_since or time.monotonic()
                self._metrics.database_failures.inc()
                self.positioned = False  # The commit may or may not be in SQL, so the position must be read again.
                lasting = time.monotonic() - down_since
                log.warning("p%d: database down for %.1f s, retrying: %s", self.partition, lasting, error)
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, longest)
            finally:
                self._engine = None

    async def _acquire(self) -> None:
        state = await self._in_thread(self._load)
        keep = self.positioned  # True only after DecideAgain: SQL refused the commit, so the buffers stay valid.
        moved = {}
        for topic, intake in self.intakes.items():
            position = state.positions.get(topic, 0)
            if not keep or intake.next != position:
                intake.reset(position)
                self._broken = None  # What lies before it must be read again first.
                moved[topic, self.partition] = position
        self._fence.clear()
        if moved:
            await self._check_log_reaches(moved)
            await self._log.rewind(moved)
            self._metrics.rewinds.labels("acquired").inc()
        self.positioned = True
        self._room.set()

    def _load(self) -> PartitionState:
        stop = self._store.stop_of(self.partition)
        if stop is not None:
            raise PartitionStopped(stop)
        self._epoch, state = self._store.acquire(self.partition)
        self._log_time_us = state.log_time_us
        self.catalog_epoch, catalog = self._store.catalog()
        self._engine = self._make_engine(state, self.catalog_epoch, catalog)
        return state

    async def _check_log_reaches(self, positions: Mapping[InputPartition, int]) -> None:
        for place, end in (await log_ends(self._log, self.partition, positions)).items():
            if positions[place] > end:
                why = f"{place[0]} partition {place[1]} ends at {end}, but {positions[place]} was committed"
                raise LogBroken("log_too_short", place[0], positions[place], None, why)
        for place, start in (await log_starts(self._log, self.partition, positions)).items():
            if positions[place] < start:
                raise _deleted(place[0], place[1], positions[place], start)

    async def _commit_until_stopped(self) -> None:
        while not self._stopping:
            if self._broken is not None and not self.intakes[self._broken.topic].pending:
                raise self._broken
            if self._wanted_catalog_epoch > self.catalog_epoch:
                raise CatalogMoved(self._wanted_catalog_epoch)
            self._more.clear()
            batches = await self._fence.next_input(self._limit, self._more)
            if batches:
                await self._commit(batches[:1] if self._limit == 1 else batches)

    async def _commit(self, batches: list[InputBatch]) -> None:
        """Commit the batches, or find out which record the rules fail on.

        Raises:
            _TryFewer: they failed on these batches, and fewer records are tried next.
            Undecided: they failed on one record, or on changes that are due by time alone.
        """
        try:
            record = await self._in_thread(lambda: self._apply(batches))
        except _OF_THE_PROCESS:
            raise
        except Exception as error:  # Whatever the rules raise stops this partition alone, once its record is found.
            log.error("p%d: the rules failed", self.partition, exc_info=error)
            raise self._narrowed(batches, error) from error
        for batch in batches:
            self.intakes[batch.topic].committed(batch.end)
        self._metrics.count(record.counts, record.findings)
        self._room.set()
        if self._due_failure is not None:
            why = f"changes due by time failed, no record did: {self._due_failure!r}"
            raise Undecided(PartitionStop(self.partition, "undecided", f"partition {self.partition}: {why}"))

    def _narrowed(self, batches: list[InputBatch], error: Exception) -> Exception:
        """Return what is known after a failure: where commits fall changes no result, so fewer records may be tried.

        A failure that names its record, as that of a lost forward does, needs no search.
        """
        if self._due:
            # Tried once more without them: if that succeeds, they are the cause.
            self._due_failure = error
            return _TryFewer()
        self._due_failure = None
        topic, offset = getattr(error, "topic", batches[0].topic), getattr(error, "offset", batches[0].start)
        origin, found = getattr(error, "origin", None), getattr(error, "found", None)
        if origin is not None:
            return Undecided(
                PartitionStop(self.partition, "forward_lost", str(error), topic, offset, None, origin, found)
            )
        if self._limit > 1:
            self._limit = max(1, min(self._limit, max(batch.end - batch.start for batch in batches)) // 10)
            return _TryFewer()
        why = f"{topic} partition {self.partition} offset {offset}: {error!r}"
        return Undecided(PartitionStop(self.partition, "undecided", why, topic, offset, offset))

    def _apply(self, batches: list[InputBatch]) -> CommitRecord:
        """Decide and commit the batches. This method fixes the order of effects on which crash safety rests.

        Nothing is visible outside this process before ``store.commit`` returns, and all of it is afterwards: balances,
        journal, positions and outbox are one transaction, guarded by epoch, commit number, start positions and
        catalogue epoch. A crash before the commit loses only memory; after it, the next owner finds the new positions
        in SQL. Output reaches Kafka only through the outbox.
        """
        if self._engine is None:
            raise RuntimeError("a commit without an acquired partition")
        due = self._due = [] if self._due_failure is not None else self._due_accounts()
        self._engine.prepare(batches)
        with self._turns:
            begun = time.perf_counter()
            record = self._engine.decide(batches, due)
            decided = time.perf_counter()
        self._engine.committed(self._store.commit(self._epoch, record))
        self._metrics.decide_seconds.observe(decided - begun)
        self._metrics.commit_seconds.observe(time.perf_counter() - decided)
        self._metrics.committed(batches)
        self._log_time_us = record.log_time_us
        self._resize(time.perf_counter() - begun)
        return record

    def _resize(self, seconds: float) -> None:
        slow, largest = self._settings.slow_commit_seconds, self._settings.max_commit_records
        if seconds > slow:
            self._limit = max(self._limit // 2, min(500, largest))
        elif seconds < slow / 2:
            self._limit = min(self._limit * 2, largest)

    def _due_accounts(self) -> list[str]:
        # The moment of this query changes no result: an account's next event rolls it forward in the same way.
        now = time.monotonic()
        if now < self._due_next:
            return []
        due = self._store.due_accounts(self.partition, self._log_time_us, self._settings.max_due_accounts)
        full = len(due) == self._settings.max_due_accounts
        self._due_next = now if full else now + self._settings.due_seconds
        return due

    def _full(self, intake: Intake) -> bool:
        settings = self._settings
        # Room for two commits: the next one is completely buffered when the one in flight ends.
        return intake.records >= 2 * settings.max_commit_records or intake.size_bytes >= settings.max_buffer_bytes

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        if self._stopping:
            raise asyncio.CancelledError
        self._in_flight = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            # Shielded, because a cancelled task must not appear finished while its thread still commits.
            return await asyncio.shield(self._in_flight)
        finally:
            if self._in_flight.done():
                self._in_flight = None


def _deleted(topic: str, partition: int, position: int, start: int) -> LogBroken:
    why = (
        f"{topic} partition {partition}: deleted by retention before they were read: offsets {position} to {start - 1}"
    )
    return LogBroken("deleted", topic, position, start - 1, why)
