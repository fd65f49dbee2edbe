"""Reader of an output topic: ``read_committed``, from positions that the caller keeps."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

log = logging.getLogger("tokenbill.feed")

_ANSWER_SECONDS = 30.0


class Feed:
    """Endless reader of all records of a topic from given positions on."""

    def __init__(self, kafka: str, topic: str, positions: Mapping[int, int], *, from_end: bool = False) -> None:
        """Start reading at ``positions``, the next offset by partition.

        A partition without a position is read from its beginning, or with ``from_end`` from its current end.

        Raises:
            KafkaException: the broker does not answer, or has no such topic.
        """
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": "tokenbill-feed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
                "fetch.wait.max.ms": 100,
                "queued.max.messages.kbytes": 16_384,
            },
            logger=log,
        )
        try:
            fresh = [place for place in self._places(topic) if place.partition not in positions]
            self.fresh = {place.partition: self._end(place) if from_end else 0 for place in fresh}
            """Start offset by partition, for the partitions that had no position."""
        except BaseException:  # Re-raised; the caller has no object to close, so the consumer is closed here.
            self._consumer.close()
            raise
        begins = {**positions, **self.fresh}
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in begins.items()])

    def _places(self, topic: str) -> list[TopicPartition]:
        found = self._consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return [TopicPartition(topic, number) for number in found.partitions]

    def _end(self, place: TopicPartition) -> int:
        return self._consumer.get_watermark_offsets(place, timeout=_ANSWER_SECONDS)[1]

    def read(self, most: int, timeout_seconds: float) -> list[Message]:
        """Return up to ``most`` new records; empty after the timeout.

        Raises:
            KafkaException: a broker error that a retry cannot resolve.
        """
        messages = self._consumer.consume(most, timeout=timeout_seconds)
        for message in messages:
            error = message.error()
            if error is not None and not error.retriable():
                raise KafkaException(error)
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
