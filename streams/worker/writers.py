"""All partitions a worker holds: who writes which, from one generation of the consumer group to the next.

Every rebalance takes everything away and gives anew, so a writer lives exactly as long as one assignment.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from billing.errors import DatabaseDown, Fenced
from schemas.topics import INPUT_TOPICS
from streams.worker.intake import Batch, BrokerDown, InputPartition, Log
from streams.worker.worker_metrics import WorkerMetrics
from streams.worker.writer import EngineMaker, LogBroken, PartitionWriter, Store, WriterSettings

log = logging.getLogger("tokenbill.writers")

DECIDING_AT_ONCE = 2
"""Partitions of a process that decide at once: one computes (the interpreter allows no more) while another waits
for SQL to load accounts. More would only make each commit slower, and so smaller."""


class PositionStore(Store, Protocol):
    """What the worker as a whole asks of ``billing.store.Store``, besides what its writers do."""

    def positions(self, partitions: list[int], /) -> Mapping[InputPartition, int]:
        """(topic, partition) to the next offset; does not raise the epoch."""

    def catalog_epoch(self) -> int:
        """The catalogue epoch in force."""

    def worker_seen(self, name: str, epoch: int, /) -> None:
        """This worker lives and uses that catalogue epoch."""


class PartitionSplit(Exception):
    """The group gave partition p of some input topics to this worker and of others to another one."""


class StillAssigned(Exception):
    """Another writer committed on a partition that the consumer group says is ours."""


class PartitionWriters:
    """The writers of the current assignment."""

    def __init__(
        self,
        *,
        store: PositionStore,
        make_engine: EngineMaker,
        metrics: WorkerMetrics,
        settings: WriterSettings,
        fail: Callable[[BaseException], Awaitable[None]],
        fenced_grace_seconds: float,
    ) -> None:
        self.store = store
        self.joined = False
        """Whether the group has answered at least once, with partitions or without."""
        self.stopped: dict[int, str] = {}
        self._make_engine = make_engine
        self._metrics = metrics
        self._settings = settings
        self._fail = fail
        self._fenced_grace_seconds = fenced_grace_seconds
        self._log: Log | None = None
        self._executor = ThreadPoolExecutor(8, thread_name_prefix="writer")
        self._turns = threading.Semaphore(DECIDING_AT_ONCE)
        self._writers: dict[int, PartitionWriter] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._watching: set[asyncio.Task[None]] = set()
        self._seen: dict[InputPartition, tuple[int, int]] = {}

    # From the application.

    async def revoke(self) -> None:
        """Let go of every partition; returns when no commit is in flight."""
        writers, tasks = self._writers, self._tasks
        self._writers, self._tasks = {}, {}
        await asyncio.gather(*(writer.stop(tasks[number]) for number, writer in writers.items()))
        for number in writers:
            for topic in INPUT_TOPICS:
                self._metrics.lag.remove(topic, str(number))

    async def assign(self, places: Iterable[InputPartition], kafka_log: Log) -> None:
        """Take the partitions of one generation; each acquires and positions itself.

        Raises:
            PartitionSplit: a partition without all its input topics.
        """
        await self.revoke()
        topics: dict[int, set[str]] = defaultdict(set)
        for topic, number in places:
            topics[number].add(topic)
        for number, held in sorted(topics.items()):
            if held != set(INPUT_TOPICS):
                raise PartitionSplit(
                    f"partition {number} was assigned for {sorted(held)} but not for "
                    f"{sorted(set(INPUT_TOPICS) - held)}: every worker of the group must subscribe to all input "
                    f"topics and use the range assignor; is another program in the group?"
                )
        self._log = kafka_log
        self.stopped.clear()
        self._metrics.stopped.set(0)
        for number in sorted(topics):
            self._start(number, kafka_log)
        self.joined = True

    async def offer(self, place: InputPartition, batch: Batch) -> None:
        """Hand a batch to its partition's writer; without one it belongs to an assignment that is over."""
        topic, number = place
        writer = self._writers.get(number)
        if writer is not None and number not in self.stopped:
            await writer.offer(topic, batch)

    async def load_positions(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """SQL's positions of these places; empty while SQL is down (each writer rewinds when it has acquired)."""
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

    # From timers.

    async def poll_catalog(self) -> None:
        """Tell the writers when a newer catalogue is in force."""
        try:
            epoch = await self._in_thread(self.store.catalog_epoch)
        except DatabaseDown:
            return  # Who has something to commit says so, and how long.
        for writer in self._writers.values():
            writer.catalog_moved(epoch)

    async def heartbeat(self, name: str) -> None:
        """Say in SQL that this worker lives, and the oldest catalogue epoch that one of its writers uses."""
        ready = [writer.catalog_epoch for writer in self._writers.values() if writer.positioned]
        try:
            epoch = min(ready) if ready else await self._in_thread(self.store.catalog_epoch)
            if len(ready) == len(self._writers):
                await self._in_thread(lambda: self.store.worker_seen(name, epoch))
        except DatabaseDown as error:
            log.info("heartbeat not written: %s", error)

    async def watch_tail(self) -> None:
        """Re-read what the consumer has passed but never delivered, and measure the lag against SQL.

        A batch lost between fetch and writer shows as a gap when the next one comes; at the end of a log none comes.
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
            if position > intake.tail and not writers[number].waiting[topic]:
                seen[place] = (position, intake.tail)
                if self._seen.get(place) == seen[place]:
                    lost[place] = intake.tail
        self._seen = seen
        if lost:
            log.warning("read but never delivered, reading again from %s", lost)
            self._metrics.rewinds.labels("tail").inc(len(lost))
            await kafka_log.rewind(lost)

    def sql_positions(self) -> dict[InputPartition, int]:
        """SQL's positions as the writers know them."""
        return {
            (topic, number): intake.next
            for number, writer in self._writers.items()
            if writer.positioned
            for topic, intake in writer.intakes.items()
        }

    def health(self) -> dict[str, Any]:
        """Why this worker is not ready; ``ready`` when nothing is missing."""
        waiting = [number for number, writer in self._writers.items() if not writer.positioned]
        missing = [] if self.joined else ["the consumer group has not answered yet"]
        missing += [f"partition {number} is not acquired and positioned yet" for number in waiting]
        missing += [f"partition {number} is stopped: {why}" for number, why in self.stopped.items()]
        return {"ready": not missing, "missing": missing, "partitions": sorted(self._writers)}

    # Inside.

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
        if isinstance(error, LogBroken):
            self._stop_partition(number, str(error))
        elif isinstance(error, Fenced):
            self._stop_partition(number, f"fenced: {error}")
            await asyncio.sleep(self._fenced_grace_seconds)
            if self._writers.get(number) is writer:
                await self._fail(StillAssigned(f"partition {number} is assigned to this worker, but {error}"))
        else:
            log.critical("partition %d: broken invariant", number, exc_info=error)
            await self._fail(error)

    def _stop_partition(self, number: int, why: str) -> None:
        log.error("partition %d stopped: %s", number, why)
        self.stopped[number] = why
        self._metrics.stopped.set(len(self.stopped))

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
