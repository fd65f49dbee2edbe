"""The view of an independent consumer: topics read from the beginning, ``read_committed``, with Kafka's own client."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, TopicPartition

from schemas.topics import BALANCE_TOPIC, RATED_TOPIC, REJECTED_TOPIC
from streams.kafka_clients import offset_reader
from streams.read.readback import read_topic
from streams.stream_errors import ReadbackTimeout
from tokenbill.demo.patience import Say, retry

AWAY = (KafkaException, ReadbackTimeout)
DEMO_READ_SECONDS = 180.0
_ANSWER_SECONDS = 10.0
_SEQUENCE = re.compile(rb'"sequence":"([0-9]+)"')


@dataclass(slots=True)
class RatedView:
    """The content of ``usage.rated``: events of the run, records of all runs, and holes in the sequences."""

    events: int = 0
    records: int = 0
    holes: list[str] = field(default_factory=list)


def records_in(kafka: str, topic: str, say: Say) -> int:
    """Return the number of records ever written to a topic that is neither compacted nor transactional."""

    def ask() -> int:
        consumer = offset_reader(kafka, "tokenbill-demo")
        try:
            partitions = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic].partitions
            places = [TopicPartition(topic, number) for number in partitions]
            return sum(consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)[1] for place in places)
        finally:
            consumer.close()

    return retry("Kafka", ask, AWAY, say)


def read_balances(kafka: str, prefix: str, say: Say) -> dict[str, dict[str, Any]]:
    """Return the data of the last ``package.balance`` record of each account whose name starts with ``prefix``."""

    def read() -> dict[bytes, bytes]:
        last: dict[bytes, bytes] = {}
        for message in read_topic(kafka, BALANCE_TOPIC, timeout_seconds=DEMO_READ_SECONDS):
            key, value = message.key(), message.value()
            if isinstance(key, bytes) and key.startswith(prefix.encode()) and isinstance(value, bytes):
                last[key] = value
        return last

    found = retry("Kafka", read, AWAY, say)
    return {key.decode(): json.loads(value)["data"] for key, value in found.items()}


def read_rated(kafka: str, source_prefix: str, say: Say) -> RatedView:
    """Count the run's events in ``usage.rated``, and check that each partition's sequence rises by 1 per record."""
    mark = b'{"source":"' + source_prefix.encode()

    def read() -> RatedView:
        view = RatedView()
        expected: dict[int, int] = {}
        for message in read_topic(kafka, RATED_TOPIC, timeout_seconds=DEMO_READ_SECONDS):
            value, partition = message.value(), message.partition()
            if not isinstance(value, bytes) or partition is None:
                raise TypeError(f"{RATED_TOPIC} has a record without value")
            found = _SEQUENCE.search(value)
            sequence = int(found[1]) if found else -1
            if sequence != expected.get(partition, sequence):
                view.holes.append(f"partition {partition}: {sequence} where {expected[partition]} was next")
            expected[partition] = sequence + 1
            view.records += 1
            view.events += value.count(mark)
        return view

    return retry("Kafka", read, AWAY, say)


def read_rejected(kafka: str, source_prefix: str, say: Say) -> Counter[str]:
    """Count the run's records in ``usage.rejected`` by reason."""
    mark = b'"source":"' + source_prefix.encode()

    def read() -> Counter[str]:
        reasons: Counter[str] = Counter()
        for message in read_topic(kafka, REJECTED_TOPIC, timeout_seconds=DEMO_READ_SECONDS):
            value = message.value()
            if isinstance(value, bytes) and mark in value:
                reason = dict(message.headers() or []).get("reason")
                reasons[reason.decode() if isinstance(reason, bytes) else "no reason given"] += 1
        return reasons

    return retry("Kafka", read, AWAY, say)
