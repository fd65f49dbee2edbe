"""Stops of partitions in SQL: recorded once, sent to webhooks, and resumed by two people in a commit of their own."""

import json
from contextlib import closing

import psycopg
import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.commits.partition_stop import PartitionStop
from billing.errors import Fenced
from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.partition_resume import ResumeRefused, Resumption, resume
from billing.store.partition_stops import PARTITION_STOPPED, resumptions, stop_of
from billing.store.past_commits import decisions
from billing.store.proofs.audit import audit
from billing.store.store import Store
from billing.store.two_keys import TwoKeys

HOLE = PartitionStop(1, "missing", "offsets 3 to 4 are missing", "usage.events", 3, 4)
LOST = PartitionStop(1, "forward_lost", "number 8 did not arrive", "usage.forwarded", 0, None, 2, 9)


@pytest.fixture
def used(database: PreparedDatabase, store: Store) -> Books:
    """Partition 1 with one commit of commands and one of three usage events, and the keys of two people."""
    with database.connect("tokenbill_app") as connection:
        connection.execute(
            "INSERT INTO api_key (key_id, name, secret_sha256, role) VALUES"
            " ('k-wang', 'wang', sha256('w'), 'admin'), ('k-li', 'li', sha256('l'), 'admin')"
        )
    books = Books(1)
    epoch, _ = store.acquire(1)
    store.commit(epoch, books.opening(["a", "b", "c"]))
    store.commit(epoch, books.burning(["a", "b", "c"]))
    return books


def asked(topic: str | None = None, after: int | None = None) -> Resumption:
    return Resumption(1, "INC-88", TwoKeys("k-wang", "wang", "k-li", "li"), topic, after)


def failed(database: PreparedDatabase) -> set[str]:
    return {check.name for check in audit(database.report_url).checks if check.count}


def test_a_stop_is_recorded_once_and_sent_once(database: PreparedDatabase, store: Store, used: Books) -> None:
    with closing(Database(database.app_url)) as pool:
        webhooks.add_webhook(pool, "http://127.0.0.1:1/all", None, ())
        webhooks.add_webhook(pool, "http://127.0.0.1:1/alarm", None, (PARTITION_STOPPED,))
        webhooks.add_webhook(pool, "http://127.0.0.1:1/other", None, ("threshold.reached.v1",))
        webhooks.add_webhook(pool, "http://127.0.0.1:1/account", "a", ())
        store.record_stop(HOLE, "worker-1")
        store.record_stop(LOST, "worker-2")
        due = webhooks.take_due(pool, 10)
    assert [(one.worker, one.stop) for one in store.stopped()] == [("worker-1", HOLE)]
    assert (store.stop_of(1), store.stop_of(0)) == (HOLE, None)
    assert sorted(one.url.rsplit("/", 1)[1] for one in due) == ["alarm", "all"]
    event = json.loads(due[0].body)
    assert (event["type"], event["subject"], event["data"]["offset"]) == (PARTITION_STOPPED, "partition-1", 3)
    assert event["data"]["resume"] == HOLE.resume
    assert failed(database) == {"stopped partitions"}


def test_offsets_are_skipped_by_a_commit_that_everybody_can_check(
    database: PreparedDatabase, store: Store, used: Books
) -> None:
    store.record_stop(HOLE, "worker-1")
    with closing(Database(database.app_url)) as pool:
        assert resume(pool, asked("usage.events", 4)) == 3
        assert stop_of(pool, 1) is None
        (kept,) = resumptions(pool, 1)
        commits, _ = decisions(pool, 1)
    assert (kept["first_offset"], kept["last_offset"]) == (3, 4)
    assert (kept["requested_key"], kept["requested_by"]) == ("k-wang", "wang")
    assert (kept["approved_key"], kept["approved_by"]) == ("k-li", "li")
    assert store.positions([1])["usage.events", 1] == 5
    (move,) = commits[-1].moves
    assert (move.start, move.end, move.skipped, move.records) == (3, 5, 2, 0)
    assert failed(database) == set()
    used.offsets["usage.events"], used.commit_no = 5, 3
    epoch, _ = store.acquire(1)
    store.commit(epoch, used.burning(["a"]))
    assert failed(database) == set()


def test_a_lost_forward_is_given_up_and_a_replay_knows_it(
    database: PreparedDatabase, store: Store, used: Books
) -> None:
    store.record_stop(LOST, "worker-1")
    with closing(Database(database.app_url)) as pool:
        assert resume(pool, asked()) == 3
        commits, _ = decisions(pool, 1)
    assert store.acquire(1)[1].forward_cursors == {("usage.forwarded", 2): 9}
    assert (commits[-1].moves, commits[-1].accepted_forwards) == ((), {("usage.forwarded", 2): 9})


def test_nothing_is_sent_to_a_stopped_partition_because_of_time(
    database: PreparedDatabase, store: Store, used: Books
) -> None:
    assert [partition for partition, _ in store.first_due(1 << 62)] == [1]
    store.record_stop(HOLE, "worker-1")
    assert store.first_due(1 << 62) == []


def test_without_offsets_to_skip_it_is_tried_again(database: PreparedDatabase, store: Store, used: Books) -> None:
    store.record_stop(HOLE, "worker-1")
    before = store.positions([1])
    with closing(Database(database.app_url)) as pool:
        assert resume(pool, asked()) is None
    assert (store.stopped(), store.positions([1])) == ([], before)
    assert failed(database) == set()


@pytest.mark.parametrize(
    ("stop", "request_", "why"),
    [
        (None, asked(), "not stopped"),
        (HOLE, asked("usage.events", 2), "skips nothing"),
        (HOLE, asked("usage.rated", 9), "is not an input topic"),
    ],
)
def test_a_wrong_resumption_changes_nothing(
    database: PreparedDatabase, store: Store, used: Books, stop: PartitionStop | None, request_: Resumption, why: str
) -> None:
    if stop is not None:
        store.record_stop(stop, "worker-1")
    before = store.positions([1])
    with closing(Database(database.app_url)) as pool:
        epoch, _ = store.acquire(1)
        with pytest.raises(ResumeRefused, match=why):
            resume(pool, request_)
        if stop is None:
            store.commit(epoch, used.burning(["a"]))  # Its writer is not fenced.
            before["usage.events", 1] += 1
        assert resumptions(pool) == []
    assert (store.positions([1]), store.stop_of(1)) == (before, stop)


def test_a_writer_of_the_epoch_before_is_fenced(database: PreparedDatabase, store: Store, used: Books) -> None:
    epoch, _ = store.acquire(1)
    store.record_stop(HOLE, "worker-1")
    with closing(Database(database.app_url)) as pool:
        resume(pool, asked("usage.events", 4))
    with pytest.raises(Fenced):
        store.commit(epoch, used.burning(["a"]))


@pytest.mark.parametrize(
    "values",
    [
        ("'k-wang'", "'wang'", "'k-li'", "'Wang'"),
        ("'k-wang'", "''", "'k-li'", "'li'"),
        ("'k-wang'", "'wang'", "'k-li'", "''"),
        ("'k-wang'", "'wang'", "'k-wang'", "'li'"),
        ("NULL", "'wang'", "'k-li'", "'li'"),
        ("'k-wang'", "'wang'", "NULL", "'li'"),
    ],
)
def test_the_database_itself_wants_two_keys_and_two_names(
    database: PreparedDatabase, store: Store, used: Books, values: tuple[str, ...]
) -> None:
    with database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(
            "INSERT INTO tokenbill.partition_resume (partition, kind, stop_reason, worker, stopped_at, reason,"
            " requested_key, requested_by, approved_key, approved_by)"
            f" VALUES (1, 'missing', 'r', 'w', now(), 'r', {', '.join(values)})"
        )


def test_the_database_wants_keys_that_exist(database: PreparedDatabase, store: Store, used: Books) -> None:
    with database.connect() as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute(
            "INSERT INTO tokenbill.partition_resume (partition, kind, stop_reason, worker, stopped_at, reason,"
            " requested_key, requested_by, approved_key, approved_by)"
            " VALUES (1, 'missing', 'r', 'w', now(), 'r', 'k-wang', 'wang', 'invented', 'li')"
        )
