"""Resubmission of rejected records to ``usage.events``; the caller chooses the records.

It uses no Kafka transactions, because the offsets of input topics must stay dense (:mod:`streams.send.emitter`).
"""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message

from billing.suspense import ResubmittedRecord
from schemas.topics import USAGE_TOPIC
from streams.kafka_clients import resubmit_producer
from streams.stream_errors import DeliveryFailed

RESUBMIT_ACK_SECONDS = 30


def send_again(kafka: str, records: Sequence[ResubmittedRecord]) -> list[int | DeliveryFailed]:
    """Send records in order and wait; return for each its offset, or the reason why Kafka did not acknowledge it.

    A record that was not acknowledged may still have been written.
    """
    results: list[int | DeliveryFailed] = [DeliveryFailed("no answer")] * len(records)
    producer = resubmit_producer(kafka, len(records), RESUBMIT_ACK_SECONDS)
    for at, record in enumerate(records):

        def delivered(error: KafkaError | None, message: Message, at: int = at) -> None:
            offset = message.offset()
            results[at] = DeliveryFailed(str(error)) if error is not None or offset is None else offset

        try:
            producer.produce(
                USAGE_TOPIC,
                record.value,
                record.key,
                record.partition,
                on_delivery=delivered,
                headers=list(record.headers),
            )
        except (KafkaException, BufferError) as error:
            results[at] = DeliveryFailed(str(error))
    producer.flush(RESUBMIT_ACK_SECONDS + 5)
    return results
