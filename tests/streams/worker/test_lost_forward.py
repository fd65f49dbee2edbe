"""A missing forward stops the partition that it belongs to; the worker and its other partitions go on."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from test_writer import MemoryEngine, MemoryLog, MemoryStore

from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.partition_stop import PartitionStop, StoppedPartition
from billing.errors import ForwardLost
from schemas.topics import INPUT_TOPICS, USAGE_FORWARDED_TOPIC, USAGE_TOPIC
from streams.worker.intake import Batch, InputPartition
from streams.worker.worker_metrics import WorkerMetrics
from streams.worker.writer import WriterSettings
from streams.worker.writers import PartitionWriters


class TwoStores:
    """A store in memory for each partition."""

    def __init__(self) -> None:
        self.of: dict[int, MemoryStore] = defaultdict(MemoryStore)
        self.stops: dict[int, PartitionStop] = {}

    def acquire(self, partition: int) -> tuple[int, PartitionState]:
        return self.of[partition].acquire(partition)

    def commit(self, epoch: int, record: CommitRecord) -> bytes:
        return self.of[record.partition].commit(epoch, record)

    def positions(self, partitions: list[int]) -> Mapping[InputPartition, int]:
        return {(topic, number): self.of[number].next[topic] for number in partitions for topic in INPUT_TOPICS}

    def catalog(self) -> tuple[int, Any]:
        return 1, None

    def catalog_epoch(self) -> int:
        return 1

    def worker_seen(self, name: str, epoch: int) -> None:
        pass

    def stop_of(self, partition: int) -> PartitionStop | None:
        return self.stops.get(partition)

    def record_stop(self, stop: PartitionStop, worker: str) -> None:
        self.stops[stop.partition] = stop

    def stopped(self) -> list[StoppedPartition]:
        return [StoppedPartition(stop, "w-1", datetime(2026, 11, 10, tzinfo=UTC)) for stop in self.stops.values()]

    def due_accounts(self, partition: int, log_time_us: int, limit: int) -> list[str]:
        return []


class Losing(MemoryEngine):
    """Engine that misses a forward in every batch of ``usage.forwarded``."""

    def decide(self, batches: Sequence[InputBatch], due: object = ()) -> CommitRecord:
        for batch in batches:
            if batch.topic == USAGE_FORWARDED_TOPIC:
                raise ForwardLost(batch.topic, self.partition, batch.start, 1, 4, 7)
        return super().decide(batches, due)


class Log(MemoryLog):
    """A log whose ends are those of the records that were delivered."""

    async def end_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        return dict.fromkeys(places, 0)


def test_a_missing_forward_stops_one_partition() -> None:
    failures: list[BaseException] = []

    async def fail(error: BaseException) -> None:
        failures.append(error)

    async def run() -> None:
        store, log = TwoStores(), Log()
        writers = PartitionWriters(
            store=store, make_engine=Losing, metrics=WorkerMetrics(), settings=WriterSettings(), fail=fail,
            fenced_grace_seconds=0.1,
        )  # fmt: skip

        async def until(what: Any) -> None:
            for _ in range(500):
                if what():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("did not happen")

        await writers.assign([(topic, number) for topic in INPUT_TOPICS for number in (0, 1)], log)
        await until(lambda: not [why for why in writers.health()["missing"] if "not acquired" in why])
        records = [PlainRecord(0, 0, None, b"x")]
        await writers.offer((USAGE_FORWARDED_TOPIC, 0), Batch(records, log.seeks))
        await until(lambda: writers.stopped)
        assert list(writers.stopped) == [0]
        assert "forward 7 from partition 1 arrived, but numbers 4 to 6 did not" in writers.stopped[0]
        await writers.offer((USAGE_TOPIC, 1), Batch(records, log.seeks))
        await until(lambda: store.of[1].next[USAGE_TOPIC] == 1)
        assert (failures, store.of[0].commits) == ([], [])
        await writers.revoke()

    asyncio.run(asyncio.wait_for(run(), 30))
