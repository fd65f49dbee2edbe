"""Reader of the input topics of one partition from their beginning, for a replay.

Records are returned in offset order, on request, each once. The reader joins no consumer group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Place
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from billing.commits.input_batch import PositionMove, Record
from schemas.record_sizes import LARGEST_RECORD
from schemas.topics import INPUT_TOPICS
from streams.kafka_clients import input_log_consumer, input_log_reader
from streams.read import fetched
from streams.read.record_batches import LogStep
from streams.stream_errors import BrokerDown, LogTooLong, LogTooShort

_ANSWER_SECONDS = 10.0


class InputLog:
    """Reader of the input topics of one partition; a context manager.

    ``until`` limits the records: a log time in microseconds UTC (inclusive), or an end offset (exclusive) by topic.

    Raises:
        LogTooShort: records are missing; raised on entry and by :meth:`read`.
        LogTooLong: more than ``max_records`` records (on entry), or ``timeout_seconds`` have passed (:meth:`read`).
        KafkaException, BrokerDown: the broker did not answer.
    """

    def __init__(
        self, kafka: str, partition: int, until: int | Mapping[str, int], *, max_records: int, timeout_seconds: float
    ) -> None:
        self._kafka = kafka
        self._partition = partition
        self._until = until
        self._max_records = max_records
        self._deadline = time.monotonic() + timeout_seconds
        self._reading: _Reading | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            asking = opened.enter_context(closing(input_log_reader(self._kafka)))
            ends = _ends(asking, self._partition, self._until) if isinstance(self._until, int) else dict(self._until)
            if sum(ends.values()) > self._max_records:
                raise LogTooLong(f"partition {self._partition} has {sum(ends.values())} records until then")
            for topic, end in ends.items():
                low, _ = asking.get_watermark_offsets(TopicPartition(topic, self._partition), timeout=_ANSWER_SECONDS)
                if low > 0 and end > 0:
                    raise LogTooShort(f"{topic}[{self._partition}] begins at offset {low}: what was before is deleted")
        ends = {topic: end for topic, end in ends.items() if end}
        if ends:
            try:
                self._reading = _Reading(self._kafka, self._partition, ends, self._deadline)
            except KafkaError as error:
                raise BrokerDown(f"the broker did not answer: {error!r}") from error
            self._open.enter_context(closing(self._reading))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, move: PositionMove) -> list[Record]:
        """Return the records of ``move`` below the end; the moves of a topic must be requested in sequence."""
        if self._reading is None or move.topic not in self._reading.topics:
            return []
        return self._reading.read(move)


class _Reading:
    """Reader of the input topics of one partition, in the caller's thread: its event loop runs only during a call.

    It reads the log as the worker does (:mod:`streams.read.record_batches`), so it skips what the worker skips and
    replaces what the worker replaces.
    """

    def __init__(self, kafka: str, partition: int, ends: Mapping[str, int], deadline: float) -> None:
        self._ends = ends
        self._deadline = deadline
        self._places = {topic: Place(topic, partition) for topic in ends}
        self._held: dict[str, list[LogStep]] = {topic: [] for topic in ends}
        """Steps read but not yet requested, contiguous."""
        self._runner = asyncio.Runner()
        try:
            self._consumer: AIOKafkaConsumer = self._runner.run(self._open(kafka))
        except BaseException:  # Re-raised; the loop must be closed.
            self._runner.close()
            raise

    async def _open(self, kafka: str) -> AIOKafkaConsumer:
        fetched.install()
        consumer = input_log_consumer(kafka)
        await consumer.start()
        fetched.unpack_results(consumer._fetcher, LARGEST_RECORD.__getitem__)
        consumer.assign(list(self._places.values()))
        for place in self._places.values():
            consumer.seek(place, 0)
        return consumer

    @property
    def topics(self) -> Collection[str]:
        return self._ends

    def close(self) -> None:
        self._runner.run(self._consumer.stop())
        self._runner.close()

    def read(self, move: PositionMove) -> list[Record]:
        end = min(move.end, self._ends[move.topic])
        if move.records == 0:
            self._pass_over(move.topic, move.end)
            return []
        held = self._held[move.topic]
        while (held[-1].end if held else move.start) < end:
            held += self._runner.run(self._next(move.topic))
        taken: list[Record] = []
        expected = move.start
        while held and held[0].start < end:
            step = held[0]
            if step.problem is not None or step.start != expected:
                raise LogTooShort(f"{move.topic} lacks offset {expected}")
            expected = min(step.end, end)
            taken += [record for record in step.records if record.offset < expected]
            if step.end > end:
                held[0] = step.from_offset(end)
                break
            held.pop(0)
        if end == move.end and len(taken) != move.records:
            raise LogTooShort(f"{move.topic} has {len(taken)} records from {move.start} to {end}, not {move.records}")
        return taken

    def _pass_over(self, topic: str, end: int) -> None:
        """Continue at ``end``: no record before it was decided."""
        held = self._held[topic]
        while held and held[0].end <= end:
            held.pop(0)
        if held:
            held[0] = held[0].from_offset(end)
        else:
            self._runner.run(self._seek(topic, end))

    async def _seek(self, topic: str, offset: int) -> None:
        self._consumer.seek(self._places[topic], offset)

    async def _next(self, topic: str) -> list[LogStep]:
        if time.monotonic() > self._deadline:
            raise LogTooLong(f"the records of {topic} did not come in time")
        try:
            found = await self._consumer.getmany(self._places[topic], timeout_ms=200)
        except OffsetOutOfRangeError as error:
            raise LogTooShort(f"{topic} no longer has offset {error.args[0]}") from error
        return [step for step in found.get(self._places[topic], []) if step.start < step.end]


def _ends(consumer: Consumer, partition: int, at_us: int) -> dict[str, int]:
    """Return by topic the first offset after ``at_us``."""
    after = [TopicPartition(topic, partition, at_us // 1000 + 1) for topic in INPUT_TOPICS]
    ends: dict[str, int] = {}
    for place in consumer.offsets_for_times(after, timeout=_ANSWER_SECONDS):
        if place.error is not None:
            raise KafkaException(place.error)
        _, high = consumer.get_watermark_offsets(TopicPartition(place.topic, partition), timeout=_ANSWER_SECONDS)
        ends[place.topic] = high if place.offset in (OFFSET_END, -1) else place.offset
    return ends
