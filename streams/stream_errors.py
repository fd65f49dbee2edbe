"""Exceptions for faults of log, broker and consumer group; those of rules and SQL are in :mod:`billing.errors`.

::

    StreamFault                  something in Kafka or in its clients is broken
    ├── BrokerDown               the broker does not answer: ask again
    ├── DeliveryFailed           records were not acknowledged: send them again
    ├── TopicMismatch            the topics are not as prepared: an operator must correct them
    ├── LogBroken                records are missing from the log or cannot be read: the partition stops
    ├── Undecided                the rules failed on a record: the partition stops
    ├── PartitionStopped         the partition is stopped until a person resumes it
    ├── LogTooShort              the log no longer reaches back far enough for a replay
    ├── LogTooLong               a replay would read more than its limit
    ├── ReadbackTimeout          a topic was not read to its end in time
    ├── InputTopicsSplit         the group assigned only some input topics of a partition: the worker stops
    ├── FencedWhileAssigned      another writer commits on an assigned partition: the worker stops
    ├── PublisherFailed          the transaction's result is unknown: open a new publisher
    ├── OutputTooLarge           a topic takes no record of this size: an operator must raise its limit
    ├── PublisherFenced          another publisher has the transactional id
    ├── RelayFenced              another relay publishes the partition: this relay stops it
    └── HistoryDiffers           the database is not the one whose output was published: publishing stops
"""

from billing.commits.partition_stop import PartitionStop, StopKind
from schemas.record_sizes import BROKER_BYTES


class StreamFault(Exception):
    """A fault of the log, the broker or the consumer group."""


class BrokerDown(StreamFault):
    """The broker did not answer; the request may be retried."""


class DeliveryFailed(StreamFault):
    """Kafka refused some records or did not acknowledge them in time."""


class TopicMismatch(StreamFault):
    """A topic is missing or has a setting that the pipeline cannot work with.

    ``what`` names the problem, ``fix`` the remedy.
    """

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(f"{what}. {fix}")
        self.what = what
        self.fix = fix


class LogBroken(StreamFault):
    """The log lacks records it must hold, or they cannot be read; the partition stops until an operator intervenes.

    ``offset`` is the first offset of ``topic`` that is not committed, ``last`` the last one that cannot be, or None if
    that is not known.
    """

    def __init__(self, kind: StopKind, topic: str, offset: int, last: int | None, why: str) -> None:
        super().__init__(why)
        self.kind = kind
        self.topic = topic
        self.offset = offset
        self.last = last

    def stop(self, partition: int) -> PartitionStop:
        """Return the stop of the partition."""
        return PartitionStop(partition, self.kind, str(self), self.topic, self.offset, self.last)


class Undecided(StreamFault):
    """The rules failed on the records of ``stop``, which is the only cause: the partition stops, the others go on."""

    def __init__(self, stop: PartitionStop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class PartitionStopped(StreamFault):
    """The partition is stopped until a person resumes it (``tokenbill partition resume``)."""

    def __init__(self, stop: PartitionStop) -> None:
        super().__init__(stop.reason)
        self.stop = stop


class LogTooShort(StreamFault):
    """The log no longer holds its first records."""


class LogTooLong(StreamFault):
    """The log holds more records than the caller's limit, or they did not arrive in time."""


class ReadbackTimeout(StreamFault):
    """The end of the topic was not reached in time."""


class InputTopicsSplit(StreamFault):
    """The consumer group assigned partition p of only some of the input topics to this worker."""


class FencedWhileAssigned(StreamFault):
    """Another writer committed on a partition that the consumer group still assigns to this worker."""


class PublisherFailed(StreamFault):
    """The transaction failed or its result is unknown; open a new publisher and read the committed position."""


class OutputTooLarge(StreamFault):
    """A topic does not take a record batch because of its size; repeating it does not help, raising the limit does."""

    def __init__(self, topic: str, size: int | None = None) -> None:
        what = "a record batch of its output" if size is None else f"a record batch of {size} bytes"
        super().__init__(
            f"{what} is larger than topic {topic} takes: run `tokenbill prepare`, or `kafka-configs --alter"
            f" --entity-type topics --entity-name {topic} --add-config max.message.bytes={BROKER_BYTES}`"
        )
        self.topic = topic


class PublisherFenced(StreamFault):
    """Another publisher with this transactional id has started."""


class RelayFenced(StreamFault):
    """The broker fenced this relay's publisher: another relay publishes the partition."""


class HistoryDiffers(StreamFault):
    """The last published commit is not in the database, so nothing is published or deleted until a person decides."""
