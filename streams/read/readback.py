"""Reader of a whole topic as an independent consumer: ``read_committed``, from the beginning to its current end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from streams.kafka_clients import whole_topic_reader
from streams.stream_errors import ReadbackTimeout


def read_topic(
    kafka: str, topic: str, *, timeout_seconds: float = 60.0, committed_only: bool = True
) -> Iterator[Message]:
    """Yield every record that is readable when reading begins: in offset order per partition, partitions interleaved.

    Raises:
        ReadbackTimeout: the end was not reached within ``timeout_seconds``.
        KafkaException: a broker error.
    """
    consumer = whole_topic_reader(kafka, committed_only=committed_only)
    try:
        yield from _read(consumer, topic, time.monotonic() + timeout_seconds)
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, deadline: float) -> Iterator[Message]:
    found = consumer.list_topics(topic, timeout=30.0).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    ends: dict[int, int] = {}
    for number in found.partitions:
        # With read_committed this is the last stable offset, so records of an open transaction are not awaited.
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30.0)
        if high > low:
            ends[number] = high
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in ends])
    while ends:
        for message in consumer.consume(5000, timeout=0.1):
            if message.error() is not None:
                raise KafkaException(message.error())
            number = message.partition()
            if number in ends and (message.offset() or 0) < ends[number]:
                yield message
        # The position also advances over records that are not delivered: control records and aborted transactions.
        for place in consumer.position([TopicPartition(topic, number) for number in ends]):
            if place.offset >= ends[place.partition]:
                del ends[place.partition]
                consumer.pause([place])
        if ends and time.monotonic() > deadline:
            raise ReadbackTimeout(f"{topic}: partitions {sorted(ends)} not read to {ends} in time")
