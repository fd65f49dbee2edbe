"""Reader of the input topics of one partition from their beginning, for a replay.

Records are returned in offset order, on request, each once. The reader joins no consumer group.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from billing.commits.input_batch import PlainRecord, PositionMove
from schemas.topics import INPUT_TOPICS
from streams.kafka_clients import input_log_reader
from streams.stream_errors import LogTooLong, LogTooShort

_ANSWER_SECONDS = 10.0
_AT_ONCE = 5_000


class InputLog:
    """Reader of the input topics of one partition; a context manager.

    ``until`` limits the records: a log time in microseconds UTC (inclusive), or an end offset (exclusive) by topic.

    Raises:
        LogTooShort: records are missing; raised on entry and by :meth:`read`.
        LogTooLong: more than ``max_records`` records (on entry), or ``timeout_seconds`` have passed (:meth:`read`).
        KafkaException: the broker did not answer.
    """

    def __init__(
        self, kafka: str, partition: int, until: int | Mapping[str, int], *, max_records: int, timeout_seconds: float
    ) -> None:
        self._kafka = kafka
        self._partition = partition
        self._until = until
        self._max_records = max_records
        self._deadline = time.monotonic() + timeout_seconds
        self._topics: dict[str, _Topic] = {}
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
        with ExitStack() as opened:
            for topic, end in ends.items():
                if end:
                    # One consumer per topic, so that records needed later do not fill the buffer of those needed now.
                    consumer = opened.enter_context(closing(input_log_reader(self._kafka)))
                    consumer.assign([TopicPartition(topic, self._partition, 0)])
                    self._topics[topic] = _Topic(consumer, topic, end)
            self._open = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def read(self, move: PositionMove) -> list[PlainRecord]:
        """Return the records of ``move`` below the end; the moves of a topic must be requested in sequence."""
        topic = self._topics.get(move.topic)
        return [] if topic is None else topic.read(move, self._deadline)


class _Topic:
    """Reader of one input topic from offset 0 to its end offset."""

    def __init__(self, consumer: Consumer, name: str, end: int) -> None:
        self._consumer = consumer
        self._name = name
        self._end = end
        self._held: list[PlainRecord] = []
        """Records fetched but not yet requested, starting at the next offset to be requested."""

    def read(self, move: PositionMove, deadline: float) -> list[PlainRecord]:
        count = min(move.end, self._end) - move.start
        while len(self._held) < count:
            if time.monotonic() > deadline:
                raise LogTooLong(f"the records of {self._name} up to offset {move.end} did not come in time")
            for message in self._consumer.consume(_AT_ONCE, timeout=0.2):
                failure = message.error()
                if failure is not None:
                    raise KafkaException(failure)
                record = _record(message)
                if record.offset != move.start + len(self._held):
                    raise LogTooShort(f"{self._name} lacks offset {move.start + len(self._held)}")
                self._held.append(record)
        found, self._held = self._held[: max(count, 0)], self._held[max(count, 0) :]
        return found


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


def _record(message: Message) -> PlainRecord:
    headers: Iterable[tuple[str, bytes]] = message.headers() or ()  # type: ignore[assignment]
    return PlainRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), tuple(headers))
