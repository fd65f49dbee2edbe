"""Every Kafka client of the product: one function per purpose, the only place where clients are constructed.

A setting that is listed here is deliberate; every other setting has the default of the client library. Producers,
readers and administration use confluent-kafka (librdkafka). Two clients are aiokafka's: :func:`transactional_producer`,
because librdkafka sends no packed record batches, and :func:`fetch_consumer`, because Faust uses aiokafka. aiokafka is
imported when one of these two is made. Faust and mode are never imported, so that commands start without them.

Logs: the lines of librdkafka go to the logger that the function names, while the client is polled. A client without a
logger writes them to standard error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient

from schemas.record_sizes import TOPIC_BYTES
from schemas.topics import USAGE_FORWARDED_TOPIC

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

Settings = dict[str, Any]

_INPUT: Settings = {
    # All in-sync replicas have a record before it counts as sent; a retry neither repeats nor reorders records.
    "acks": "all",
    "enable.idempotence": True,
    # Java's hash, which `schemas.routing` computes too: a record without a partition goes to its account's partition.
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    # The broker's limit of each topic counts; the client's would be a million bytes.
    "message.max.bytes": TOPIC_BYTES[USAGE_FORWARDED_TOPIC],
}
"""Settings of every producer of input topics. There is no ``transactional.id``: a transaction would delay each record
until its end, and leave a marker in the log (docs/reference/principles.md, "Log and writer")."""

_READ_ONLY: Settings = {
    # A reader never changes its group's offsets: its caller keeps the positions.
    "enable.auto.commit": False,
    "isolation.level": "read_committed",
}
"""Settings of every librdkafka consumer. ``group.id`` is mandatory in librdkafka, but no reader joins its group."""

_RECORDS: Settings = {
    **_READ_ONLY,
    # With librdkafka's default of one second a full buffer pauses fetching for that long: a seventh of the speed.
    "fetch.queue.backoff.ms": 5,
}
"""Settings of the librdkafka consumers that fetch records."""

_ADMIN_TIMEOUT_MS = 30_000
_PROBE_RECONNECT_MS = 500
_FETCH_WAIT_MS = 50
"""Longest time the broker holds a fetch. aiokafka keeps one fetch per broker in flight: while idle topics hold it, a
busy topic is not fetched."""
_FETCH_BYTES = 32 << 20
_REPLAY_FETCH_BYTES = 4 << 20


def input_producer(kafka: str, on_failure: Callable[[KafkaError, Message], None]) -> Producer:
    """Return a producer for input topics that sends many records and reports only the failed ones to ``on_failure``.

    Guarantees: idempotent, acks=all, no transactions, partitioned by Java's murmur2 hash. With these settings the
    offsets of an input topic stay dense and its records ordered. Batches are large, for throughput. The queue holds
    500,000 records or 256 MiB; when it is full, ``produce`` raises BufferError. Logger: ``tokenbill.emitter``.
    """
    return Producer(
        {
            **_INPUT,
            "bootstrap.servers": kafka,
            "linger.ms": 5,
            "batch.num.messages": 100_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "queue.buffering.max.kbytes": 262_144,
            "delivery.report.only.error": True,
            "on_delivery": on_failure,
        },
        logger=logging.getLogger("tokenbill.emitter"),
    )


def request_producer(kafka: str, within_seconds: int, on_error: Callable[[KafkaError], None]) -> Producer:
    """Return a producer for input topics whose callers await the acknowledgement of each record.

    Guarantees: those of :func:`input_producer`; a record fails after ``within_seconds``. A batch is delayed by 1 ms
    only, because a caller waits for it. ``on_error`` receives errors of the client; after a fatal one an idempotent
    producer accepts no records, and the caller must make a new one. Logger: ``tokenbill.sender``.
    """
    return Producer(
        {
            **_INPUT,
            "bootstrap.servers": kafka,
            "linger.ms": 1,
            "delivery.timeout.ms": within_seconds * 1000,
            "error_cb": on_error,
        },
        logger=logging.getLogger("tokenbill.sender"),
    )


def resubmit_producer(kafka: str, records: int, within_seconds: int) -> Producer:
    """Return a producer for input topics that resubmits a known number of records, of any size.

    Guarantees: those of :func:`input_producer`; a record fails after ``within_seconds``. The queue has room for these
    records, up to 1 GiB, and the size of a record is limited by the broker only. Logger: ``tokenbill.resubmit``.
    """
    return Producer(
        {
            **_INPUT,
            "bootstrap.servers": kafka,
            "linger.ms": 5,
            "queue.buffering.max.messages": max(records, 1),
            "queue.buffering.max.kbytes": 1 << 20,
            "delivery.timeout.ms": within_seconds * 1000,
        },
        logger=logging.getLogger("tokenbill.resubmit"),
    )


def transactional_producer(kafka: str, transactional_id: str, timeout_seconds: float) -> AIOKafkaProducer:
    """Return the producer of the relay (aiokafka): transactions over output topics and a group's offsets.

    Guarantees: acks=all and idempotent, as Kafka demands of transactions; ``start`` fences every earlier producer of
    the id. A transaction and a request have the same timeout. A failed request is repeated after 50 ms, not 100 ms. The
    caller sends packed batches, so settings of batching and compression would have no effect. Must be called in a
    running event loop.
    """
    from aiokafka import AIOKafkaProducer

    return AIOKafkaProducer(
        bootstrap_servers=kafka,
        client_id=transactional_id,
        transactional_id=transactional_id,
        acks="all",
        enable_idempotence=True,
        transaction_timeout_ms=int(timeout_seconds * 1000),
        request_timeout_ms=int(timeout_seconds * 1000),
        retry_backoff_ms=50,
    )


def fetch_consumer(servers: list[str], **faust: Any) -> AIOKafkaConsumer:
    """Return the consumer of the worker (aiokafka); ``faust`` are the settings from Faust's configuration.

    Guarantees: it commits no offset by itself, because positions are in SQL. A partition without a position is read
    from its beginning. Range assignment keeps partition p of all input topics on one worker. It reads committed records
    only: a record of an aborted transaction is never billed. A fetch takes at most 50 ms and 32 MiB. Must be called in
    a running event loop.

    Raises:
        TypeError: ``faust`` has one of the settings that are made here.
    """
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor

    return AIOKafkaConsumer(
        bootstrap_servers=servers,
        partition_assignment_strategy=[RangePartitionAssignor],
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        **faust,
    )


def feed_reader(kafka: str) -> Consumer:
    """Return a consumer that follows an output topic without end, from positions that the caller assigns.

    Guarantees: only committed records; no offset is committed. If the record at a position is deleted, reading
    continues with the oldest record. An empty fetch ends after 100 ms. The buffer is small (16 MiB), because the
    consumer stays open as long as its process. Logger: ``tokenbill.feed``.
    """
    return Consumer(
        {
            **_RECORDS,
            "bootstrap.servers": kafka,
            "group.id": "tokenbill-feed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 16_384,
        },
        logger=logging.getLogger("tokenbill.feed"),
    )


def whole_topic_reader(kafka: str, *, committed_only: bool = True) -> Consumer:
    """Return a consumer that reads a whole topic once, from its beginning to its current end.

    Guarantees: only committed records, unless ``committed_only`` is False; no offset is committed. If the record at a
    position is deleted meanwhile, reading continues with the oldest record (librdkafka's default is the end).
    """
    return Consumer(
        {
            **_RECORDS,
            "bootstrap.servers": kafka,
            "group.id": "tokenbill-readback",
            "isolation.level": "read_committed" if committed_only else "read_uncommitted",
            "auto.offset.reset": "earliest",
            "queued.max.messages.kbytes": 65_536,
        }
    )


def input_log_consumer(kafka: str) -> AIOKafkaConsumer:
    """Return the consumer of a replay (aiokafka), which reads input topics as the worker does and misses no record.

    Guarantees: only committed records; it joins no group and commits no offset; a position whose record is deleted is
    an error. A fetch takes at most 50 ms and 32 MiB. Must be called in a running event loop.
    """
    from aiokafka import AIOKafkaConsumer

    return AIOKafkaConsumer(
        bootstrap_servers=kafka,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_max_bytes=_FETCH_BYTES,
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        max_partition_fetch_bytes=_REPLAY_FETCH_BYTES,
    )


def input_log_reader(kafka: str) -> Consumer:
    """Return a consumer that asks where an input topic begins and ends, for a replay.

    Guarantees: no offset is committed; a position whose record is deleted is an error.
    """
    return Consumer(
        {
            **_RECORDS,
            "bootstrap.servers": kafka,
            "group.id": "tokenbill-history",
            "auto.offset.reset": "error",
            "queued.max.messages.kbytes": 32_768,
        }
    )


def offset_reader(kafka: str, group: str, log: logging.Logger | None = None) -> Consumer:
    """Return a consumer that reads no records, only the group's committed offsets and the ends of partitions.

    Guarantees: no offset is committed. Because of ``read_committed`` the group's offset is not returned while an open
    transaction may change it, and the end of a partition is its last stable offset. Logger: ``log``.
    """
    settings = {**_READ_ONLY, "bootstrap.servers": kafka, "group.id": group}
    return Consumer(settings) if log is None else Consumer(settings, logger=log)


def admin_client(kafka: str) -> AdminClient:
    """Return a client that creates and checks topics; each request has a timeout of 30 s."""
    return AdminClient({"bootstrap.servers": kafka, "socket.timeout.ms": _ADMIN_TIMEOUT_MS})


def probe_client(kafka: str) -> AdminClient:
    """Return a client for readiness checks and ``tokenbill status``, of a broker that may be down.

    It logs emergencies only (``log_level`` 0), because a broker that is down is an expected answer. It reconnects after
    half a second at most, not ten seconds, so that a broker that has just started is seen at once.
    """
    return AdminClient({"bootstrap.servers": kafka, "log_level": 0, "reconnect.backoff.max.ms": _PROBE_RECONNECT_MS})
