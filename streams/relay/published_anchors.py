"""Anchors of the digest chain in Kafka: the relay's positions, and the commits that published records name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from billing.commits.published_output import Anchor
from schemas.topics import OUTPUT_TOPICS
from streams.kafka_clients import offset_reader, whole_topic_reader
from streams.read.published import PublishedRecord, read_backwards
from streams.relay.published_position import PublishedPosition, group_of, place_of, read_position

_TIMEOUT_SECONDS = 30.0


def read_positions(kafka: str, partitions: int, topic_prefix: str = "") -> dict[int, PublishedPosition]:
    """Return the last published commit of each partition of which Kafka knows it."""
    with closing(offset_reader(kafka, group_of(topic_prefix))) as offsets:
        found = {
            number: read_position(offsets, place_of(number, topic_prefix), _TIMEOUT_SECONDS)
            for number in range(partitions)
        }
    return {number: position for number, position in found.items() if position.known}


def read_anchors(
    kafka: str, partitions: int, *, every_record: bool, topic_prefix: str = ""
) -> Iterator[tuple[PublishedRecord, Anchor]]:
    """Yield the newest record of each output partition that has an anchor, or every record that the topics still hold.

    Errors are those of :func:`streams.read.published.read_backwards`.
    """
    with closing(whole_topic_reader(kafka)) as reader:
        for topic in OUTPUT_TOPICS:
            for partition in range(partitions):
                records = read_backwards(reader, topic, partition, lambda one: not every_record, topic_prefix)
                anchored = [(one, one.anchor) for one in records if one.anchor is not None]
                yield from anchored if every_record else anchored[-1:]
