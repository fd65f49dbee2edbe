"""Conflicts in SQL: each resend with other content is a row of the commit that decided it, with its bytes."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from own_database import PreparedDatabase

from billing.calculator.plain import PlainCalculator
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.conflicts import CONFLICT_SOURCE, CORRECT_COUNTS, KEEP_FIRST, ConflictContent, differences, usage_object
from billing.engine.partition_engine import PartitionEngine
from billing.store import conflict_records as stored
from billing.store.database import Database
from billing.store.proofs.audit import CHAIN, Audit, audit
from billing.store.store import Store
from billing.suspense import RecordPlace
from schemas.routing import partition_of
from schemas.times import format_time_us, parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC
from schemas.usage import UsageEvent, parse_usage

NOW_US = parse_time_us("2026-11-22T01:00:00Z")
ACCOUNTS = [name for name in (f"acct-{n}" for n in range(99)) if partition_of(name, 4) == 0][:2]


def event(kind: str, id: str, account: str, data: dict[str, object], **attributes: str) -> bytes:
    head = {"specversion": "1.0", "type": kind, "source": "urn:node-1", "id": id, "subject": account}
    return json.dumps(head | {"time": format_time_us(NOW_US)} | attributes | {"data": data}).encode()


def usage(id: str, tokens: int, account: str = ACCOUNTS[0], **attributes: str) -> bytes:
    return event("token.usage.v1", id, account, {"model": "m", "usage": {"input": tokens}}, **attributes)


class Partition:
    """One partition on SQL: each step is a commit."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.epoch, state = store.acquire(0)
        self.engine = PartitionEngine(state, *store.catalog(), store, PlainCalculator())

    def commit(self, topic: str, *values: bytes) -> None:
        start = self.engine.positions.get(topic, 0)
        headers = (("content-type", b"application/cloudevents+json"), ("trace", b"\xff"))
        records = [
            PlainRecord(start + n, NOW_US // 1000 + start + n, b"k\xff", value, headers)
            for n, value in enumerate(values)
        ]
        self.store.commit(self.epoch, self.engine.decide([InputBatch(topic, start, start + len(records), records)]))
        self.engine.committed()


@pytest.fixture
def partition(store: Store, publish_samples: Callable[[Store], None]) -> Partition:
    """A partition with two open accounts."""
    publish_samples(store)
    made = Partition(store)
    made.commit(
        COMMAND_TOPIC, *(event("account.opened.v1", f"open-{name}", name, {"currency": "CNY"}) for name in ACCOUNTS)
    )
    return made


@pytest.fixture
def opened(database: PreparedDatabase) -> Database:
    return Database(database.app_url, pool_size=2)


def open_conflicts(outcome: Audit) -> tuple[str, ...]:
    [found] = [one.shown for one in outcome.findings if one.name == "open conflicts"]
    return found


def resolve(database: Database, offset: int, outcome: str) -> None:
    with database.transaction() as connection:
        resolution = stored.ConflictResolution(connection)
        about, _ = resolution.at(RecordPlace(USAGE_TOPIC, 0, offset)) or pytest.fail("not there")
        resolution.note(about, outcome, "because", "wang")


def test_each_resend_with_other_content_is_kept_as_it_came(
    database: PreparedDatabase, opened: Database, partition: Partition
) -> None:
    other = ACCOUNTS[1]
    partition.commit(USAGE_TOPIC, usage("u", 5), usage("u", 6), usage("v", 5, other, sequence="1"), usage("u", 5))
    partition.commit(USAGE_TOPIC, usage("u", 7), usage("u", 5, time="2026-11-22T00:30:00Z"))
    listed = list(stored.listed_conflicts(opened, stored.WantedConflicts()))
    assert [(one.place.offset, one.account, one.source, one.id, one.state) for one in listed] == [
        (offset, ACCOUNTS[0], "urn:node-1", "u", "open") for offset in (1, 4, 5)
    ]
    assert [one.size for one in listed[:2]] == [len(usage("u", 6)), len(usage("u", 7))]
    with opened.transaction() as connection:
        found = stored.shown_conflict(connection, RecordPlace(USAGE_TOPIC, 0, 4))
        missing = stored.shown_conflict(connection, RecordPlace(USAGE_TOPIC, 0, 3))
    headers = (("content-type", b"application/cloudevents+json"), ("trace", b"\xff"))
    assert found == (listed[1], ConflictContent(b"k\xff", headers, usage("u", 7)))
    assert missing is None
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    assert open_conflicts(outcome) == (f"3 of account {ACCOUNTS[0]}, the first at usage.events/0/1",)
    [[details]] = database.run("SELECT array_agg(detail ORDER BY commit_no, row_no) FROM finding")
    assert details[0] == (
        f"usage.events/0/1: source 'urn:node-1' id 'u' of account {ACCOUNTS[0]!r} was sent again with other content"
    )


def test_a_resolution_names_who_decided_and_why_and_closes_the_finding(
    database: PreparedDatabase, opened: Database, partition: Partition
) -> None:
    partition.commit(USAGE_TOPIC, usage("u", 5), usage("u", 6), usage("u", 7))
    resolve(opened, 1, KEEP_FIRST)
    resolve(opened, 2, CORRECT_COUNTS)
    assert list(stored.listed_conflicts(opened, stored.WantedConflicts())) == []
    every = list(stored.listed_conflicts(opened, stored.WantedConflicts(only_open=False)))
    assert [(one.state, one.resolved_by, one.reason) for one in every] == [
        ("kept", "wang", "because"),
        ("correcting", "wang", "because"),
    ]
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    assert open_conflicts(outcome) == ()
    database.run(
        "INSERT INTO command_seen (source, id, outcome, partition, commit_no) VALUES"
        f" ('{CONFLICT_SOURCE}', 'usage.events/0/2', 'accepted', 0, 1)"
    )
    assert [one.state for one in stored.listed_conflicts(opened, stored.WantedConflicts(only_open=False))] == [
        "kept",
        "corrected",
    ]


def test_a_changed_row_breaks_the_chain(database: PreparedDatabase, partition: Partition) -> None:
    partition.commit(USAGE_TOPIC, usage("u", 5), usage("u", 6))
    database.run(
        "ALTER TABLE conflict DISABLE TRIGGER append_only",
        "UPDATE conflict SET value = 'x'",
        "ALTER TABLE conflict ENABLE ALWAYS TRIGGER append_only",
    )
    assert [one.name for one in audit(database.report_url).checks if one.count] == [CHAIN]


def test_what_differs_is_named() -> None:
    first, second = parse_usage(usage("u", 5)), parse_usage(usage("u", 6, time="2026-11-22T00:30:00Z"))
    assert isinstance(first, UsageEvent) and isinstance(second, UsageEvent)
    assert differences(usage_object(first), usage_object(second)) == ["time", "usage"]
    assert differences(usage_object(first), usage_object(first)) == []
    other = replace(first, attributes=(("resolution", "4k"),))
    assert differences(usage_object(first), usage_object(other)) == ["attributes"]
    assert differences(usage_object(other), usage_object(first)) == ["attributes"]
