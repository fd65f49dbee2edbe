"""Transactional publisher of packed record batches: a synchronous interface to aiokafka's producer.

librdkafka accepts only single records, which it would pack and compress again; aiokafka accepts whole record batches.
aiokafka's event loop runs only during a call, in the caller's thread, so that a failed publisher can be abandoned
together with its unfinished work. This module relies on private names of aiokafka's producer;
``tests/streams/relay/test_publisher_contract.py`` pins them.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import OffsetAndMetadata

from billing.commits.outbox_frames import split_batches
from streams.kafka_clients import transactional_producer
from streams.stream_errors import OutputTooLarge, PublisherFailed, PublisherFenced

log = logging.getLogger("tokenbill.publisher")

_CRC = struct.Struct(">I")
_CRC_AT, _CHECKED_FROM = 17, 21
_ATTRIBUTES = struct.Struct(">h")
_ATTRIBUTES_AT, _TRANSACTIONAL = 21, 0x10
_TIMES = struct.Struct(">qq")
_TIMES_AT = 27
_PRODUCER = struct.Struct(">qhi")
_PRODUCER_AT = 43
_CLOSE_SECONDS = 5.0
_T = TypeVar("_T")


class ReadyBatch:
    """One packed record batch with the interface of aiokafka's ``BatchBuilder`` that its sender uses."""

    def __init__(self, packed: bytes, records: int, now_ms: int) -> None:
        self._data = bytearray(packed)
        self._records = records
        (attributes,) = _ATTRIBUTES.unpack_from(self._data, _ATTRIBUTES_AT)
        _ATTRIBUTES.pack_into(self._data, _ATTRIBUTES_AT, attributes | _TRANSACTIONAL)
        _TIMES.pack_into(self._data, _TIMES_AT, now_ms, now_ms)

    def close(self) -> None:
        """Do nothing: a packed batch is already complete."""

    def closed(self) -> bool:
        """Return True: a packed batch takes no more records."""
        return True

    def size(self) -> int:
        """Return the size in bytes."""
        return len(self._data)

    def record_count(self) -> int:
        """Return the number of records, which is the number of producer sequence numbers that the batch uses."""
        return self._records

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        """Write the producer's identity and sequence into the batch; called once, before the first send."""
        _PRODUCER.pack_into(self._data, _PRODUCER_AT, producer_id, producer_epoch, base_sequence)
        _CRC.pack_into(self._data, _CRC_AT, calc_crc32c(memoryview(self._data)[_CHECKED_FROM:]))

    def _build(self) -> bytes:
        """Return the bytes to send; may be called again for a retry."""
        return bytes(self._data)


class Publisher:
    """Publisher of Kafka transactions under one transactional id; for use by one thread."""

    def __init__(self, kafka: str, transactional_id: str, transaction_timeout_seconds: float) -> None:
        self._kafka = kafka
        self._transactional_id = transactional_id
        self._timeout_seconds = transaction_timeout_seconds
        self._runner = asyncio.Runner()
        self._producer: AIOKafkaProducer | None = None

    def open(self, timeout_seconds: float) -> None:
        """Fence every earlier publisher of this id; its open transaction is committed or aborted when this returns.

        Raises:
            PublisherFailed: the broker does not answer.
            PublisherFenced: another publisher of this id started at the same time.
        """
        self._run(self._start(), timeout_seconds)

    def publish(
        self, rows: Sequence[tuple[TopicPartition, bytes]], group: str, position: Mapping[Any, int | OffsetAndMetadata]
    ) -> None:
        """Publish payloads of outbox rows and the group's position in one transaction, in the given order per topic.

        Raises:
            OutputTooLarge: a topic does not take a batch of this size; the transaction was not committed.
            PublisherFailed: the transaction may or may not have been committed.
            PublisherFenced: the transaction was not committed, and this publisher must stop.
        """
        self._run(self._publish(rows, group, position), self._timeout_seconds)

    def close(self) -> None:
        """Abandon unfinished work and close; the broker aborts an uncommitted transaction."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, TimeoutError, OSError):
                self._runner.run(asyncio.wait_for(_leave(producer), _CLOSE_SECONDS))
        self._runner.close()

    def _run(self, work: Coroutine[Any, Any, _T], timeout_seconds: float) -> _T:
        try:
            return self._runner.run(asyncio.wait_for(work, timeout_seconds))
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise PublisherFenced(f"{self._transactional_id}: {error!r}") from error
        except TimeoutError as error:
            raise PublisherFailed(f"{self._transactional_id}: not done in {timeout_seconds:g} s") from error
        except (KafkaError, OSError) as error:
            raise PublisherFailed(f"{self._transactional_id}: {error!r}") from error

    async def _start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(_complain)
        self._producer = transactional_producer(self._kafka, self._transactional_id, self._timeout_seconds)
        await self._producer.start()

    async def _publish(
        self, rows: Sequence[tuple[TopicPartition, bytes]], group: str, position: Mapping[Any, int | OffsetAndMetadata]
    ) -> None:
        producer = self._producer
        if producer is None:
            raise RuntimeError("the publisher is not open")
        await producer.begin_transaction()
        by_place: dict[TopicPartition, list[bytes]] = {}
        for place, payload in rows:
            by_place.setdefault(place, []).append(payload)
        # aiokafka commits even if a batch was refused, so every batch is awaited first.
        await asyncio.gather(*(_send(producer, place, payloads) for place, payloads in by_place.items()))
        await producer.send_offsets_to_transaction(dict(position), group)
        await producer.commit_transaction()


async def _send(producer: AIOKafkaProducer, place: TopicPartition, payloads: Sequence[bytes]) -> None:
    now_ms = int(time.time() * 1000)
    sent = []
    for payload in payloads:
        for packed, records in split_batches(payload):
            batch = cast(BatchBuilder, ReadyBatch(packed, records, now_ms))
            sent.append(await producer.send_batch(batch, place.topic, partition=place.partition))
    try:
        await asyncio.gather(*sent)
    except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
        raise OutputTooLarge(place.topic, max(map(len, payloads))) from error


def _complain(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an exception that was never retrieved.

    Kafka errors are logged for debugging only: they belong to batches of a failed transaction, whose first error was
    raised to the caller.
    """
    if isinstance(context.get("exception"), KafkaError):
        log.debug("%s: %r", context["message"], context["exception"])
    else:
        loop.default_exception_handler(context)


async def _leave(producer: AIOKafkaProducer) -> None:
    """Stop without waiting for unfinished work, because the broker may never answer."""
    producer._closed = True
    task = producer._sender.sender_task
    if task is not None:
        task.cancel()
    await producer.client.close()
