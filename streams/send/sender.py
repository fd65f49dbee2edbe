"""Sender of single records to input topics, for callers that await the acknowledgement of each record.

The caller chooses the partition. No Kafka transactions are used, because the offsets of input topics must stay dense
(:mod:`streams.send.emitter`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from billing.record_keys import RecordKeys, own_header
from streams.kafka_clients import request_producer
from streams.stream_errors import DeliveryFailed

log = logging.getLogger("tokenbill.sender")

REQUEST_ACK_SECONDS = 10
_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 5.0
_GRACE_SECONDS = 2


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record to send."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


_JSON_HEADERS = (("content-type", b"application/cloudevents+json"),)


def own_headers(keys: RecordKeys, topic: str, key: bytes, event: bytes) -> tuple[tuple[str, bytes], ...]:
    """Return the headers of a record of the product's own, a CloudEvent as JSON: its type and its digest."""
    return (*_JSON_HEADERS, own_header(keys, topic, key, event, _JSON_HEADERS))


def own_record(keys: RecordKeys, topic: str, partition: int, account: str, event: bytes) -> Outgoing:
    """Return a record of the product's own: a CloudEvent as JSON, with the digest that shows where it comes from."""
    key = account.encode()
    return Outgoing(topic, partition, key, event, own_headers(keys, topic, key, event))


@dataclass(slots=True)
class _Waiting:
    """State of one :meth:`InputSender.send` call: the result of each record, and the future of the whole call."""

    results: list[int | DeliveryFailed | None]
    left: int
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, at: int, result: int | DeliveryFailed) -> None:
        with self.lock:
            self.results[at] = result
            self.left -= 1
            last = self.left == 0
        # During shutdown the loop may already be closed; then no task waits for the result.
        if last and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class InputSender:
    """Producer with a thread that receives its acknowledgements; one per process, usable by concurrent tasks."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka
        self._broken = False
        self._producer = self._new_producer()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="sender", daemon=True)
        self._thread.start()

    async def send(self, records: Sequence[Outgoing]) -> list[int | DeliveryFailed]:
        """Send records in order; return for each its offset, or why Kafka did not acknowledge it within ten seconds.

        A record that was not acknowledged may still have been written.
        """
        if not records:
            return []
        loop = asyncio.get_running_loop()
        waiting = _Waiting([None] * len(records), len(records), loop, loop.create_future())
        for at, record in enumerate(records):
            self._produce(at, record, waiting)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(waiting.done, REQUEST_ACK_SECONDS + _GRACE_SECONDS)
        return [DeliveryFailed("no answer") if result is None else result for result in waiting.results]

    def _produce(self, at: int, record: Outgoing, waiting: _Waiting) -> None:
        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            if error is None and offset is not None:
                waiting.note(at, offset)
            else:
                waiting.note(at, DeliveryFailed(f"Kafka did not take the record: {error}"))

        try:
            self._producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                on_delivery=delivered,
                headers=list(record.headers),
            )
        except BufferError:
            waiting.note(at, DeliveryFailed("too much is waiting to be sent to Kafka"))
        except KafkaException as error:
            waiting.note(at, DeliveryFailed(f"Kafka did not take the record: {error.args[0]}"))

    def close(self) -> None:
        """Send the queued records, for up to five seconds, and stop."""
        self._producer.flush(_CLOSE_SECONDS)
        self._ending.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ending.is_set():
            producer = self._producer
            producer.poll(_POLL_SECONDS)
            if self._broken:
                self._broken = False
                self._producer = self._new_producer()
                producer.flush(_CLOSE_SECONDS)  # Reports the failure of each queued record to its caller.

    def _new_producer(self) -> Producer:
        return request_producer(self._kafka, REQUEST_ACK_SECONDS, self._failed)

    def _failed(self, error: KafkaError) -> None:
        if error.fatal():
            # After a fatal error an idempotent producer accepts no records; a new one starts a new session.
            log.error("the producer is made anew: %s", error)
            self._broken = True
