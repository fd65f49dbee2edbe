"""Guarantees of the relay, on a real Kafka: each record once and in order, whichever process dies at any moment."""

import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from billing.calculator.core_records import pack_batches
from billing.commits.commit_record import NO_DIGEST, OutboxPage, OutboxRow
from billing.commits.outbox_frames import SEQUENCE_MARK, Frame, encode_frame, pack_frames
from billing.errors import DatabaseDown
from schemas.topics import BALANCE_TOPIC, FORWARD_TOPIC, RATED_TOPIC, REJECTED_TOPIC, USAGE_FORWARDED_TOPIC
from streams.read.readback import read_topic
from streams.relay.relay import PartitionRelay, Relay, RelaySettings
from streams.relay.relay_metrics import RelayMetrics
from streams.stream_errors import RelayFenced

MakeTopics = Callable[[int], str]


class Killed(BaseException):
    """Simulates kill -9: no code handles this exception."""


class Outbox:
    """Outbox in memory with the contract of ``billing.store.store.Store``."""

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[int, OutboxRow]]] = {}
        self.dropped: dict[int, int] = {}
        self.newest: dict[int, int] = {}
        self.salt = b"one history"
        self.next_sequences: dict[tuple[int, str], int] = {}
        self.on_delete: Callable[[], None] = lambda: None
        self.on_read: Callable[[], None] = lambda: None
        self._heard = threading.Condition()
        self._news: set[int] = set()

    def add(self, partition: int, commit_no: int, topic: str, frames: list[Frame]) -> None:
        first = self.next_sequences.get((partition, topic), 1)
        self.next_sequences[partition, topic] = first + len(frames)
        payload = (
            pack_frames(frames)
            if topic in FORWARD_TOPIC.values()
            else pack_batches(b"".join(map(encode_frame, frames)), first)
        )
        row = OutboxRow(topic, len(frames), first, payload)
        self.newest[partition] = max(commit_no, self.newest.get(partition, 0))
        self.rows.setdefault(partition, []).append((commit_no, row))
        with self._heard:
            self._news.add(partition)
            self._heard.notify_all()

    def commit_digest(self, partition: int, commit_no: int) -> bytes | None:
        return digest_of(self.salt, commit_no) if commit_no <= self.newest.get(partition, 0) else None

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int) -> OutboxPage:
        self.on_read()
        taken = self.waiting(partition, after_commit_no, max_bytes)
        last = digest_of(self.salt, taken[-1][0]) if taken else b""
        return OutboxPage(taken, self.commit_digest(partition, after_commit_no), last)

    def waiting(self, partition: int, after_commit_no: int, max_bytes: int) -> list[tuple[int, OutboxRow]]:
        taken: list[tuple[int, OutboxRow]] = []
        size = 0
        for commit_no, row in list(self.rows.get(partition, [])):
            if commit_no <= after_commit_no:
                continue
            if taken and size >= max_bytes and commit_no != taken[-1][0]:
                break
            taken.append((commit_no, row))
            size += len(row.payload)
        return taken

    def outbox_delete(self, partition: int, through_commit_no: int) -> None:
        self.on_delete()
        self.rows[partition] = [one for one in self.rows.get(partition, []) if one[0] > through_commit_no]
        self.dropped[partition] = max(through_commit_no, self.dropped.get(partition, 0))

    def published(self, partition: int) -> int:
        return self.dropped.get(partition, 0)

    @contextmanager
    def listen(self) -> Iterator["Outbox"]:
        yield self

    def wait(self, timeout_seconds: float) -> set[int]:
        with self._heard:
            self._heard.wait_for(lambda: bool(self._news), timeout_seconds)
            news, self._news = self._news, set()
            return news


def digest_of(salt: bytes, commit_no: int) -> bytes:
    return hashlib.sha256(b"%b %d" % (salt, commit_no)).digest() if commit_no else NO_DIGEST


def rated(number: int) -> Frame:
    return Frame(b"0", b'{"number":%d,"sequence":"%b"}' % (number, SEQUENCE_MARK), (("content-type", b"json"),))


def fill(outbox: Outbox, partition: int, commits: range, records: int = 3) -> None:
    for commit_no in commits:
        frames = [rated(commit_no * 100 + index) for index in range(records)]
        outbox.add(partition, commit_no, RATED_TOPIC, frames)


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_until_empty(settings: RelaySettings, outbox: Outbox) -> Relay:
    relay = Relay(settings, outbox, RelayMetrics())
    thread = threading.Thread(target=relay.run)
    thread.start()
    deadline = time.monotonic() + 30
    while any(outbox.rows.values()) and not relay.stop.is_set() and time.monotonic() < deadline:
        time.sleep(0.02)
    relay.stop.set()
    thread.join()
    return relay


def published(kafka: str, topic: str) -> list[tuple[int, bytes | None]]:
    return [(message.partition() or 0, message.value()) for message in read_topic(kafka, topic)]


def expected(commits: range, records: int = 3) -> list[tuple[int, bytes]]:
    numbers = [commit_no * 100 + index for commit_no in commits for index in range(records)]
    return [
        (0, b'{"number":%d,"sequence":"%d"}' % pair) for pair in zip(numbers, range(1, len(numbers) + 1), strict=True)
    ]


def test_publishes_in_commit_order_with_contiguous_sequences(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(2)
    outbox = Outbox()
    fill(outbox, 0, range(1, 41))
    fill(outbox, 1, range(1, 11))
    settings = RelaySettings(kafka_address, 2, prefix, max_transaction_bytes=500)
    assert run_until_empty(settings, outbox).failure is None
    found = published(kafka_address, prefix + RATED_TOPIC)
    assert [one for one in found if one[0] == 0] == expected(range(1, 41))
    assert len([one for one in found if one[0] == 1]) == 30
    assert outbox.dropped == {0: 40, 1: 10}


def test_killed_between_kafka_commit_and_sql_delete_publishes_nothing_twice(
    kafka_address: str, make_topics: MakeTopics
) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    fill(outbox, 0, range(1, 6))
    settings = RelaySettings(kafka_address, 1, prefix, max_transaction_bytes=1)

    def die() -> None:
        raise Killed

    outbox.on_delete = die
    relay = run_until_empty(settings, outbox)
    assert isinstance(relay.failure, Killed)
    assert outbox.dropped == {}, "SQL still holds everything"
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 2)), "Kafka has the first commit"
    outbox.on_delete = lambda: None
    assert run_until_empty(settings, outbox).failure is None
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 6))


def test_what_a_killed_relay_left_open_is_aborted_and_never_read(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    fill(outbox, 0, range(1, 3))
    dead = Producer({"bootstrap.servers": kafka_address, "transactional.id": f"{prefix}tokenbill-relay-0"})
    dead.init_transactions(30)
    dead.begin_transaction()
    dead.produce(prefix + RATED_TOPIC, b"half a transaction", partition=0)
    dead.flush(30)
    assert run_until_empty(RelaySettings(kafka_address, 1, prefix), outbox).failure is None
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 3))
    everything = [message.value() for message in read_topic(kafka_address, prefix + RATED_TOPIC, committed_only=False)]
    assert b"half a transaction" in everything, "only read_committed hides it"


def test_a_second_relay_ends_the_first(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    settings = RelaySettings(kafka_address, 1, prefix)
    first = PartitionRelay(0, settings=settings, store=outbox, metrics=RelayMetrics(), stop=threading.Event())
    publisher = first._open()
    fill(outbox, 0, range(1, 3))
    rows = outbox.waiting(0, 0, 1 << 20)
    run_until_empty(settings, outbox)
    first._open = lambda: publisher  # type: ignore[method-assign]
    outbox.rows[0] = rows
    with pytest.raises(RelayFenced):
        first.run()
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 3))


def test_one_partition_asks_the_broker_before_all_do(kafka_address: str, make_topics: MakeTopics) -> None:
    outbox, answered, asked = Outbox(), threading.Event(), list[int]()

    def published_last(partition: int) -> int:
        asked.append(partition)
        assert answered.wait(30)
        return 0

    outbox.published = published_last  # type: ignore[method-assign]
    relay = Relay(RelaySettings(kafka_address, 3, make_topics(3)), outbox, RelayMetrics())
    thread = threading.Thread(target=relay.run)
    thread.start()
    wait_for(lambda: asked == [0])
    time.sleep(0.5)
    assert asked == [0]
    answered.set()
    wait_for(lambda: bool(relay.health()["ready"]))
    assert sorted(asked) == [0, 1, 2]
    relay.end()
    thread.join(30)
    assert not thread.is_alive() and relay.failure is None


def test_forwarded_records_go_to_their_target_outside_the_transaction(
    kafka_address: str, make_topics: MakeTopics
) -> None:
    prefix = make_topics(3)
    outbox = Outbox()
    frames = [Frame(b"k%d" % n, b"v%d" % n, (("tb_forward_number", b"%d" % n),), n % 3) for n in range(1, 7)]
    outbox.add(0, 1, USAGE_FORWARDED_TOPIC, frames)
    outbox.add(0, 1, BALANCE_TOPIC, [Frame(b"acct", None)])
    assert run_until_empty(RelaySettings(kafka_address, 3, prefix), outbox).failure is None
    found = list(read_topic(kafka_address, prefix + USAGE_FORWARDED_TOPIC))
    assert sorted((one.partition(), one.key(), one.value()) for one in found) == sorted(
        (n % 3, b"k%d" % n, b"v%d" % n) for n in range(1, 7)
    )
    by_partition = [[one.offset() for one in found if one.partition() == number] for number in range(3)]
    assert by_partition == [[0, 1]] * 3, "input topics stay dense: no transaction markers"
    assert [one.headers() for one in found if one.key() == b"k1"] == [[("tb_forward_number", b"1")]]
    assert [(one.key(), one.value()) for one in read_topic(kafka_address, prefix + BALANCE_TOPIC)] == [(b"acct", None)]


def test_batches_of_one_commit_and_of_many_stay_in_order(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    large = b"x" * 400_000
    for commit_no in range(1, 4):
        frames = [Frame(b"k", b"%b%d" % (large, commit_no * 10 + n), (("h", None),)) for n in range(8)]
        outbox.add(0, commit_no, RATED_TOPIC, frames)
        outbox.add(0, commit_no, BALANCE_TOPIC, [Frame(b"acct", b'"%b"' % SEQUENCE_MARK)])
    assert run_until_empty(RelaySettings(kafka_address, 1, prefix), outbox).failure is None
    found = list(read_topic(kafka_address, prefix + RATED_TOPIC))
    assert [(one.value() or b"")[len(large) :] for one in found] == [
        b"%d" % (commit_no * 10 + n) for commit_no in range(1, 4) for n in range(8)
    ]
    assert {(one.key(), tuple(one.headers() or ())) for one in found} == {(b"k", (("h", None),))}
    assert all(abs(one.timestamp()[1] / 1000 - time.time()) < 120 for one in found)
    balances = [one.value() for one in read_topic(kafka_address, prefix + BALANCE_TOPIC)]
    assert balances == [b'"1"', b'"2"', b'"3"']


def test_waits_out_a_database_that_is_down(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    fill(outbox, 0, range(1, 4))
    failures = iter([DatabaseDown("gone")] * 2)

    def fail() -> None:
        for failure in failures:
            raise failure

    outbox.on_read = fail
    outbox.on_delete = fail
    assert run_until_empty(RelaySettings(kafka_address, 1, prefix), outbox).failure is None
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 4))


def set_limit(kafka: str, topic: str, size: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.incremental_alter_configs([resource])[resource].result()


@pytest.mark.parametrize("topic", [REJECTED_TOPIC, USAGE_FORWARDED_TOPIC])
def test_a_record_too_large_for_its_topic_is_told_from_a_broker_that_is_down(
    kafka_address: str, make_topics: MakeTopics, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The relay says which limit to raise, and goes on when it is raised."""
    prefix = make_topics(1)
    set_limit(kafka_address, prefix + topic, 100_000)
    outbox = Outbox()
    large = random.Random(3).randbytes(300_000)
    outbox.add(0, 1, topic, [Frame(b"k", large, (), 0)])
    outbox.add(0, 2, RATED_TOPIC, [rated(2)])
    metrics = RelayMetrics()
    relay = Relay(RelaySettings(kafka_address, 1, prefix), outbox, metrics)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        wait_for(lambda: "is larger than topic" in relay.parts[0].why_not_ready)
        assert f"--entity-name {prefix}{topic}" in relay.parts[0].why_not_ready
        assert not relay.health()["ready"]
        assert metrics.failures.labels("too_large")._value.get() >= 1
        assert metrics.failures.labels("broker")._value.get() == 0
        assert any("output too large, retrying" in line for line in caplog.messages)
        set_limit(kafka_address, prefix + topic, 1_000_000)
        wait_for(lambda: not any(outbox.rows.values()))
        wait_for(lambda: bool(relay.health()["ready"]))
    finally:
        relay.end()
        thread.join()
    assert [value for _, value in published(kafka_address, prefix + topic)] == [large]


def started(settings: RelaySettings, outbox: Outbox) -> tuple[Relay, threading.Thread]:
    relay = Relay(settings, outbox, RelayMetrics())
    thread = threading.Thread(target=relay.run)
    thread.start()
    return relay, thread


@pytest.mark.parametrize("case", ["another commit of that number", "an earlier end", "published beyond Kafka"])
def test_a_database_that_is_not_the_published_one_stops_its_partition_alone(
    kafka_address: str, make_topics: MakeTopics, case: str
) -> None:
    """An older copy of the database took over and decides on: nothing is published, and nothing deleted."""
    prefix = make_topics(2)
    outbox = Outbox()
    fill(outbox, 0, range(1, 6))
    settings = RelaySettings(kafka_address, 2, prefix, poll_seconds=0.1)
    assert run_until_empty(settings, outbox).failure is None
    before = published(kafka_address, prefix + RATED_TOPIC)
    if case == "another commit of that number":
        outbox.salt = b"another history"
        fill(outbox, 0, range(4, 9))
        outbox.dropped[0] = 3
    elif case == "an earlier end":
        outbox.newest[0], outbox.dropped[0] = 3, 3
        outbox.rows[0] = []
        fill(outbox, 0, range(4, 5))
    else:
        fill(outbox, 0, range(6, 9))
        outbox.dropped[0], outbox.rows[0] = 6, outbox.rows[0][3:]
    kept = list(outbox.rows[0])
    relay, thread = started(settings, outbox)
    try:
        wait_for(lambda: relay.parts[0].stopped)
        fill(outbox, 1, range(1, 3))
        wait_for(lambda: outbox.dropped.get(1) == 2)
        health = relay.health()
        assert (health["ready"], health["serving"]) == (False, True)
        (stopped,) = health["stopped"]
        assert stopped["partition"] == 0 and "tokenbill relay reconcile" in stopped["why"]
        assert relay.parts[0]._metrics.registry.get_sample_value("tokenbill_relay_stopped", {"partition": "0"}) == 1
        assert outbox.rows[0] == kept
        assert [one for one in published(kafka_address, prefix + RATED_TOPIC) if one[0] == 0] == before
    finally:
        relay.end()
        thread.join(30)
    assert relay.failure is None


def test_a_database_that_changes_under_a_running_relay_stops_it_until_it_is_back(
    kafka_address: str, make_topics: MakeTopics
) -> None:
    prefix = make_topics(1)
    outbox = Outbox()
    fill(outbox, 0, range(1, 4))
    relay, thread = started(RelaySettings(kafka_address, 1, prefix, poll_seconds=0.1), outbox)
    try:
        wait_for(lambda: outbox.dropped.get(0) == 3)
        outbox.salt = b"another history"
        fill(outbox, 0, range(4, 6))
        wait_for(lambda: relay.parts[0].stopped)
        assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 4))
        outbox.salt = b"one history"
        wait_for(lambda: outbox.dropped.get(0) == 5)
        assert relay.health()["ready"]
    finally:
        relay.end()
        thread.join(30)
    assert published(kafka_address, prefix + RATED_TOPIC) == expected(range(1, 6))
