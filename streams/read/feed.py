"""Follows an output topic as any consumer may, ``read_committed``, from positions its caller keeps. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

log = logging.getLogger("tokenbill.feed")

_ANSWER_SECONDS = 30.0


class Feed:
    """Every record of a topic after given positions, for ever."""

    def __init__(self, kafka: str, topic: str, positions: Mapping[int, int], *, from_end: bool = False) -> None:
        """``positions`` are next offsets by partition; a partition that is not there is read from its beginning, or
        with ``from_end`` from where it ends now.

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
            """Where partitions are read from that had no position."""
        except BaseException:  # Whatever it is goes on up; a consumer that nobody has must not stay.
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
        """What has come, at most ``most`` records; empty after the timeout.

        Raises:
            KafkaException: a broker error that does not mend itself.
        """
        messages = self._consumer.consume(most, timeout=timeout_seconds)
        for message in messages:
            error = message.error()
            if error is not None and not error.retriable():
                raise KafkaException(error)
        return [message for message in messages if message.error() is None]

    def close(self) -> None:
        """End the connection."""
        self._consumer.close()
