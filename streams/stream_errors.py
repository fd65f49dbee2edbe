"""Exceptions for faults of log, broker and consumer group; those of rules and SQL are in :mod:`billing.errors`.

::

    StreamFault                  something in Kafka or in its clients is broken
    ├── BrokerDown               the broker does not answer: ask again
    ├── DeliveryFailed           records were not acknowledged: send them again
    ├── TopicMismatch            the topics are not as prepared: an operator must correct them
    ├── LogBroken                records are missing from the log: the partition stops
    ├── LogTooShort              the log no longer reaches back far enough for a replay
    ├── LogTooLong               a replay would read more than its limit
    ├── ReadbackTimeout          a topic was not read to its end in time
    ├── InputTopicsSplit         the group assigned only some input topics of a partition: the worker stops
    ├── FencedWhileAssigned      another writer commits on an assigned partition: the worker stops
    ├── PublisherFailed          the transaction's result is unknown: open a new publisher
    ├── PublisherFenced          another publisher has the transactional id
    ├── RelayFenced              another relay publishes the partition: this relay stops it
    └── HistoryDiffers           the database is not the one whose output was published: publishing stops
"""


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
    """The log lacks records it must hold; the partition stops until an operator intervenes."""


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


class PublisherFenced(StreamFault):
    """Another publisher with this transactional id has started."""


class RelayFenced(StreamFault):
    """The broker fenced this relay's publisher: another relay publishes the partition."""


class HistoryDiffers(StreamFault):
    """The last published commit is not in the database, so nothing is published or deleted until a person decides."""
