"""The position of the relay in Kafka: the last published commit of a partition, by number and digest.

It is a committed offset of a group without members: the offset is the number of the next commit to publish, and its
metadata is the digest of the last one. It is committed in the transaction of the records, so it is never ahead of them
or behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from aiokafka.structs import OffsetAndMetadata
from confluent_kafka import Consumer, KafkaException, TopicPartition

from schemas.topics import OUTPUT_TOPICS

RELAY_GROUP = "tokenbill-relay"
POSITION_TOPIC = OUTPUT_TOPICS[0]
"""Topic whose partitions the positions are committed for. No consumer belongs to the group."""
_UNKNOWN = -1
_END = "\0"
_SHOWN_DIGITS = 16


@dataclass(frozen=True, slots=True)
class PublishedPosition:
    """The last published commit; ``digest`` is hexadecimal, empty if an earlier version published it."""

    commit_no: int
    digest: str = ""

    @property
    def known(self) -> bool:
        """False if Kafka has no position: nothing was published yet, or the broker has forgotten it."""
        return self.commit_no != _UNKNOWN


def group_of(topic_prefix: str) -> str:
    """Return the group whose offsets are the positions."""
    return topic_prefix + RELAY_GROUP


def place_of(partition: int, topic_prefix: str) -> TopicPartition:
    """Return the place for which the position of a partition is committed."""
    return TopicPartition(topic_prefix + POSITION_TOPIC, partition)


def read_position(offsets: Consumer, place: TopicPartition, timeout_seconds: float) -> PublishedPosition:
    """Return the position committed for a place, after any open transaction that may change it has ended.

    Raises:
        KafkaException: the broker does not answer.
    """
    (found,) = offsets.committed([place], timeout=timeout_seconds)
    if found.error is not None:
        raise KafkaException(found.error)
    if found.offset < 0:
        return PublishedPosition(_UNKNOWN)
    return PublishedPosition(found.offset - 1, found.metadata or "")


def metadata_of(position: PublishedPosition) -> OffsetAndMetadata:
    """Return the form in which a position is committed."""
    # confluent-kafka reads metadata as a C string, and librdkafka does not end it with a NUL.
    return OffsetAndMetadata(position.commit_no + 1, position.digest + _END if position.digest else "")


def differs(position: PublishedPosition, digest: bytes | None, published_in_sql: int) -> str | None:
    """Return why a position is not one of the database; None if it is.

    ``digest`` is that of the database's commit of the same number, None if there is no such commit.
    ``published_in_sql`` is the last commit that the database knows to be published.
    """
    commit_no = position.commit_no
    if not position.known:
        return None
    if digest is None:
        return f"commit {commit_no} is published, and the database ends before it: it is an older copy"
    if position.digest not in ("", digest.hex()):
        published, stored = position.digest[:_SHOWN_DIGITS], digest.hex()[:_SHOWN_DIGITS]
        return f"commit {commit_no} was published with digest {published}…, and that of the database has {stored}…"
    if published_in_sql > commit_no:
        return f"the database knows commit {published_in_sql} as published, and Kafka has output up to {commit_no}"
    return None
