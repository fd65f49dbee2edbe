"""Reconciliation on a real Kafka: an older database decides again, and consumers get what they lack, once."""

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress

import pytest
from confluent_kafka import KafkaException

from billing.calculator.core_records import pack_batches
from billing.commits.commit_record import NO_DIGEST, OutboxPage, OutboxRow, OutputHistory
from billing.commits.outbox_frames import Frame, encode_frame
from billing.commits.output_documents import Stamp, output_event
from schemas.json_text import dump_json
from schemas.topics import ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC, RATED_TOPIC, REJECTED_TOPIC
from streams.kafka_clients import offset_reader
from streams.read.readback import read_topic
from streams.relay.published_position import PublishedPosition, group_of, place_of, read_position
from streams.relay.publisher import Publisher
from streams.relay.reconcile import OutputReconciliation
from streams.relay.relay import PartitionRelay, RelaySettings
from streams.relay.relay_metrics import RelayMetrics
from streams.stream_errors import HistoryDiffers, PublisherFailed

MakeTopics = Callable[[int], str]


class Database:
    """One partition's commits in memory, each of some events; ``history`` marks the output of later commits."""

    def __init__(self) -> None:
        self.digests = [NO_DIGEST]
        self.rows: list[tuple[int, OutboxRow]] = []
        self.deleted = 0
        self.history = 0
        self.histories: list[OutputHistory] = []
        self.sequences: Counter[str] = Counter()

    def copy(self) -> "Database":
        other = Database()
        other.digests, other.rows = list(self.digests), list(self.rows)
        other.deleted, other.history, other.histories = self.deleted, self.history, list(self.histories)
        other.sequences = Counter(self.sequences)
        return other

    def decide(self, numbers: Sequence[int], amount: str = "0.5") -> None:
        """Commit events of one account by number: rated, with a balance and the outcome of a command each."""
        commit_no = len(self.digests)
        stamp = Stamp(0, commit_no, 1_000_000 * commit_no, self.digests[-1], self.history)
        lines = [{"account": "a", "source": "s", "id": f"e{number}", "amount": amount} for number in numbers]
        balance = dump_json({"account": "a", "wallet": str(max(numbers))})
        outputs = {
            RATED_TOPIC: [Frame(b"0", output_event("usage.rated.v1", stamp, 0, "0", dump_json({"events": lines})))],
            BALANCE_TOPIC: [Frame(b"a", output_event("package.balance.v1", stamp, 0, "a", balance))],
            ACCOUNT_EVENT_TOPIC: [
                Frame(
                    b"a", output_event("command.accepted.v1", stamp, at, "a", dump_json({"command_id": f"c{number}"}))
                )
                for at, number in enumerate(numbers)
            ],
            REJECTED_TOPIC: [
                Frame(b"a", b"{", _headers({"topic": "usage.events", "partition": "0", "offset": str(number)}, stamp))
                for number in numbers
            ],
        }
        digest = hashlib.sha256(self.digests[-1])
        for topic, frames in outputs.items():
            first = self.sequences[topic] + 1
            self.sequences[topic] += len(frames)
            row = OutboxRow(topic, len(frames), first, pack_batches(b"".join(map(encode_frame, frames)), first))
            self.rows.append((commit_no, row))
            digest.update(row.payload)
        self.digests.append(digest.digest())

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int) -> OutboxPage:
        rows = [one for one in self.rows if one[0] > after_commit_no]
        return OutboxPage(rows, self.commit_digest(0, after_commit_no), self.digests[rows[-1][0]] if rows else b"")

    def outbox_delete(self, partition: int, through_commit_no: int) -> None:
        self.rows = [one for one in self.rows if one[0] > through_commit_no]
        self.deleted = max(self.deleted, through_commit_no)

    def commit_digest(self, partition: int, commit_no: int) -> bytes | None:
        return self.digests[commit_no] if 0 <= commit_no < len(self.digests) else None

    def published(self, partition: int) -> int:
        return self.deleted

    def last_commit(self, partition: int) -> int:
        return len(self.digests) - 1

    def last_history(self, partition: int) -> OutputHistory | None:
        return self.histories[-1] if self.histories else None

    def begin_histories(self, wanted: Sequence[OutputHistory], begun_by: str) -> list[OutputHistory]:
        (one,) = wanted
        self.history = one.history
        self.histories.append(
            OutputHistory(
                *(0, one.history, len(self.digests) - 1, one.common_commit_no, one.published_commit_no),
                one.published_digest,
            )
        )
        return [self.histories[-1]]


def told(stamp: Stamp, at: int, number: int) -> bytes:
    return output_event("command.accepted.v1", stamp, at, "a", dump_json({"command_id": f"c{number}"}))


def _headers(own: dict[str, str], stamp: Stamp) -> tuple[tuple[str, bytes], ...]:
    own |= {"commit": str(stamp.commit_no), "previousdigest": stamp.previous_digest.hex()}
    own |= {"history": str(stamp.history)} if stamp.history else {}
    return tuple((name, value.encode()) for name, value in own.items())


class Rig:
    """One broker's topics of one partition, and what a consumer has read of them."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.kafka, self.prefix = kafka, prefix

    def relay(self, database: Database) -> None:
        """Publish what waits, as the relay does."""
        settings = RelaySettings(self.kafka, 1, self.prefix)
        relay = PartitionRelay(0, settings=settings, store=database, metrics=RelayMetrics(), stop=threading.Event())  # type: ignore[arg-type]
        with closing(self.opened(relay)) as publisher:
            page = database.outbox_read(0, relay._published.commit_no, 1 << 20)
            if page.rows:
                relay._publish(publisher, page)

    def opened(self, relay: PartitionRelay) -> Publisher:
        """Open a publisher; a new broker needs a moment until it coordinates the group."""
        for _ in range(50):
            with suppress(KafkaException):
                return relay._open()
            time.sleep(0.2)
        return relay._open()

    def reconcile(self, database: Database, dry_run: bool = False) -> list:
        return OutputReconciliation(self.kafka, 1, database, self.prefix).run("wang", dry_run, lambda rows: None)

    def counted(self) -> tuple[Counter[str], Counter[str], Counter[str]]:
        """Return how often each usage event, command and rejection was published."""
        usage: Counter[str] = Counter()
        for event in self.events(RATED_TOPIC):
            usage.update(line["id"] for line in event["data"]["events"])
        commands = Counter(event["data"]["command_id"] for event in self.events(ACCOUNT_EVENT_TOPIC))
        rejected = (dict(one.headers() or []) for one in read_topic(self.kafka, self.prefix + REJECTED_TOPIC))
        return usage, commands, Counter(one["offset"].decode() for one in rejected)

    def events(self, topic: str) -> list[dict]:
        return [json.loads(one.value() or b"") for one in read_topic(self.kafka, self.prefix + topic)]

    def position(self) -> PublishedPosition:
        with closing(offset_reader(self.kafka, group_of(self.prefix))) as offsets:
            return read_position(offsets, place_of(0, self.prefix), 30)


@pytest.fixture
def rig(kafka_address: str, make_topics: MakeTopics) -> Rig:
    return Rig(kafka_address, make_topics(1))


def diverged(rig: Rig) -> Database:
    """Publish commits 1 to 5 of one history; return the copy as of commit 2, which decided all input in two commits."""
    database = Database()
    for first in (1, 11):
        database.decide(range(first, first + 10))
        rig.relay(database)
    older = database.copy()
    for first in (21, 31, 41):
        database.decide(range(first, first + 10))
        rig.relay(database)
    older.decide(range(21, 36))
    older.decide(range(36, 61))
    with pytest.raises(HistoryDiffers):
        rig.relay(older)
    return older


def once(last: int) -> tuple[Counter[str], Counter[str], Counter[str]]:
    numbers = range(1, last + 1)
    return Counter(f"e{n}" for n in numbers), Counter(f"c{n}" for n in numbers), Counter(str(n) for n in numbers)


def test_consumers_get_exactly_what_they_lack(rig: Rig) -> None:
    older = diverged(rig)
    before = rig.counted()
    (compared,) = rig.reconcile(older, dry_run=True)
    assert compared.published == {RATED_TOPIC: 1, ACCOUNT_EVENT_TOPIC: 10, REJECTED_TOPIC: 10, BALANCE_TOPIC: 1}
    assert (rig.counted(), older.rows != []) == (before, True)
    (done,) = rig.reconcile(older)
    assert (done.common_commit_no, done.published_commit_no, done.through_commit_no, done.history) == (2, 5, 4, 1)
    assert (done.published, done.differences) == (compared.published, [])
    assert rig.counted() == once(60)
    assert rig.position() == PublishedPosition(4, older.digests[4].hex())
    assert (older.rows, older.deleted) == ([], 4)
    assert rig.events(BALANCE_TOPIC)[-1]["data"]["wallet"] == "60"
    # The relay goes on, in the new history; numbers of commits that consumers have seen come again.
    for first in (61, 71, 81):
        older.decide(range(first, first + 10))
        rig.relay(older)
    assert rig.counted() == once(90)
    every = [event for topic in (RATED_TOPIC, ACCOUNT_EVENT_TOPIC, BALANCE_TOPIC) for event in rig.events(topic)]
    assert set(Counter((event["source"], event["id"]) for event in every).values()) == {1}
    assert rig.reconcile(older) == []


def test_an_interrupted_reconciliation_is_repeated_and_publishes_nothing_twice(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = diverged(rig)
    published = Publisher.publish

    def fail_at_the_last(self: Publisher, rows, group, position) -> None:  # type: ignore[no-untyped-def]
        if not rows:
            raise PublisherFailed("the broker is away")
        published(self, rows, group, position)

    with monkeypatch.context() as patch:
        patch.setattr(Publisher, "publish", fail_at_the_last)
        with pytest.raises(PublisherFailed):
            rig.reconcile(older)
    assert rig.position().commit_no == 5 and older.rows
    with pytest.raises(HistoryDiffers):
        rig.relay(older)
    older.decide(range(61, 71))
    (done,) = rig.reconcile(older)
    assert (done.history, done.common_commit_no, done.through_commit_no) == (2, 2, 5)
    assert rig.counted() == once(70)
    assert rig.position() == PublishedPosition(5, older.digests[5].hex())


def test_a_second_older_copy_is_reconciled_too(rig: Rig) -> None:
    older = diverged(rig)
    oldest = older.copy()
    rig.reconcile(older)
    older.decide(range(61, 71))
    rig.relay(older)
    # This copy knows nothing of the first reconciliation, and its last commits are of the second history.
    for first in (61, 71):
        oldest.decide(range(first, first + 10))
    with pytest.raises(HistoryDiffers):
        rig.relay(oldest)
    (done,) = rig.reconcile(oldest)
    assert done.history == 2 and done.differences == []
    assert rig.counted() == once(80)


def test_other_decisions_are_reported_and_not_published_again(rig: Rig) -> None:
    database = Database()
    database.decide([1])
    rig.relay(database)
    older = database.copy()
    database.decide([2, 3])
    rig.relay(database)
    older.decide([2], amount="0.7")
    older.decide([4])
    (done,) = rig.reconcile(older)
    assert [text.partition(":")[0] for text in done.differences[:2]] == ["usage s e2 of a", "usage s e3 of a"]
    assert "0.7" in done.differences[0] and "not in the database" in done.differences[1]
    assert rig.counted()[0] == Counter({"e1": 1, "e2": 1, "e3": 1, "e4": 1})


def test_a_database_of_another_installation_is_refused(rig: Rig) -> None:
    database = Database()
    database.digests = [b"x" * 32]
    database.decide([1])
    database.decide([2])
    rig.relay(database)
    other = Database()
    other.digests = [b"y" * 32, b"z" * 32]
    with pytest.raises(HistoryDiffers, match="do not belong together"):
        rig.reconcile(other)
    assert rig.position().commit_no == 2
