"""Producers that are not the product's: transactions, the largest records, and batches that hold gigabytes."""

from __future__ import annotations

import asyncio
import random
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from confluent_kafka import Producer
from pipeline_rig import PARTITIONS, Pipeline, Traffic, until

from billing.commits.output_documents import account_object
from billing.store.store import Store
from billing.suspense import RecordPlace
from schemas.record_sizes import LARGEST_INPUT
from schemas.routing import partition_of
from schemas.topics import REJECTED_TOPIC, USAGE_TOPIC
from streams.read.readback import read_topic
from tokenbill import stack

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "streams" / "read"))
from packed_batches import CODECS, batch, large_record, record

MEGABYTE = 1 << 20


@contextmanager
def transactional(pipeline: Pipeline, name: str) -> Iterator[Producer]:
    """Yield a producer with an open transaction, which the caller ends."""
    producer = Producer({"bootstrap.servers": pipeline.kafka, "transactional.id": name})
    producer.init_transactions(60)
    producer.begin_transaction()
    yield producer


def produce(producer: Producer, traffic: Traffic, number: int, *, billed: bool) -> None:
    """Produce valid events over all accounts; those that will be billed are part of the simulation."""
    for at in range(number):
        account = traffic.accounts[at % len(traffic.accounts)]
        before = list(traffic.sequences)
        value = traffic.event(at, account)
        if billed:
            traffic.lines.append(value)
        else:
            traffic.sequences = before
        producer.produce(USAGE_TOPIC, value, account.encode(), partition_of(account, PARTITIONS))
    assert producer.flush(60) == 0


def as_simulated(traffic: Traffic) -> dict[str, object]:
    """Compare what is in SQL with ``simulate`` over the same lines; return the counts."""
    traffic.settle()
    expected = traffic.expected()
    counts = traffic.books.counts()
    assert {"rated": counts.rated, "duplicate": counts.duplicate, "rejected": counts.rejected} == expected["events"]
    names = sorted(set(traffic.accounts))
    with Store(traffic.pipeline.database_url) as store:
        stored = {one.account: account_object(one) for one in store.load_accounts(names)}
    assert stored == expected["accounts"]
    assert traffic.pipeline.audit_problems() == []
    return dict(expected["events"])


def skipped(pipeline: Pipeline) -> int:
    """Return the number of offsets of usage.events that the commits skipped."""
    with pipeline.admin() as connection:
        row = connection.execute(
            "SELECT coalesce(sum((m->>3)::bigint), 0) FROM commit, jsonb_array_elements(positions) AS m"
            " WHERE m->>0 = 'usage.events'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_committed_transactions_are_billed_and_aborted_ones_are_not(pipeline: Pipeline, traffic: Traffic) -> None:
    """Markers and aborted records are steps of the position, before and after a restart of every worker."""
    traffic.open(12)
    before = skipped(pipeline)
    with transactional(pipeline, f"{traffic.name}-1") as producer:
        produce(producer, traffic, 60, billed=True)
        producer.commit_transaction(60)
    with transactional(pipeline, f"{traffic.name}-2") as producer:
        produce(producer, traffic, 90, billed=False)
        producer.abort_transaction(60)
    assert as_simulated(traffic) == {"rated": 60, "duplicate": 0, "rejected": 0}
    assert skipped(pipeline) >= before + 90 + 2, "the aborted records and the markers"
    for name in ("worker-1", "worker-2"):
        pipeline.kill(name)
    with transactional(pipeline, f"{traffic.name}-1") as producer:
        produce(producer, traffic, 30, billed=True)
        with transactional(pipeline, f"{traffic.name}-2") as other:
            produce(other, traffic, 45, billed=False)
            traffic.use(24)
            traffic.flush()
            other.abort_transaction(60)
        producer.commit_transaction(60)
    traffic.use(24)
    pipeline.wait_serving(2)
    assert as_simulated(traffic) == {"rated": 60 + 30 + 48, "duplicate": 0, "rejected": 0}
    assert stack.info(pipeline.folder).pids.keys() >= {"worker-1", "worker-2"}


def test_an_open_transaction_delays_its_partition_and_nothing_else(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(12)
    traffic.settle()
    held = partition_of(traffic.accounts[0], PARTITIONS)
    others = [name for name in traffic.accounts if partition_of(name, PARTITIONS) != held]
    with transactional(pipeline, f"{traffic.name}-1") as producer:
        value = traffic.event(1, traffic.accounts[0])
        producer.produce(USAGE_TOPIC, value, traffic.accounts[0].encode(), held)
        producer.flush(60)
        for number, account in enumerate(others):
            traffic.send_usage(traffic.event(number, account), account)
        traffic.flush()
        until("the other partitions go on", lambda: traffic.books.counts().rated == len(others), 60)
        producer.commit_transaction(60)
    traffic.lines.append(value)
    assert as_simulated(traffic) == {"rated": len(others) + 1, "duplicate": 0, "rejected": 0}


class PackedBatch:
    """One packed batch, with the interface of aiokafka's ``BatchBuilder`` that its sender uses."""

    def __init__(self, data: bytes, count: int) -> None:
        self._data, self._count = bytearray(data), count

    def close(self) -> None:
        """Do nothing: the batch is complete."""

    def closed(self) -> bool:
        return True

    def size(self) -> int:
        return len(self._data)

    def record_count(self) -> int:
        return self._count

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        struct.pack_into(">qhi", self._data, 43, producer_id, producer_epoch, base_sequence)
        struct.pack_into(">I", self._data, 17, calc_crc32c(bytes(self._data[21:])))

    def _build(self) -> bytes:
        return bytes(self._data)


def send_batch(kafka: str, partition: int, parts: Iterable[bytes], count: int, codec: int) -> int:
    """Send one packed batch to usage.events; return the offset of its first record."""

    async def send() -> int:
        producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=64 * MEGABYTE, request_timeout_ms=120_000)
        await producer.start()
        try:
            packed = PackedBatch(batch(0, parts, count, codec), count)
            sent = await producer.send_batch(packed, USAGE_TOPIC, partition=partition)  # type: ignore[arg-type]
            return int((await sent).offset)
        finally:
            await producer.stop()

    return asyncio.run(send())


def memory_kib(pid: int) -> int:
    """Return the greatest resident memory that a process has had."""
    line = next(one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1])


@pytest.mark.parametrize(("name", "size"), [("gzip", 900), ("snappy", 60), ("lz4", 900), ("zstd", 900)])
def test_a_batch_of_gigabytes_is_refused_record_by_record(
    pipeline: Pipeline, traffic: Traffic, name: str, size: int
) -> None:
    """The records between the large ones are billed, and no worker grows."""
    traffic.open(6)
    traffic.settle()
    account = traffic.accounts[0]
    partition = partition_of(account, PARTITIONS)
    pids = {name: pipeline.pid(name) for name in ("worker-1", "worker-2")}
    before = {name: memory_kib(pid) for name, pid in pids.items()}
    events = {number: traffic.event(number, account) for number in (1, 4)}

    def parts() -> Iterator[bytes]:
        for number in range(5):
            if number in events:
                yield record(number, events[number], account.encode())
            else:
                yield from large_record(number, size * 1_000_000, account.encode())

    base = send_batch(pipeline.kafka, partition, parts(), 5, CODECS[name])
    traffic.lines += events.values()
    traffic.settle()
    counts = traffic.books.counts()
    assert (counts.rated, counts.rejected) == (2, 3)
    assert pipeline.audit_problems() == []
    assert {name: pipeline.pid(name) for name in pids} == pids, "no worker was restarted"
    grown = {name: memory_kib(pid) - before[name] for name, pid in pids.items()}
    assert max(grown.values()) < 400 << 10, f"kilobytes: {grown}"
    found = [
        dict(message.headers() or [])
        for message in read_topic(pipeline.kafka, REJECTED_TOPIC)
        if message.key() == account.encode()
    ]
    assert [(one["topic"], one["partition"], one["offset"]) for one in found] == [
        (b"usage.events", b"%d" % partition, b"%d" % (base + number)) for number in (0, 2, 3)
    ]
    assert {one["reason"] for one in found} == {b"invalid_event"}
    assert all(b"at most 16777216 are read" in one["detail"] for one in found)
    with pipeline.admin() as connection:
        kept = connection.execute(
            "SELECT value, detail FROM suspense WHERE topic = 'usage.events' AND partition = %s"
            " AND record_offset = ANY(%s)",
            (partition, [base, base + 2, base + 3]),
        ).fetchall()
    assert len(kept) == 3
    assert all(value is None and "bytes" in detail for value, detail in kept)


def test_the_largest_record_that_the_broker_takes_is_refused_and_published(
    pipeline: Pipeline, traffic: Traffic
) -> None:
    """Its rejection has the headers in addition, and is still taken; what follows it is published too."""
    traffic.open(6)
    account = traffic.accounts[0]
    partition = partition_of(account, PARTITIONS)
    overhead = len(batch(0, [record(0, b"", account.encode())], 1))
    largest = random.Random(1).randbytes(LARGEST_INPUT - overhead - 8)
    producer = Producer({"bootstrap.servers": pipeline.kafka, "message.max.bytes": 64 * MEGABYTE})
    refused: list[object] = []
    producer.produce(
        USAGE_TOPIC, largest + bytes(64), account.encode(), partition, callback=lambda e, _: refused.append(e)
    )
    producer.produce(
        USAGE_TOPIC, largest, account.encode(), partition, callback=lambda e, m: refused.append(e or m.offset())
    )
    assert producer.flush(120) == 0
    too_large, offset = refused
    assert "MSG_SIZE_TOO_LARGE" in repr(too_large), "the topic's limit is the largest record that is read"
    away = (partition + 1) % PARTITIONS
    # The largest record that can be billed, on the wrong partition: its forward is larger, and taken.
    event = traffic.event(1, account)
    padding = random.Random(2).randbytes((LARGEST_INPUT - overhead - len(event) - 64) // 2).hex()
    valid = event[:-1] + b', "padding": "' + padding.encode() + b'"}'
    producer.produce(USAGE_TOPIC, valid, account.encode(), away, on_delivery=lambda e, _: refused.append(e))
    assert producer.flush(120) == 0
    assert refused.pop() is None
    traffic.use(6)
    traffic.settle()
    counts = traffic.books.counts()
    assert (counts.rated, counts.rejected, counts.forwarded) == (7, 1, 1)
    found = [one for one in read_topic(pipeline.kafka, REJECTED_TOPIC) if one.key() == account.encode()]
    assert [one.value() == largest for one in found] == [True]
    headers = dict(found[0].headers() or [])
    place = RecordPlace(headers["topic"].decode(), int(headers["partition"]), int(headers["offset"]))
    assert place == (USAGE_TOPIC, partition, offset)
    assert pipeline.audit_problems() == []
