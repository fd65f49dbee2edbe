"""Failures of the publisher, on a real Kafka."""

import gc
from collections.abc import Callable
from contextlib import closing

import pytest

from billing.calculator.core_records import pack_batches
from billing.commits.outbox_frames import Frame, encode_frame
from schemas.topics import BALANCE_TOPIC, RATED_TOPIC
from streams.relay.publisher import Publisher, TopicPartition
from streams.stream_errors import PublisherFenced

PAYLOAD = pack_batches(encode_frame(Frame(b"0", b"{}", ())), 1)


def rows(prefix: str) -> list[tuple[TopicPartition, bytes]]:
    """Return three batches of one topic, which wait for each other, and one batch of another topic."""
    return [
        *((TopicPartition(prefix + RATED_TOPIC, 0), PAYLOAD) for _ in range(3)),
        (TopicPartition(prefix + BALANCE_TOPIC, 0), PAYLOAD),
    ]


def open_publisher(kafka: str, prefix: str) -> Publisher:
    publisher = Publisher(kafka, prefix + "publisher", 10)
    publisher.open(30)
    return publisher


def test_a_fenced_publisher_says_so_once(
    kafka_address: str, make_topics: Callable[[int], str], caplog: pytest.LogCaptureFixture
) -> None:
    prefix = make_topics(1)
    first = open_publisher(kafka_address, prefix)
    with closing(open_publisher(kafka_address, prefix)), closing(first), pytest.raises(PublisherFenced):
        first.publish(rows(prefix), prefix, {})
    del first
    gc.collect()
    assert not caplog.records, "asyncio complains of what nobody waits for"
