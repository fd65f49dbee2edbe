"""Suspense in SQL: rows are written by the commit that counts them, keep the received bytes, and are rated once."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog
from billing.commits.commit_record import CommitCounts, CommitRecord, SuspenseRecord
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.engine.partition_engine import PartitionEngine
from billing.errors import BrokenInvariant
from billing.store import suspense_records as stored
from billing.store.commits.digest_chain import check_chain
from billing.store.database import Database
from billing.store.proofs.audit import CHAIN, ROWS, audit
from billing.store.store import Store
from billing.suspense import (
    ADVICE,
    STATES,
    RecordPlace,
    SuspendedRecord,
    as_it_was,
    parse_place,
    repaired,
    resubmissions,
)
from schemas.refusal_codes import REASONS
from schemas.refusals import Refusal, record_refusal
from schemas.routing import partition_of
from schemas.times import parse_time_us
from schemas.topics import COMMAND_TOPIC, FORWARD_NUMBER_HEADER, USAGE_TOPIC

PARTITIONS = 4
SECOND_US = 1_000_000
NOW_US = parse_time_us("2026-11-22T01:00:00Z")
ACCOUNT = next(name for name in (f"acct-{n}" for n in range(99)) if partition_of(name, PARTITIONS) == 0)
BYTES = bytes(range(256))
ODD_HEADERS = (("content-type", b"\x00\xff"), ("\\N\t\0 名\udc80", b""), ("null", None), (FORWARD_NUMBER_HEADER, b"7"))


def rejecting(books: Books, *suspense: SuspenseRecord) -> CommitRecord:
    """Return a commit of rejected usage records."""
    record = books.burning([next(iter(books.accounts))])
    record.counts = CommitCounts(rejected=len(suspense))
    start = record.positions[0].start
    books.offsets["usage.events"] = start + len(suspense)
    return replace(
        record,
        positions=[replace(record.positions[0], end=start + len(suspense))],
        suspense=list(suspense),
        changes=type(record.changes)(),
        postings=[],
        rollups=[],
        dedupe=type(record.dedupe)(),
    )


def odd(
    offset: int, value: bytes | None = BYTES, reason: str = "no_price", account: str | None = "a1"
) -> SuspenseRecord:
    rejection = record_refusal(reason, "detail with\ttab, \\ and 中文", "urn:s\\N", "id-1", 2**63 - 1, account)
    return SuspenseRecord(USAGE_TOPIC, PlainRecord(offset, 1_000 + offset, b"k\xff", value, ODD_HEADERS), rejection)  # type: ignore[arg-type]


@pytest.fixture
def opened(database: PreparedDatabase) -> Database:
    return Database(database.app_url, pool_size=2)


def all_of(database: Database, **wanted: object) -> list[stored.Listed]:
    return list(stored.listed(database, stored.Wanted(**({"only_open": False} | wanted))))  # type: ignore[arg-type]


def test_a_rejected_record_is_kept_as_it_came(database: PreparedDatabase, store: Store, opened: Database) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    bare = SuspenseRecord(USAGE_TOPIC, PlainRecord(1, 1_001, None, None), record_refusal("invalid_json", "no value"))
    store.commit(epoch, rejecting(books, odd(0), bare))
    about, kept = stored.shown(opened, RecordPlace(USAGE_TOPIC, 0, 0)) or pytest.fail("not there")
    assert (about.log_time_us, about.reason, about.size, about.state, about.sent_to) == (
        *(1_000_000, "no_price", 256, "open", None),
    )
    assert about.detail == "detail with\ttab, \\ and 中文"
    assert kept.held == SuspendedRecord(
        *(RecordPlace(USAGE_TOPIC, 0, 0), "no_price", "urn:s\\N", "id-1", 2**63 - 1, "a1", b"k\xff", ODD_HEADERS, BYTES)
    )
    _, empty = stored.shown(opened, RecordPlace(USAGE_TOPIC, 0, 1)) or pytest.fail("not there")
    assert empty.held == SuspendedRecord(RecordPlace(USAGE_TOPIC, 0, 1), "invalid_json", *([None] * 5), (), None)
    assert stored.shown(opened, RecordPlace(USAGE_TOPIC, 0, 2)) is None
    outcome = audit(database.report_url)
    assert outcome.passed, outcome
    assert ("open suspense", ("invalid_json: 1", "no_price: 1")) in [(f.name, f.shown) for f in outcome.findings]


def test_what_is_small_only_when_compressed_is_kept_small(
    database: PreparedDatabase, store: Store, opened: Database
) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    large, mixed = bytes(64 << 20), BYTES * 5_000
    store.commit(epoch, rejecting(books, odd(0, large), odd(1, mixed)))
    for offset, value in ((0, large), (1, mixed)):
        about, kept = stored.shown(opened, RecordPlace(USAGE_TOPIC, 0, offset)) or pytest.fail("not there")
        assert (about.size, kept.held.value == value) == (len(value), True)
    assert database.run("SELECT sum(octet_length(value)) < 100000 FROM suspense") == [(True,)]
    assert audit(database.report_url).passed


def test_rows_are_chosen_and_sorted_by_time(store: Store, opened: Database) -> None:
    for partition in (1, 0):
        books = Books(partition)
        epoch, _ = store.acquire(partition)
        store.commit(epoch, books.opening([f"a{partition}"]))
        rows = [odd(n, reason=("no_price", "overflow")[n % 2], account=(None, "a1")[n // 2]) for n in range(4)]
        store.commit(epoch, rejecting(books, *rows))

    def places(**wanted: object) -> list[str]:
        return [str(one.place)[len("usage.events/") :] for one in all_of(opened, **wanted)]

    assert places() == ["0/0", "1/0", "0/1", "1/1", "0/2", "1/2", "0/3", "1/3"]
    assert places(reason="overflow", account="a1") == ["0/3", "1/3"]
    assert places(from_us=1_001_000, to_us=1_002_000) == ["0/1", "1/1"]
    with opened.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        [one] = resubmission.places([RecordPlace(USAGE_TOPIC, 1, 0)])
        resubmission.note([stored.Resolution(one.key, RecordPlace(USAGE_TOPIC, 1, 4), None)], "wang")
    assert places(reason="no_price", only_open=True) == ["0/0", "0/2", "1/2"]


def test_what_became_of_a_record_sent_again(store: Store, opened: Database) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, rejecting(books, odd(0), odd(1)))

    def states() -> list[str]:
        return [one.state for one in all_of(opened)]

    with opened.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        first, second = resubmission.places([RecordPlace(USAGE_TOPIC, 0, 0), RecordPlace(USAGE_TOPIC, 0, 1)])
        assert not first.resolved
        resubmission.note([stored.Resolution(first.key, RecordPlace(USAGE_TOPIC, 0, 2), None)], "wang")
        resubmission.note([stored.Resolution(second.key, RecordPlace(USAGE_TOPIC, 0, 3), b"{}")], "wang")
    assert states() == ["resubmitted", "resubmitted"]
    store.commit(epoch, rejecting(books, odd(2)))
    assert states() == ["rejected_again", "resubmitted", "open"]
    store.commit(epoch, books.burning(["a1"]))
    assert states() == ["rejected_again", "rated", "open"]
    assert set(states()) | {"resubmitted"} == set(STATES)
    about, kept = stored.shown(opened, RecordPlace(USAGE_TOPIC, 0, 1)) or pytest.fail("not there")
    assert (about.sent_to, about.resolved_by, kept.resolved) == (RecordPlace(USAGE_TOPIC, 0, 3), "wang", True)


def test_pages_go_through_everything_open_at_the_beginning(
    store: Store, opened: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "PAGE_BYTES", 600)  # Three records of 256 bytes reach this size.
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, rejecting(books, *(odd(n) for n in range(5))))
    seen: list[list[int]] = []
    with opened.transaction() as connection:
        commits = stored.ResubmissionTransaction(connection).commits()
    store.commit(epoch, rejecting(books, odd(5)))
    after = (-1, 0, 0)
    while True:
        with opened.transaction() as connection:
            resubmission = stored.ResubmissionTransaction(connection)
            page = resubmission.page(stored.Wanted(), commits, after)
            resubmission.note(
                [stored.Resolution(one.key, RecordPlace(USAGE_TOPIC, 0, 99), None) for one in page], "wang"
            )
        if not page:
            break
        seen.append([one.held.place.offset for one in page])
        after = page[-1].key
    assert seen == [[0, 1, 2], [3, 4]]
    assert [one.place.offset for one in all_of(opened, only_open=True)] == [5]


def test_a_commit_that_lacks_a_row_is_found(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, replace(rejecting(books, odd(0)), suspense=[]))
    assert [one.name for one in audit(database.report_url).checks if one.count] == ["suspense"]


@pytest.mark.parametrize("change", ["DELETE FROM suspense", "UPDATE suspense SET value = 'x'",
                                    "UPDATE suspense SET reason = 'overflow'", "UPDATE suspense SET row_no = 2",
                                    "UPDATE suspense SET commit_no = 99"])  # fmt: skip
def test_what_a_superuser_changes_is_found(database: PreparedDatabase, store: Store, change: str) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, rejecting(books, odd(0)))
    database.run("ALTER TABLE suspense DISABLE TRIGGER append_only", change)
    assert CHAIN in [one.name for one in audit(database.report_url).checks if one.count]


def test_commits_from_before_suspense_was_kept_pass(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, replace(rejecting(books, odd(0)), suspense=[]))
    database.run("UPDATE partition_state SET suspense_after = commit_no")
    assert [one.name for one in audit(database.report_url).checks if one.count] == [ROWS]
    with database.connect() as connection:
        assert list(check_chain(connection, 0)) == []


def test_records_of_one_event_stand_together_and_are_known_as_copies(store: Store, opened: Database) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    other = odd(1)
    other = replace(other, rejection=record_refusal("no_price", "d", "urn:s", "other", None, "a1"))
    store.commit(epoch, rejecting(books, odd(0), other, odd(2), odd(3, value=b"other"), odd(4, account=None)))
    assert [(one.place.offset, one.copies) for one in all_of(opened)] == [(0, 3), (2, 3), (3, 3), (1, 1), (4, 1)]
    with opened.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        chosen = list(resubmission.places(RecordPlace(USAGE_TOPIC, 0, offset) for offset in (0, 1, 4)))
        copies = resubmission.copies(chosen)
        planned = resubmissions([one.key for one in chosen], copies)
        assert [(one.send, one.resolved) for one in planned] == [
            ((0, 2, 1), ((0, 2, 1), (0, 2, 3))),
            ((0, 2, 2), ((0, 2, 2),)),
            ((0, 2, 5), ((0, 2, 5),)),
        ]
        assert planned[0].differing == (RecordPlace(USAGE_TOPIC, 0, 3),)
        sent_to = RecordPlace(USAGE_TOPIC, 0, 5)
        resubmission.note([stored.Resolution(key, sent_to, None) for key in planned[0].resolved], "wang")
    store.commit(epoch, books.burning(["a1"]))
    with opened.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        chosen = list(resubmission.places([RecordPlace(USAGE_TOPIC, 0, 3)]))
        [left] = resubmissions([chosen[0].key], resubmission.copies(chosen))
        assert (left.send, left.resolved, left.sent_to, left.differing) == (None, (), sent_to, (chosen[0].held.place,))
        [again] = resubmissions([chosen[0].key], resubmission.copies(chosen), again=True)
        assert (again.send, again.resolved) == (chosen[0].key, (chosen[0].key,))


def test_an_event_that_came_again_after_it_was_resubmitted_is_not_sent_again(store: Store, opened: Database) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.opening(["a1"]))
    store.commit(epoch, rejecting(books, odd(0)))
    sent_to = RecordPlace(USAGE_TOPIC, 0, 1)
    with opened.transaction() as connection:
        stored.ResubmissionTransaction(connection).note([stored.Resolution((0, 2, 1), sent_to, None)], "wang")
    store.commit(epoch, books.burning(["a1"]))
    store.commit(epoch, rejecting(books, odd(2)))
    with opened.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        page = resubmission.page(stored.Wanted(), resubmission.commits(), (-1, 0, 0))
        [planned] = resubmissions([one.key for one in page], resubmission.copies(page))
    assert (planned.send, planned.resolved, planned.sent_to) == (None, ((0, 4, 1),), sent_to)


def test_a_resolution_of_nothing_is_refused(opened: Database) -> None:
    with pytest.raises(BrokenInvariant), opened.transaction() as connection:
        resolution = stored.Resolution((0, 1, 1), RecordPlace(USAGE_TOPIC, 0, 1), None)
        stored.ResubmissionTransaction(connection).note([resolution], "wang")


# Decided by the engine


def usage(number: int, **changes: object) -> dict[str, object]:
    return {
        "specversion": "1.0", "type": "token.usage.v1", "source": "urn:node-1", "id": f"e-{number}",
        "sequence": str(number), "time": "2026-11-22T01:00:00Z", "subject": ACCOUNT,
        "data": {"model": "m", "usage": {"input": 1_000_000}}, **changes,
    }  # fmt: skip


def decide(store: Store, catalog: Catalog, topic: str, values: Sequence[bytes | None]) -> CommitRecord:
    """Decide and commit records of one topic, by a new owner of partition 0."""
    epoch, state = store.acquire(0)
    engine = PartitionEngine(state, store.catalog_epoch(), catalog, store, PlainCalculator())
    start = state.positions[topic]
    records = [
        PlainRecord(start + number, NOW_US // 1000, ACCOUNT.encode(), value) for number, value in enumerate(values)
    ]
    record = engine.decide([InputBatch(topic, start, start + len(records), records)])
    store.commit(epoch, record)
    return record


def test_rejected_usage_is_rated_once_after_its_account_was_opened(
    database: PreparedDatabase, store: Store, opened: Database, catalog_of: Callable[..., Catalog]
) -> None:
    catalog = catalog_of((1, "2026-11-01T00:00:00+08:00", "2"))
    store.publish(catalog)
    event = json.dumps(usage(1)).encode()
    nul = json.dumps(usage(2, id="\0", data={"model": "m", "usage": {"\0\udc00": 1}})).encode()
    first = decide(store, catalog, USAGE_TOPIC, [event, nul, b'"\\u0000"', None])
    assert first.counts == CommitCounts(rejected=4)
    opening = {
        "specversion": "1.0", "type": "account.opened.v1", "source": "urn:crm", "id": "o", "subject": ACCOUNT,
        "time": "2026-11-22T01:00:00Z", "data": {"currency": "CNY", "price_book": "retail-cn"},
    }  # fmt: skip
    decide(store, catalog, COMMAND_TOPIC, [json.dumps(opening).encode()])
    for expected in (CommitCounts(rated=1), CommitCounts(duplicate=1)):
        with opened.transaction() as connection:
            resubmission = stored.ResubmissionTransaction(connection)
            [kept] = resubmission.places([RecordPlace(USAGE_TOPIC, 0, 0)])
            again = as_it_was(kept.held, resubmission.partitions())
            assert (again.partition, again.key, again.value) == (0, ACCOUNT.encode(), event)
            sent_to = RecordPlace(USAGE_TOPIC, 0, store.positions([0])[USAGE_TOPIC, 0])
            resubmission.note([stored.Resolution(kept.key, sent_to, None)], "wang")
        assert decide(store, catalog, USAGE_TOPIC, [again.value]).counts == expected
    assert [one.state for one in all_of(opened)] == ["rated", "open", "open", "open"]
    assert audit(database.report_url).passed


# Rules of a resubmission


def held(reason: str = "unknown_account", **changes: object) -> SuspendedRecord:
    plain = SuspendedRecord(
        RecordPlace("usage.forwarded", 1, 5), reason, "urn:node-1", "e-1", 1, ACCOUNT, b"k", ODD_HEADERS, b"{}"
    )  # type: ignore[arg-type]
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_a_record_goes_to_its_account_without_the_numbers_of_its_forwarding() -> None:
    again = as_it_was(held(), PARTITIONS)
    assert (again.partition, again.key, again.headers, again.value) == (0, b"k", ODD_HEADERS[:3], b"{}")
    assert as_it_was(held(account=None), PARTITIONS).partition == 1


@pytest.mark.parametrize("changes", [{"id": "other"}, {"source": "urn:other"}, {"sequence": "2"}, {"sequence": None}])
def test_a_repair_keeps_the_identity(changes: dict[str, object]) -> None:
    event = json.dumps({name: value for name, value in (usage(1) | changes).items() if value is not None}).encode()
    made = repaired(held(), event, PARTITIONS, frozenset())
    assert isinstance(made, Refusal)
    assert "a repair keeps the identity" in made.detail


def test_a_repair_is_sent_as_a_structured_event() -> None:
    event = json.dumps(usage(1, data={"model": "m", "usage": {"gpu_joules": 1}})).encode()
    binary = held("invalid_event", headers=(("CE_id", b"x"), ("trace", b"t"), *ODD_HEADERS), account=None)
    made = repaired(binary, event, PARTITIONS, frozenset(["gpu_joules"]))
    assert not isinstance(made, Refusal)
    assert (made.partition, made.key, made.value) == (0, ACCOUNT.encode(), event)
    kept = (("trace", b"t"), *ODD_HEADERS[1:3])
    assert made.headers == (*kept, ("content-type", b"application/cloudevents+json"))
    refused = repaired(binary, event, PARTITIONS, frozenset())
    assert isinstance(refused, Refusal)
    assert refused.code == "unknown_meter"


def test_a_reused_number_is_repaired_by_another() -> None:
    refused = repaired(held("sequence_reused"), json.dumps(usage(1, id="e-2")).encode(), PARTITIONS, frozenset())
    assert isinstance(refused, Refusal)
    assert "used by another event" in refused.detail
    made = repaired(held("sequence_reused"), json.dumps(usage(2)).encode(), PARTITIONS, frozenset())
    assert not isinstance(made, Refusal)


@pytest.mark.parametrize("text", ["usage.events", "usage.events/1", "usage.events/1/x", "/1/2", "a/1/2/3", "a/-1/2",
                                  "a/1/99999999999999999999", "a/²/1"])  # fmt: skip
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ValueError, match="is not the place of a record"):
        parse_place(text)


def test_places_are_read_as_they_are_written() -> None:
    place = RecordPlace("usage.events", 3, 1042)
    assert parse_place(str(place)) == place


def test_every_reason_has_advice() -> None:
    assert tuple(ADVICE) == REASONS
    assert all(one.zh and one.en for one in ADVICE.values())
