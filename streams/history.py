"""Reads the inputs of one partition from their beginning, for a replay. Belongs to no group."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from billing.commit import INPUT_TOPICS, PlainRecord

_ANSWER_SECONDS = 10.0
_AT_ONCE = 5_000


class LogTooShort(Exception):
    """The log no longer reaches back to its first record."""


class LogTooLong(Exception):
    """There are more records than the caller wants to read, or they did not come in time."""


def read_inputs(
    kafka: str, partition: int, until: int | Mapping[str, int], *, max_records: int, timeout_seconds: float
) -> dict[str, list[PlainRecord]]:
    """The records of every input topic, by topic, each from offset 0: those whose log time is at most ``until``
    (microseconds), or those before the offset that ``until`` has for their topic.

    Raises:
        LogTooShort, LogTooLong: as they say.
        KafkaException: the broker did not answer.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": kafka,
            "group.id": "tokenbill-history",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "fetch.queue.backoff.ms": 5,
        }
    )
    try:
        ends = _ends(consumer, partition, until) if isinstance(until, int) else dict(until)
        for topic, end in ends.items():
            low, _ = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_ANSWER_SECONDS)
            if low > 0 and end > 0:
                raise LogTooShort(f"{topic}[{partition}] begins at offset {low}: what was before is deleted")
        if sum(ends.values()) > max_records:
            raise LogTooLong(f"partition {partition} has {sum(ends.values())} records until then")
        return _read(consumer, partition, ends, time.monotonic() + timeout_seconds)
    finally:
        consumer.close()


def _ends(consumer: Consumer, partition: int, at_us: int) -> dict[str, int]:
    """By topic the first offset after the time."""
    after = [TopicPartition(topic, partition, at_us // 1000 + 1) for topic in INPUT_TOPICS]
    ends: dict[str, int] = {}
    for place in consumer.offsets_for_times(after, timeout=_ANSWER_SECONDS):
        if place.error is not None:
            raise KafkaException(place.error)
        _, high = consumer.get_watermark_offsets(TopicPartition(place.topic, partition), timeout=_ANSWER_SECONDS)
        ends[place.topic] = high if place.offset in (OFFSET_END, -1) else place.offset
    return ends


def _read(consumer: Consumer, partition: int, ends: dict[str, int], deadline: float) -> dict[str, list[PlainRecord]]:
    records: dict[str, list[PlainRecord]] = {topic: [] for topic in ends}
    consumer.assign([TopicPartition(topic, partition, 0) for topic, end in ends.items() if end])
    while any(len(records[topic]) < end for topic, end in ends.items()):
        if time.monotonic() > deadline:
            raise LogTooLong(f"the records of partition {partition} did not come in time")
        for message in consumer.consume(_AT_ONCE, timeout=0.2):
            failure = message.error()
            if failure is not None:
                raise KafkaException(failure)
            record = _record(message)
            held = records[str(message.topic())]
            if record.offset < ends[str(message.topic())]:
                if record.offset != len(held):
                    raise LogTooShort(f"{message.topic()}[{partition}] lacks offset {len(held)}")
                held.append(record)
    return records


def _record(message: Message) -> PlainRecord:
    headers: Iterable[tuple[str, bytes]] = message.headers() or ()  # type: ignore[assignment]
    return PlainRecord(message.offset() or 0, message.timestamp()[1], message.key(), message.value(), tuple(headers))
