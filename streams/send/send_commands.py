"""Producer of account commands that returns when Kafka has acknowledged them.

Usage produced after that is decided after the commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from confluent_kafka import KafkaError, Message

from billing.record_keys import RecordKeys
from schemas.topics import COMMAND_TOPIC
from streams.kafka_clients import input_producer
from streams.send.sender import own_headers
from streams.stream_errors import DeliveryFailed

_FLUSH_SECONDS = 60.0


def send_commands(
    kafka: str,
    commands: Iterable[Mapping[str, Any]],
    *,
    topic: str = COMMAND_TOPIC,
    record_keys: RecordKeys | None = None,
) -> int:
    """Send CloudEvents with ``subject`` as key, to the account's own partition; return their number.

    ``record_keys`` mark the commands as the product's own.

    Raises:
        DeliveryFailed: Kafka refused a command, or did not acknowledge all of them within a minute.
    """
    failures: list[KafkaError] = []

    def on_failure(error: KafkaError | None, message: Message) -> None:
        if error is not None:
            failures.append(error)

    producer = input_producer(kafka, on_failure)
    sent = 0
    for command in commands:
        value = json.dumps(command, ensure_ascii=False, separators=(",", ":")).encode()
        key = str(command["subject"]).encode()
        headers: list[tuple[str, str | bytes | None]] | None = None
        if record_keys is not None:
            headers = [*own_headers(record_keys, topic, key, value)]
        while True:
            try:
                producer.produce(topic, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
        sent += 1
        if not sent % 1024:
            producer.poll(0)
    left = producer.flush(_FLUSH_SECONDS)
    if failures or left:
        reason = f", first: {failures[0]}" if failures else ""
        raise DeliveryFailed(f"{len(failures)} commands refused, {left} not acknowledged of {sent}{reason}")
    return sent
