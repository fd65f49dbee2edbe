"""The outbox returns complete commits in order, deletes published rows, and notifies the relay of new ones."""

import threading
from collections.abc import Iterator

import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.commits.commit_record import OutboxRow
from billing.errors import DatabaseDown
from billing.store.proofs.lag import input_positions, outbox_depth
from billing.store.store import Store


@pytest.fixture
def published_store(store: Store) -> Iterator[Store]:
    """A store with three commits: 1 has topics out of order, 2 has no output, 3 has one topic."""
    books = Books()
    epoch, _ = store.acquire(0)
    first = books.opening(["a1"])
    first.outbox += [
        OutboxRow("usage.rejected", 1, 1, b"r" * 100),
        OutboxRow("usage.forwarded", 1, 1, b"f" * 100),
        OutboxRow("usage.rated", 1, 1, b"u" * 100),
    ]
    first.next_sequences |= {"usage.rejected": 2, "usage.forwarded": 2, "usage.rated": 2}
    books.sequences["usage.rated"] = 2
    store.commit(epoch, first)
    second = books.burning(["a1"])
    second.outbox, second.next_sequences = [], {}
    books.sequences["usage.rated"] = 2
    store.commit(epoch, second)
    store.commit(epoch, books.burning(["a1"]))
    yield store


def test_rows_come_in_commit_order_and_a_fixed_order_of_topics(published_store: Store) -> None:
    rows = published_store.outbox_read(0, 0, 1 << 20).rows
    assert [(commit_no, row.topic) for commit_no, row in rows] == [
        (1, "usage.forwarded"), (1, "usage.rated"), (1, "account.events"), (1, "usage.rejected"), (3, "usage.rated"),
    ]  # fmt: skip
    assert rows[0][1] == OutboxRow("usage.forwarded", 1, 1, b"f" * 100)
    assert published_store.outbox_read(0, 1, 1 << 20).rows == rows[4:]
    assert published_store.outbox_read(0, 3, 1 << 20).rows == []
    assert published_store.outbox_read(1, 0, 1 << 20).rows == []


def test_a_limit_of_bytes_never_splits_a_commit(published_store: Store) -> None:
    assert {commit_no for commit_no, _ in published_store.outbox_read(0, 0, 1).rows} == {1}
    assert len(published_store.outbox_read(0, 0, 0).rows) == 4
    assert {commit_no for commit_no, _ in published_store.outbox_read(0, 0, 429).rows} == {1, 3}


def test_what_is_published_is_dropped_and_remembered(database: PreparedDatabase, published_store: Store) -> None:
    assert outbox_depth(database.app_url) == 7
    published_store.outbox_delete(0, 1)
    assert [commit_no for commit_no, _ in published_store.outbox_read(0, 1, 1 << 20).rows] == [3]
    assert published_store.published(0) == 1
    published_store.outbox_delete(0, 0)
    assert published_store.published(0) == 1
    assert outbox_depth(database.app_url) == 1


def test_a_commit_is_heard_at_once(store: Store) -> None:
    books = Books(3)
    epoch, _ = store.acquire(3)
    with store.listen() as listener:
        assert listener.wait(0.05) == set()
        committing = threading.Timer(0.1, lambda: store.commit(epoch, books.opening(["a1"])))
        committing.start()
        assert listener.wait(30) == {3}
        committing.join()


def test_a_listener_whose_server_went_away_says_so(database: PreparedDatabase, store: Store) -> None:
    with store.listen() as listener:
        database.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name ="
                     " 'tokenbill listener' AND datname = current_database()")  # fmt: skip
        with pytest.raises(DatabaseDown):
            listener.wait(30)


def test_positions_are_told_without_owning_a_partition(database: PreparedDatabase, published_store: Store) -> None:
    positions = input_positions(database.app_url)
    assert len(positions) == 16
    assert (positions["account.commands", 0], positions["usage.events", 0], positions["usage.events", 1]) == (3, 2, 0)
    assert published_store.acquire(0)[0] == 2


def test_the_size_of_the_outbox_and_the_times_of_commits(database: PreparedDatabase, published_store: Store) -> None:
    times = dict(database.run("SELECT commit_no, log_time_us FROM commit WHERE partition = 0"))
    (number, records, size, oldest), *others = published_store.outbox_sizes()
    rows = [row for _, row in published_store.outbox_read(0, 0, 1 << 20).rows]
    assert (number, records, size) == (0, sum(row.records for row in rows), sum(len(row.payload) for row in rows))
    assert oldest == times[1]
    assert others and all(one[1:] == (0, 0, None) for one in others)
    published_store.outbox_delete(0, 1)
    assert published_store.outbox_sizes()[0][3] == times[3]
    published_store.outbox_delete(0, 3)
    assert published_store.outbox_sizes()[0] == (0, 0, 0, None)
    assert sorted(published_store.log_times([(0, 1, 2), (0, 3, 3), (1, 1, 9)])) == [
        (0, times[1]), (0, times[2]), (1, times[3]),
    ]  # fmt: skip
    assert published_store.log_times([]) == []
