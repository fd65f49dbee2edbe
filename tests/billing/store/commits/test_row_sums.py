"""Commits carry the sums of rows forward: a change from elsewhere is never taken over."""

from dataclasses import replace

import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.commits.copy_text import account_row
from billing.commits.identities import SourceState
from billing.commits.row_hashes import row_hash
from billing.errors import BrokenInvariant, CatalogMoved, Fenced
from billing.store.proofs.audit import ROWS, audit
from billing.store.store import Store


def failing(database: PreparedDatabase) -> tuple[str, ...]:
    [rows] = [result for result in audit(database.report_url).checks if result.name == ROWS]
    return rows.shown


def opened(store: Store, books: Books) -> int:
    epoch, _ = store.acquire(books.partition)
    store.commit(epoch, books.opening(["a1", "a2"]))
    store.commit(epoch, books.burning(["a1", "a2"]))
    return epoch


def test_a_wallet_raised_before_the_worker_reads_it_stays_found(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    opened(store, books)
    database.run("UPDATE account SET wallet_pico = wallet_pico + 50 WHERE account = 'a1'")
    epoch, _ = store.acquire(0)
    [raised] = store.load_accounts(["a1"])
    # The worker decides with what it read, and writes the whole row with a hash that fits it.
    record = books.burning(["a2"])
    record.changes.accounts_changed = account_row(raised)
    store.commit(epoch, record)
    store.commit(epoch, books.burning(["a2"]))
    assert failing(database) == (
        "partition 0: 1 rows were read that no commit had written so; findings of the kind row_changed name them",
    )
    assert database.run("SELECT kind, detail FROM finding") == [
        ("row_changed", "partition 0: account (account a1) is not as a commit wrote it")
    ]


def test_a_wallet_raised_with_its_hash_stays_found(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch = opened(store, books)
    row = replace(books.accounts["a1"], wallet_pico=7)
    hashed = row_hash("account", 0, account_row(row)[:-1])
    database.run(f"UPDATE account SET wallet_pico = 7, row_hash = '\\x{hashed.hex()}' WHERE account = 'a1'")
    assert store.load_accounts(["a1"])[0].wallet_pico == 7
    changed = books.burning(["a2"])
    changed.changes.accounts_changed = account_row(row)
    store.commit(epoch, changed)
    assert failing(database) == ("partition 0: account: the rows are not those that were committed",)


def test_terms_changed_behind_the_worker_are_named(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch = opened(store, books)
    database.run("UPDATE bucket SET amount_micro = amount_micro + 1, unit = 'CNY' WHERE account = 'a1'")
    store.commit(epoch, books.burning(["a1", "a2"]))
    assert failing(database)[0] == (
        "partition 0: bucket (account a1, grant_id g1/1): the row is not as a commit wrote it"
    )


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE dedupe_source SET numbered = false", "dedupe_source (source urn:node-1)"),
        ("UPDATE book_time SET max_event_time_us = 1", "book_time (name retail-cn)"),
        ("UPDATE row_sum SET rows = 9 WHERE table_name = 'bucket'", "row_sum"),
        ("DELETE FROM row_sum", "row_sum"),
    ],
)
def test_what_a_partition_is_loaded_from_is_checked(
    database: PreparedDatabase, store: Store, statement: str, named: str
) -> None:
    books = Books()
    opened(store, books)
    database.run(statement)
    epoch, _ = store.acquire(0)
    store.commit(epoch, books.burning(["a1"]))
    assert database.run("SELECT detail FROM finding") == [(f"partition 0: {named} is not as a commit wrote it",)]
    assert failing(database)


def test_a_commit_that_is_refused_changes_no_sum(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch = opened(store, books)
    record = books.burning(["a1"])
    with pytest.raises(CatalogMoved):
        store.commit(epoch, replace(record, catalog_epoch=9))
    wrong = replace(record, changes=replace(record.changes, buckets_changed=b"a9" + record.changes.buckets_changed[2:]))
    with pytest.raises(BrokenInvariant):
        store.commit(epoch, wrong)
    store.commit(epoch, record)
    assert failing(database) == ()


def test_only_the_epoch_that_was_acquired_here_is_committed(store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    with pytest.raises(Fenced):
        store.commit(epoch + 1, books.opening(["a1"]))


def test_a_source_written_again_and_again_counts_once(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch = opened(store, books)
    for number in range(3):
        record = books.burning(["a1"])
        record.dedupe.sources = [SourceState(f"urn:s{n}", True, ((1, number + 1),)) for n in range(5)]
        record.forward_next = {("usage.forwarded", 1): number + 1}
        record.forward_cursors = {("usage.forwarded", 2): number + 1}
        store.commit(epoch, record)
    assert failing(database) == ()
    [(rows,)] = database.run("SELECT rows FROM row_sum WHERE table_name = 'dedupe_source' AND partition = 0")
    assert rows == 6
