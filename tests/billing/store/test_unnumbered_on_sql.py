"""Identities of unnumbered sources on SQL: neither restarts nor dropped memory bill a resend with another time."""

import json
import struct
from collections.abc import Callable

import pytest
from own_database import PreparedDatabase

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.commits.identities import HashHour, LogPart
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import IDENTITY_MEMORY_BYTES, PartitionEngine
from billing.log_time import TimeLimits
from billing.store.proofs.audit import audit
from billing.store.store import Store
from schemas.hashing import identity_hash
from schemas.routing import partition_of
from schemas.times import HOUR_US, format_time_us, parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

NOW_US = parse_time_us("2026-11-22T01:00:00Z")
ONE, TWO = [name for name in (f"acct-{n}" for n in range(99)) if partition_of(name, 4) == 0][:2]


def event(kind: str, id: str, account: str, data: dict[str, object], time_us: int = NOW_US) -> bytes:
    head = {"specversion": "1.0", "type": kind, "source": "urn:plain", "id": id, "subject": account}
    return json.dumps(head | {"time": format_time_us(time_us), "data": data}).encode()


def usage(id: str, time_us: int, account: str = ONE) -> bytes:
    return event("token.usage.v1", id, account, {"model": "m", "usage": {"input": 5}}, time_us)


class Worker:
    """A worker of one partition on SQL. A restart loses all its memory."""

    def __init__(self, store: Store, memory_bytes: int, make: type[CompiledCalculator] | type[PlainCalculator]) -> None:
        self.store, self.memory_bytes, self.make = store, memory_bytes, make
        self.limits = TimeLimits()
        self.log_us = NOW_US
        self.restart()
        opened = [event("account.opened.v1", name, name, {"currency": "CNY"}) for name in (ONE, TWO)]
        self.commit(opened, COMMAND_TOPIC)

    def restart(self) -> None:
        self.epoch, state = self.store.acquire(0)
        made = self.make()
        catalog = self.store.catalog()
        self.engine = PartitionEngine(state, *catalog, self.store, made, self.limits, self.memory_bytes)

    def commit(self, values: list[bytes], topic: str = USAGE_TOPIC) -> tuple[int, int, int]:
        start = self.engine.positions.get(topic, 0)
        records = [PlainRecord(start + n, self.log_us // 1000, None, value) for n, value in enumerate(values)]
        record = self.engine.decide([InputBatch(topic, start, start + len(records), records)])
        self.store.commit(self.epoch, record)
        self.engine.committed()
        return record.counts.rated, record.counts.duplicate, len(record.conflicts)


@pytest.mark.parametrize("make", [CompiledCalculator, PlainCalculator])
@pytest.mark.parametrize("memory_bytes", [IDENTITY_MEMORY_BYTES, 0], ids=["remembered", "dropped"])
@pytest.mark.parametrize("restarted", [False, True], ids=["", "restarted"])
def test_a_resend_in_another_hour_is_recognised(
    database: PreparedDatabase,
    store: Store,
    publish_samples: Callable[[Store], None],
    restarted: bool,
    memory_bytes: int,
    make: type[CompiledCalculator] | type[PlainCalculator],
) -> None:
    publish_samples(store)
    worker = Worker(store, memory_bytes, make)
    late_us = NOW_US - 40 * HOUR_US
    sent = [usage("on time", NOW_US), usage("late", late_us), usage("on time", NOW_US, TWO)]
    assert worker.commit(sent) == (3, 0, 0)
    for hours in (1, 22, 1):
        worker.log_us += hours * HOUR_US
        if restarted:
            worker.restart()
        again = [usage("on time", worker.log_us), usage("late", worker.log_us), usage("on time", worker.log_us, TWO)]
        assert worker.commit([*again, usage(f"new {worker.log_us}", worker.log_us)]) == (1, 3, 3)
    worker.log_us += 20 * 24 * HOUR_US
    if restarted:
        worker.restart()
    assert worker.commit(sent) == (0, 3, 0)  # by the hour of their own time, for 35 days
    outcome = audit(database.report_url)
    assert outcome.passed, outcome


def test_what_a_filter_names_without_reason_is_decided_by_sql(
    database: PreparedDatabase,
    store: Store,
    publish_samples: Callable[[Store], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ids share the 39 bits by which the filter of 1,500 identities knows them; one of them was rated."""
    known, alike = "c954362", "c3267783"
    first, second = (struct.unpack("<QQ", identity_hash(ONE, "urn:plain", id)) for id in (known, alike))
    assert first != second
    assert (first[0] >> 57, first[1] & 0xFFFFFFFF) == (second[0] >> 57, second[1] & 0xFFFFFFFF)
    publish_samples(store)
    read: list[LogPart] = []
    load_part = store.load_part

    def counted(number: int, part: LogPart) -> list[bytes]:
        read.append(part)
        return load_part(number, part)

    monkeypatch.setattr(store, "load_part", counted)
    worker = Worker(store, 30_000, CompiledCalculator)
    assert worker.commit([usage(known, NOW_US), *(usage(f"o{n}", NOW_US) for n in range(1_499))]) == (1_500, 0, 0)
    part = LogPart(NOW_US, 2, 2)
    worker.log_us += HOUR_US
    assert worker.commit([usage(f"new{n}", worker.log_us) for n in range(500)]) == (500, 0, 0)
    assert read == [], "the filter says no to each of them"
    assert worker.commit([usage(alike, worker.log_us)]) == (1, 0, 0)
    assert read == [part], "the filter says yes, SQL says no"
    read.clear()
    assert worker.commit([usage(known, worker.log_us), usage(alike, worker.log_us - HOUR_US)]) == (0, 2, 2)
    assert part in read
    assert audit(database.report_url).passed


def test_parts_are_listed_and_read_by_hour_of_log_time(
    database: PreparedDatabase, store: Store, publish_samples: Callable[[Store], None]
) -> None:
    publish_samples(store)
    worker = Worker(store, IDENTITY_MEMORY_BYTES, CompiledCalculator)
    for number in range(4):
        worker.log_us = NOW_US + number // 3 * HOUR_US
        worker.commit([usage(f"{number}-{n}", NOW_US - n * HOUR_US) for n in range(3)])
    parts = [LogPart(NOW_US, 2, 3), LogPart(NOW_US, 4, 4), LogPart(NOW_US + HOUR_US, 5, 5)]
    assert store.log_parts(0, NOW_US, 6) == parts
    assert store.log_parts(0, NOW_US, 1) == [LogPart(NOW_US, n, n) for n in (2, 3, 4)] + parts[-1:]
    assert store.log_parts(0, NOW_US + HOUR_US, 6) == parts[-1:]
    assert [len(b"".join(store.load_part(0, part))) for part in parts] == [6 * 20, 3 * 20, 3 * 20]


def test_identities_of_an_earlier_release_stay_known(
    database: PreparedDatabase, store: Store, publish_samples: Callable[[Store], None]
) -> None:
    """It stored no hour of log time, and the hashes did not cover the account."""
    publish_samples(store)
    worker = Worker(store, IDENTITY_MEMORY_BYTES, CompiledCalculator)
    worker.limits = TimeLimits(sequence_jump=None)
    worker.restart()
    assert worker.commit([usage("u", NOW_US), usage("u", NOW_US, TWO)]) == (1, 1, 1)
    assert database.run("SELECT count(*), count(log_hour_us) FROM dedupe_hour") == [(1, 0)]
    [hour] = store.load_hours(0, [NOW_US])
    assert hour == HashHour(NOW_US, hour.payload)
    database.run("UPDATE partition_state SET unlogged_until_us = log_time_us")  # as the migration does
    worker.limits = TimeLimits()
    worker.log_us += HOUR_US
    worker.restart()
    assert worker.commit([usage("u", NOW_US), usage("u", NOW_US, TWO), usage("v", NOW_US, TWO)]) == (1, 2, 1)
