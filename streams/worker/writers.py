"""The writers of all partitions that a worker holds, through the generations of the consumer group.

Every rebalance revokes all partitions and assigns them anew, so a writer lives exactly as long as one assignment.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol

from billing.commits.partition_stop import PartitionStop, StoppedPartition
from billing.errors import DatabaseDown, Fenced
from schemas.topics import INPUT_TOPICS
from streams.stream_errors import (
    BrokerDown,
    FencedWhileAssigned,
    InputTopicsSplit,
    LogBroken,
    PartitionStopped,
    Undecided,
)
from streams.worker.intake import Batch, InputPartition, Log
from streams.worker.worker_metrics import WorkerMetrics
from streams.worker.writer import EngineMaker, PartitionWriter, WriterSettings, WriterStore

log = logging.getLogger("tokenbill.writers")

DECIDING_AT_ONCE = 2
"""Number of partitions of a process that may decide at the same time: one computes (the interpreter runs one thread at
a time) while another waits for SQL to load accounts. A higher number makes each commit slower and therefore smaller."""


class PositionStore(WriterStore, Protocol):
    """The part of ``billing.store.store.Store`` that a worker uses: the methods of its writers and its own."""

    def positions(self, partitions: list[int], /) -> Mapping[InputPartition, int]:
        """Return the next offset of each (topic, partition); does not raise the epoch."""

    def catalog_epoch(self) -> int:
        """Return the epoch of the catalogue in force."""

    def stopped(self) -> list[StoppedPartition]:
        """Return the partitions that are stopped until a person resumes them."""

    def record_stop(self, stop: PartitionStop, worker: str, /) -> None:
        """Record that a partition stopped, unless it is recorded already."""

    def worker_seen(self, name: str, epoch: int, /) -> None:
        """Record that the worker ``name`` is alive and uses the catalogue epoch ``epoch``."""


class PartitionWriters:
    """The partition writers of the current assignment."""

    def __init__(
        self,
        *,
        store: PositionStore,
        make_engine: EngineMaker,
        metrics: WorkerMetrics,
        settings: WriterSettings,
        fail: Callable[[BaseException], Awaitable[None]],
        fenced_grace_seconds: float,
        name: str = "worker",
    ) -> None:
        """``name`` is the worker's, recorded with a partition that stops."""
        self.store = store
        self.joined = False
        """True if the consumer group has answered at least once, with or without partitions."""
        self.stopped: dict[int, str] = {}
        """Reason by partition, for the partitions that stopped."""
        self.stops: dict[int, PartitionStop] = {}
        """Those that stay stopped until a person resumes them; a fenced partition is not among them."""
        self._recorded: set[int] = set()
        self._make_engine = make_engine
        self._metrics = metrics
        self._settings = settings
        self._fail = fail
        self._name = name
        self._fenced_grace_seconds = fenced_grace_seconds
        self._log: Log | None = None
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="writer")
        self._turns = threading.Semaphore(DECIDING_AT_ONCE)
        self._writers: dict[int, PartitionWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._seen: dict[InputPartition, tuple[int, int]] = {}

    # Called by the application.

    async def revoke(self) -> None:
        """Release every partition; return when no commit is in flight."""
        writers, tasks = self._writers, self._tasks
        self._writers, self._tasks = {}, {}
        await asyncio.gather(*(writer.stop(tasks[number]) for number, writer in writers.items()))
        for number in writers:
            for topic in INPUT_TOPICS:
                self._metrics.lag.remove(topic, str(number))

    async def assign(self, places: Iterable[InputPartition], kafka_log: Log) -> None:
        """Start a writer for each partition of one generation; each writer acquires and positions its partition.

        Raises:
            InputTopicsSplit: a partition was assigned without all of its input topics.
        """
        await self.revoke()
        topics: dict[int, set[str]] = defaultdict(set)
        for topic, number in places:
            topics[number].add(topic)
        for number, held in sorted(topics.items()):
            if held != set(INPUT_TOPICS):
                raise InputTopicsSplit(
                    f"partition {number} was assigned for {sorted(held)} but not for "
                    f"{sorted(set(INPUT_TOPICS) - held)}: every worker of the group must subscribe to all input "
                    f"topics and use the range assignor; is another program in the group?"
                )
        self._log = kafka_log
        self._clear_stops()
        for number in sorted(topics):
            self._start(number, kafka_log)
        self.joined = True

    async def offer(self, place: InputPartition, batch: Batch) -> None:
        """Pass a batch to the writer of its partition; drop it if there is none, because its assignment has ended."""
        topic, number = place
        writer = self._writers.get(number)
        if writer is not None and number not in self.stopped:
            await writer.offer(topic, batch)

    async def load_positions(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Return the positions of SQL for ``places``; empty while SQL is down (each writer rewinds after acquiring)."""
        wanted = set(places)
        numbers = sorted({number for _, number in wanted})
        if not numbers:
            return {}
        try:
            found = await self._in_thread(lambda: self.store.positions(numbers))
        except DatabaseDown as error:
            log.warning("positions not read, the writers will: %s", error)
            return {}
        return {place: offset for place, offset in found.items() if place in wanted}

    # Called by timers.

    async def poll_catalog(self) -> None:
        """Read the catalogue epoch in force and pass it to the writers."""
        try:
            epoch = await self._in_thread(self.store.catalog_epoch)
        except DatabaseDown:
            return  # A writer with records to commit logs the outage and how long it lasts.
        for writer in self._writers.values():
            writer.catalog_moved(epoch)

    async def heartbeat(self, name: str) -> None:
        """Record in SQL that this worker is alive, with the oldest catalogue epoch that one of its writers uses."""
        running = [writer for number, writer in self._writers.items() if number not in self.stopped]
        ready = [writer.catalog_epoch for writer in running if writer.positioned]
        try:
            epoch = min(ready) if ready else await self._in_thread(self.store.catalog_epoch)
            if len(ready) == len(running):
                await self._in_thread(lambda: self.store.worker_seen(name, epoch))
        except DatabaseDown as error:
            log.info("heartbeat not written: %s", error)

    async def watch_tail(self) -> None:
        """Read again the records that the consumer fetched but never delivered, and measure the lag against SQL.

        A batch lost between fetch and writer shows as a gap when the next batch comes. At the end of a log no batch
        follows, so the loss is detected here: two runs in a row find the same read position beyond the same buffer end.
        """
        kafka_log = self._log
        writers = {number: writer for number, writer in self._writers.items() if writer.positioned}
        if kafka_log is None or not writers:
            return
        places = [(topic, number) for number in writers for topic in INPUT_TOPICS]
        try:
            ends = await kafka_log.end_offsets(places)
        except BrokerDown as error:
            log.warning("lag not measured: %s", error)
            return
        read = await kafka_log.read_positions(places)
        lost: dict[InputPartition, int] = {}
        seen: dict[InputPartition, tuple[int, int]] = {}
        for place in places:
            topic, number = place
            if self._writers.get(number) is not writers[number]:
                continue
            intake = writers[number].intakes[topic]
            self._metrics.lag.labels(topic, str(number)).set(ends[place] - intake.next)
            position = read.get(place, intake.tail)
            if position > intake.tail and not writers[number].waiting[topic] and number not in self.stopped:
                seen[place] = (position, intake.tail)
                if self._seen.get(place) == seen[place]:
                    lost[place] = intake.tail
        self._seen = seen
        for place, start in (await self._starts(kafka_log, lost)).items():
            if start > lost[place]:
                # The consumer went on at the start of the log, where no record may follow that would show the gap.
                writers[place[1]].deleted(place[0], lost.pop(place), start)
        if lost:
            log.warning("read but never delivered, reading again from %s", lost)
            self._metrics.rewinds.labels("tail").inc(len(lost))
            await kafka_log.rewind(lost)

    async def _starts(self, kafka_log: Log, places: Mapping[InputPartition, int]) -> Mapping[InputPartition, int]:
        try:
            return await kafka_log.start_offsets(places) if places else {}
        except BrokerDown as error:
            log.warning("starts of logs not read: %s", error)
            return {}

    async def follow_stops(self) -> None:
        """Record the stops that are not recorded yet, and start the partitions that a person resumed."""
        if not self.stops:
            return
        try:
            for number, stop in list(self.stops.items()):
                if number not in self._recorded:
                    await self._in_thread(partial(self.store.record_stop, stop, self._name))
                    self._recorded.add(number)
            held = {one.stop.partition for one in await self._in_thread(self.store.stopped)}
        except DatabaseDown as error:
            log.warning("stopped partitions not recorded or read: %s", error)
            return
        kafka_log = self._log
        for number in sorted(self._recorded - held):
            if number in self._writers and kafka_log is not None:
                log.warning("partition %d goes on: it was resumed", number)
                self._forget_stop(number)
                self._start(number, kafka_log)

    def sql_positions(self) -> dict[InputPartition, int]:
        """Return the positions of SQL that the positioned writers hold in memory."""
        return {
            (topic, number): intake.next
            for number, writer in self._writers.items()
            if writer.positioned
            for topic, intake in writer.intakes.items()
        }

    def health(self) -> dict[str, Any]:
        """Return ``ready``, ``missing`` (why the worker is not ready), ``stopped`` and the worker's ``partitions``.

        A stopped partition does not make the worker unready: the others go on, and waiting for it does not help.
        """
        waiting = [
            number for number, writer in self._writers.items() if not writer.positioned and number not in self.stopped
        ]
        missing = [] if self.joined else ["the consumer group has not answered yet"]
        missing += [f"partition {number} is not acquired and positioned yet" for number in waiting]
        missing += [
            f"partition {number} is stopped: {why}" for number, why in self.stopped.items() if number not in self.stops
        ]
        stopped = [
            {
                "partition": number,
                "topic": stop.topic,
                "offset": stop.offset,
                "reason": stop.reason,
                "resume": stop.resume,
            }
            for number, stop in sorted(self.stops.items())
        ]
        return {"ready": not missing, "missing": missing, "stopped": stopped, "partitions": sorted(self._writers)}

    # Private methods.

    def _start(self, number: int, kafka_log: Log) -> None:
        writer = PartitionWriter(
            number,
            store=self.store,
            kafka_log=kafka_log,
            make_engine=self._make_engine,
            executor=self._executor,
            metrics=self._metrics,
            settings=self._settings,
            turns=self._turns,
        )
        self._writers[number] = writer
        task = asyncio.create_task(writer.run(), name=f"writer-{number}")
        self._tasks[number] = task
        watch = asyncio.create_task(self._watch(number, writer, task))
        self._watching.add(watch)
        watch.add_done_callback(self._watching.discard)

    async def _watch(self, number: int, writer: PartitionWriter, task: asyncio.Task[None]) -> None:
        await asyncio.wait([task])
        if task.cancelled() or (error := task.exception()) is None or self._writers.get(number) is not writer:
            return
        if isinstance(error, LogBroken | Undecided | PartitionStopped):
            stop = error.stop(number) if isinstance(error, LogBroken) else error.stop
            self.stops[number] = stop
            writer.give_up()
            if isinstance(error, PartitionStopped):
                self._recorded.add(number)
            self._stop_partition(number, stop.reason)
            self._metrics.partition_stopped.labels(str(number)).set(1)
            await self.follow_stops()
        elif isinstance(error, Fenced):
            self._stop_partition(number, f"fenced: {error}")
            await asyncio.sleep(self._fenced_grace_seconds)
            if self._writers.get(number) is writer:
                await self._fail(FencedWhileAssigned(f"partition {number} is assigned to this worker, but {error}"))
        else:
            log.critical("partition %d: broken invariant", number, exc_info=error)
            await self._fail(error)

    def _stop_partition(self, number: int, why: str) -> None:
        log.error("partition %d stopped: %s", number, why)
        self.stopped[number] = why
        self._metrics.stopped.set(len(self.stopped))

    def _forget_stop(self, number: int) -> None:
        self.stopped.pop(number, None)
        if self.stops.pop(number, None) is not None:
            self._metrics.partition_stopped.remove(str(number))
        self._recorded.discard(number)
        self._metrics.stopped.set(len(self.stopped))

    def _clear_stops(self) -> None:
        for number in list(self.stopped):
            self._forget_stop(number)

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
