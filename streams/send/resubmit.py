"""Resubmission of rejected records to ``usage.events``; the caller chooses the records.

It uses no Kafka transactions, because the offsets of input topics must stay dense (:mod:`streams.send.emitter`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from billing.suspense import SentAgain
from schemas.topics import USAGE_TOPIC
from streams.send.emitter import DeliveryFailed

log = logging.getLogger("tokenbill.resubmit")

ACKNOWLEDGED_WITHIN_SECONDS = 30
MAX_RECORD_BYTES = 1_000_000_000
"""Client-side size limit, high enough that only the broker's limit applies: the broker accepted each record before."""


def send_again(kafka: str, records: Sequence[SentAgain]) -> list[int | DeliveryFailed]:
    """Send records in order and wait; return for each its offset, or the reason why Kafka did not acknowledge it.

    A record that was not acknowledged may still have been written.
    """
    results: list[int | DeliveryFailed] = [DeliveryFailed("no answer")] * len(records)
    producer = Producer(
        {
            "bootstrap.servers": kafka,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 5,
            "message.max.bytes": MAX_RECORD_BYTES,
            "queue.buffering.max.messages": max(len(records), 1),
            "queue.buffering.max.kbytes": 1 << 20,
            "delivery.timeout.ms": ACKNOWLEDGED_WITHIN_SECONDS * 1000,
            "compression.type": "lz4",
        },
        logger=log,
    )
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
    producer.flush(ACKNOWLEDGED_WITHIN_SECONDS + 5)
    return results
