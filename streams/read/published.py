"""Reader of what is published: records of one output partition, from its end backwards, with their anchors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

from billing.commits.outbox_frames import Frame
from billing.commits.published_output import Anchor, anchor_of
from streams.stream_errors import ReadbackTimeout

_FIRST_STEP, _GREATEST_STEP = 500, 100_000
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class PublishedRecord:
    """One committed record of an output topic; ``anchor`` is None if it does not say which commit wrote it."""

    topic: str
    partition: int
    offset: int
    frame: Frame
    anchor: Anchor | None


def read_backwards(
    consumer: Consumer, topic: str, partition: int, enough: Callable[[PublishedRecord], bool], prefix: str = ""
) -> list[PublishedRecord]:
    """Return the last records of a partition, in order: back to the first one of which ``enough`` is true, or to all.

    A few records more may be returned, because records are read in portions. ``consumer`` reads only committed records.

    Raises:
        KafkaException: the broker does not answer.
        ReadbackTimeout: a portion did not arrive in time.
    """
    place = TopicPartition(prefix + topic, partition)
    start, end = consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
    found: list[PublishedRecord] = []
    step = _FIRST_STEP
    while end > start:
        begin = max(start, end - step)
        portion = _read(consumer, place, begin, end, topic)
        found[:0] = portion
        if any(map(enough, portion)):
            break
        end, step = begin, min(2 * step, _GREATEST_STEP)
    return found


def _read(consumer: Consumer, place: TopicPartition, begin: int, end: int, topic: str) -> list[PublishedRecord]:
    consumer.assign([TopicPartition(place.topic, place.partition, begin)])
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    records: list[PublishedRecord] = []
    while True:
        for message in consumer.consume(5_000, timeout=0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            if (message.offset() or 0) < end:
                records.append(_record(topic, message))
        # The position also advances over control records and aborted transactions, which are not delivered.
        if consumer.position([place])[0].offset >= end:
            return records
        if time.monotonic() > deadline:
            raise ReadbackTimeout(f"{place.topic}[{place.partition}]: not read from {begin} to {end} in time")


def _record(topic: str, message: Message) -> PublishedRecord:
    headers = tuple((str(one[0]), _bytes(one[1])) for one in message.headers() or ())
    frame = Frame(_bytes(message.key()), _bytes(message.value()), headers)
    return PublishedRecord(topic, message.partition() or 0, message.offset() or 0, frame, anchor_of(topic, frame))


def _bytes(content: str | bytes | None) -> bytes | None:
    return content.encode() if isinstance(content, str) else content
