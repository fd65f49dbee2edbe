"""Settings of the Kafka clients, read from real clients that never reach a broker."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient

from schemas.record_sizes import LARGEST_RECORD
from streams import kafka_clients

NOWHERE = "127.0.0.1:1"
QUIET = logging.getLogger("tests.kafka_clients")
Settings = dict[str, Any]


def ignore(*_: object) -> None:
    """Callback that does nothing."""


INPUT_PRODUCERS: dict[str, Callable[[], Any]] = {
    "input": lambda: kafka_clients.input_producer(NOWHERE, ignore),
    "request": lambda: kafka_clients.request_producer(NOWHERE, 10, ignore),
    "resubmit": lambda: kafka_clients.resubmit_producer(NOWHERE, 3, 30),
}
RECORD_READERS: dict[str, Callable[[], Any]] = {
    "feed": lambda: kafka_clients.feed_reader(NOWHERE),
    "whole topic": lambda: kafka_clients.whole_topic_reader(NOWHERE),
    "whole topic, uncommitted too": lambda: kafka_clients.whole_topic_reader(NOWHERE, committed_only=False),
    "input log": lambda: kafka_clients.input_log_reader(NOWHERE),
}
OFFSET_READERS: dict[str, Callable[[], Any]] = {
    "offsets": lambda: kafka_clients.offset_reader(NOWHERE, "group"),
    "offsets, logged": lambda: kafka_clients.offset_reader(NOWHERE, "group", QUIET),
}
READERS = RECORD_READERS | OFFSET_READERS


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Settings]:
    """Return a function that makes a client and returns its settings; librdkafka has accepted them."""
    given: list[Settings] = []

    def remembering(kind: type) -> type:
        class Remembering(kind):  # type: ignore[misc]
            def __init__(self, settings: Settings, **others: Any) -> None:
                given.append(settings)
                super().__init__({**settings, "log_level": 0}, **others)

        return Remembering

    for kind in (Producer, Consumer, AdminClient):
        monkeypatch.setattr(kafka_clients, kind.__name__, remembering(kind))

    def settings(make: Callable[[], Any]) -> Settings:
        client = make()
        if isinstance(client, Consumer):
            client.close()
        return given.pop()

    return settings


@pytest.mark.parametrize("make", INPUT_PRODUCERS.values(), ids=INPUT_PRODUCERS)
def test_producers_of_input_topics_lose_repeat_and_reorder_nothing(
    make: Callable[[], Any], settings_of: Callable[[Callable[[], Any]], Settings]
) -> None:
    found = settings_of(make)
    assert found["acks"] == "all"
    assert found["enable.idempotence"] is True
    assert found["partitioner"] == "murmur2_random"
    assert "transactional.id" not in found, "a transaction would delay each record to its end"


def test_a_caller_that_waits_gets_its_answer_in_time(settings_of: Callable[[Callable[[], Any]], Settings]) -> None:
    assert settings_of(INPUT_PRODUCERS["request"])["delivery.timeout.ms"] == 10_000
    assert settings_of(INPUT_PRODUCERS["request"])["linger.ms"] == 1
    assert settings_of(INPUT_PRODUCERS["resubmit"])["delivery.timeout.ms"] == 30_000


@pytest.mark.parametrize(("records", "room"), [(0, 1), (1, 1), (500_000, 500_000)])
def test_a_resubmission_fits_into_its_queue(
    records: int, room: int, settings_of: Callable[[Callable[[], Any]], Settings]
) -> None:
    found = settings_of(lambda: kafka_clients.resubmit_producer(NOWHERE, records, 30))
    assert found["queue.buffering.max.messages"] == room
    assert found["message.max.bytes"] >= max(LARGEST_RECORD.values()), "it was taken by a topic before"


@pytest.mark.parametrize("name", READERS)
def test_readers_see_committed_records_and_commit_no_offset(
    name: str, settings_of: Callable[[Callable[[], Any]], Settings]
) -> None:
    found = settings_of(READERS[name])
    assert found["enable.auto.commit"] is False
    assert found["isolation.level"] == ("read_uncommitted" if "uncommitted" in name else "read_committed")


@pytest.mark.parametrize(
    ("name", "reset"),
    [("feed", "earliest"), ("whole topic", "earliest"), ("input log", "error")],
)
def test_readers_of_records_do_not_stall_and_do_not_skip(
    name: str, reset: str, settings_of: Callable[[Callable[[], Any]], Settings]
) -> None:
    found = settings_of(RECORD_READERS[name])
    assert found["fetch.queue.backoff.ms"] == 5, "librdkafka's default is a second"
    assert found["auto.offset.reset"] == reset


def test_groups_of_readers_differ(settings_of: Callable[[Callable[[], Any]], Settings]) -> None:
    groups = {settings_of(make)["group.id"] for make in READERS.values()}
    assert groups == {"tokenbill-feed", "tokenbill-readback", "tokenbill-history", "group"}


def test_a_probe_is_silent_and_reconnects_soon(settings_of: Callable[[Callable[[], Any]], Settings]) -> None:
    found = settings_of(lambda: kafka_clients.probe_client(NOWHERE))
    assert (found["log_level"], found["reconnect.backoff.max.ms"]) == (0, 500)
    assert settings_of(lambda: kafka_clients.admin_client(NOWHERE))["socket.timeout.ms"] == 30_000


def test_the_transactional_producer_is_idempotent_with_all_acknowledgements() -> None:
    async def make() -> AIOKafkaProducer:
        producer = kafka_clients.transactional_producer(NOWHERE, "relay-0", 2.5)
        producer._closed = True  # It was never started; aiokafka warns of a producer that is not closed.
        return producer

    producer = asyncio.run(make())
    assert producer._sender._acks == -1
    assert producer._txn_manager.transactional_id == producer.client._client_id == "relay-0"
    assert producer._txn_manager.transaction_timeout_ms == producer._request_timeout_ms == 2_500


def test_the_worker_fetches_ranges_from_the_beginning_and_commits_no_offset() -> None:
    async def make() -> AIOKafkaConsumer:
        consumer = kafka_clients.fetch_consumer([NOWHERE], group_id="worker", client_id="w")
        consumer._closed = True  # As above.
        return consumer

    consumer = asyncio.run(make())
    assert consumer._enable_auto_commit is False
    assert consumer._auto_offset_reset == "earliest"
    assert consumer._isolation_level == "read_committed", "a record of an aborted transaction is never billed"
    assert consumer._partition_assignment_strategy == [RangePartitionAssignor]
    assert (consumer._fetch_max_wait_ms, consumer._fetch_max_bytes) == (50, 32 << 20)


def test_settings_that_are_made_here_cannot_be_replaced() -> None:
    with pytest.raises(TypeError):
        kafka_clients.fetch_consumer([NOWHERE], enable_auto_commit=True)


def test_importing_the_module_loads_neither_faust_nor_aiokafka() -> None:
    ask = "import sys, streams.kafka_clients; print(sorted({'faust', 'mode', 'aiokafka'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout == "[]\n"
