"""Follows an output topic as any consumer may, ``read_committed``, from positions its caller keeps. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition


class Feed:
    """Every record of a topic after given positions, for ever."""

    def __init__(self, kafka: str, topic: str, positions: Mapping[int, int]) -> None:
        """``positions`` are next offsets by partition; a partition that is not there is read from its beginning."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka,
                "group.id": "tokenbill-feed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "fetch.queue.backoff.ms": 5,
                "queued.max.messages.kbytes": 16_384,
            }
        )
        found = self._consumer.list_topics(topic, timeout=30.0).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        self._consumer.assign(
            [TopicPartition(topic, number, positions.get(number, OFFSET_BEGINNING)) for number in found.partitions]
        )

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
