"""After a repair by hand two people accept the rows of a table: the audit is clean and lists who accepted what."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from click.testing import CliRunner
from full_books import fill
from own_database import PreparedDatabase
from store_records import Books

from billing.commits.commit_record import PartitionState
from billing.commits.row_hashes import NO_ROWS
from billing.errors import Fenced
from billing.store.api.keys import create_key
from billing.store.database import Database
from billing.store.proofs.audit import ROWS, audit
from billing.store.row_acceptance import AcceptanceRefused, AcceptedRows, RowsToAccept, accept_rows
from billing.store.store import Store
from billing.store.summed_tables import CHANGED_OUTSIDE, READ_WHEN_ACQUIRED, SUMMED_TABLES
from billing.store.two_keys import TwoKeys
from tokenbill.commands.audit import audit as audit_command

KEYS = TwoKeys("k1", "ann", "k2", "bob")


@pytest.fixture
def pool(database: PreparedDatabase) -> Iterator[Database]:
    with closing(Database(database.app_url)) as pool:
        yield pool


@pytest.fixture
def books(database: PreparedDatabase, store: Store) -> PreparedDatabase:
    """Two partitions with rows in every table; the rows that `fill` adds by hand as an acceptance are taken away."""
    fill(database, store)
    return database


def superuser(database: PreparedDatabase, *statements: str) -> None:
    """Run statements without triggers and constraints."""
    with database.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)


def failed(database: PreparedDatabase) -> dict[str, tuple[str, ...]]:
    return {one.name: one.shown for one in audit(database.report_url).checks if one.count and one.name in CARED}


CARED = (ROWS, "accepted rows", "digest chain", "administration")


def accept(pool: Database, table: str, partition: int = 0) -> AcceptedRows:
    return accept_rows(pool, RowsToAccept(partition, table, "restored by hand, INC-91", KEYS))


def commit(store: Store, epoch: int, state: PartitionState) -> None:
    """Commit as a worker does that acquired the partition with this epoch and state."""
    record = replace(
        Books(0).opening([f"new-{state.commit_no}"]),
        commit_no=state.commit_no + 1, positions=[], outbox=[], next_sequences={}, log_time_us=state.log_time_us,
        catalog_epoch=store.catalog_epoch(),
    )  # fmt: skip
    store.commit(epoch, record)


def next_commit(store: Store) -> None:
    """Commit as a worker does that acquires the partition now."""
    commit(store, *store.acquire(0))


REPAIRS = {
    "account": "UPDATE account SET credit_limit_pico = 77 WHERE account = 'a1'",
    "bucket": "UPDATE bucket SET valid_until_us = valid_until_us + 1 WHERE account = 'a1'",
    "book_time": "UPDATE book_time SET max_event_time_us = 5 WHERE partition = 0 AND name = 'retail-cn'",
    "dedupe_hour": "DELETE FROM dedupe_hour WHERE partition = 0 AND row_no = 1",
    "dedupe_recent": "DELETE FROM dedupe_recent WHERE partition = 0 AND source = 'urn:other'",
    "dedupe_source": "UPDATE dedupe_source SET refused = refused || '\\x0000000000000005'"
                     " WHERE partition = 0 AND source = 'urn:other'",
    "finding": "UPDATE finding SET detail = 'mended' WHERE partition = 0 AND row_no = 1",
    "forward_cursor": "INSERT INTO forward_cursor (topic, partition, origin, next_number)"
                      " VALUES ('commands.forwarded', 0, 1, 0)",
    "forward_next": "INSERT INTO forward_next (topic, partition, target, next_number)"
                    " VALUES ('commands.forwarded', 0, 1, 0)",
    "partition_state": "UPDATE partition_state SET unlogged_until_us = unlogged_until_us + 1 WHERE partition = 0",
}  # fmt: skip


def test_every_summed_table_has_a_repair() -> None:
    assert REPAIRS.keys() == SUMMED_TABLES.keys()


@pytest.mark.parametrize("table", REPAIRS)
def test_a_repair_that_is_accepted_passes_every_audit_and_is_listed(
    books: PreparedDatabase, store: Store, pool: Database, table: str
) -> None:
    superuser(books, REPAIRS[table])
    assert ROWS in failed(books)
    done = accept(pool, table)
    assert failed(books) == {}
    assert done.marks == 0
    [shown] = [
        text for one in audit(books.report_url).findings if one.name == "accepted repairs" for text in one.shown[2:]
    ]
    for part in (f"partition 0 commit {done.commit_no}: {table}", "INC-91", "ann with key k1", "bob with key k2"):
        assert part in shown
    assert done.before.to_bytes().hex()[:16] in shown and done.after.to_bytes().hex()[:16] in shown
    [(detail,)] = books.run(f"SELECT detail FROM finding WHERE partition = 0 AND commit_no = {done.commit_no}")
    assert detail.startswith(f"{table} of partition 0: ") and str(done) in detail
    [(logged,)] = books.run(
        "SELECT count(*) FROM administration_log WHERE table_name = 'row_acceptance'"
        f" AND (after->>'commit_no')::bigint = {done.commit_no}"
    )
    assert logged == 1
    next_commit(store)
    assert failed(books) == {}


@pytest.mark.parametrize("table", ["account", *READ_WHEN_ACQUIRED])
def test_a_repair_that_a_worker_read_before_leaves_no_mark(
    books: PreparedDatabase, store: Store, pool: Database, table: str
) -> None:
    superuser(books, REPAIRS[table])
    epoch, state = store.acquire(0)
    store.load_accounts(["a1"])
    commit(store, epoch, state)
    assert any("read that no commit had written so" in text for text in failed(books)[ROWS])
    done = accept(pool, table)
    assert done.marks == 1
    assert failed(books) == {}
    [(rows, total)] = books.run(
        f"SELECT rows, total FROM row_sum WHERE partition = 0 AND table_name = '{CHANGED_OUTSIDE}'"
    )
    assert (rows, bytes(total)) == (0, NO_ROWS.to_bytes())
    next_commit(store)
    assert failed(books) == {}
    with pytest.raises(AcceptanceRefused, match="are as commits wrote them"):
        accept(pool, table)


def test_an_acceptance_is_for_one_table_of_one_partition(books: PreparedDatabase, pool: Database) -> None:
    superuser(
        books,
        REPAIRS["account"],
        REPAIRS["bucket"],
        "UPDATE account SET credit_limit_pico = 77 WHERE account = 'a3'",
    )
    accept(pool, "account")
    left = failed(books)[ROWS]
    assert any("bucket (account a1" in text for text in left)
    assert any("partition 1: account (account a3)" in text for text in left)
    assert not any("account (account a1)" in text for text in left)
    accept(pool, "bucket")
    accept(pool, "account", 1)
    assert failed(books) == {}


def test_a_mark_of_another_table_stays(books: PreparedDatabase, store: Store, pool: Database) -> None:
    superuser(books, REPAIRS["account"], REPAIRS["book_time"])
    epoch, state = store.acquire(0)
    store.load_accounts(["a1"])
    commit(store, epoch, state)
    assert accept(pool, "account").marks == 1
    left = failed(books)[ROWS]
    assert any("rows were read that no commit had written so" in text for text in left), left
    assert accept(pool, "book_time").marks == 2, (
        "the acceptance of the accounts acquired the partition, and read it too"
    )
    assert failed(books) == {}


def test_a_row_that_changes_again_is_found_again(books: PreparedDatabase, store: Store, pool: Database) -> None:
    for value in (77, 78):
        superuser(books, f"UPDATE account SET credit_limit_pico = {value} WHERE account = 'a1'")
        epoch, state = store.acquire(0)
        store.load_accounts(["a1"])
        commit(store, epoch, state)
        assert ROWS in failed(books)
        accept(pool, "account")
        assert failed(books) == {}


def test_inserted_and_deleted_rows_are_accepted(books: PreparedDatabase, pool: Database) -> None:
    superuser(
        books,
        "INSERT INTO bucket SELECT account, 'gift', plan, plan_version, bucket_no, unit, 0, 0, 0, valid_from_us, NULL,"
        " NULL, 0, status, partition, carried_cycles, NULL FROM bucket WHERE account = 'a1'",
        "DELETE FROM dedupe_source WHERE partition = 0 AND source = 'urn:plain'",
    )
    done = accept(pool, "bucket")
    assert (done.after.rows - done.before.rows, done.rehashed) == (1, 1)
    assert accept(pool, "dedupe_source").after.rows == 2
    assert failed(books) == {}


def test_sums_that_were_changed_themselves_are_accepted(books: PreparedDatabase, store: Store, pool: Database) -> None:
    superuser(books, "UPDATE row_sum SET rows = rows + 1 WHERE partition = 0 AND table_name = 'account'")
    assert len(failed(books)[ROWS]) == 2
    accept(pool, "row_sum")
    accept(pool, "account")
    assert failed(books) == {}
    next_commit(store)
    assert failed(books) == {}


def test_what_is_as_it_was_written_is_not_accepted(books: PreparedDatabase, store: Store, pool: Database) -> None:
    epoch, state = store.acquire(0)
    for table, partition, why in (
        ("account", 0, "are as commits wrote them"),
        ("row_sum", 0, "are as commits wrote them"),
        ("journal", 0, "journal has no sums of rows"),
        ("account", 77, "there is no partition 77"),
    ):
        with pytest.raises(AcceptanceRefused, match=why):
            accept(pool, table, partition)
    commit(store, epoch, state)  # Its writer was not fenced.


def test_a_worker_that_held_the_partition_is_fenced(books: PreparedDatabase, store: Store, pool: Database) -> None:
    """It has the row before the repair in memory."""
    epoch, state = store.acquire(0)
    superuser(books, REPAIRS["account"])
    accept(pool, "account")
    with pytest.raises(Fenced):
        commit(store, epoch, state)


def test_an_acceptance_of_money_leaves_the_wallets_to_a_command(books: PreparedDatabase, pool: Database) -> None:
    superuser(books, "UPDATE account SET wallet_pico = wallet_pico + 5 WHERE account = 'a1'")
    accept(pool, "account")
    assert {one.name for one in audit(books.report_url).checks if one.count} & {ROWS, "wallets"} == {"wallets"}


def test_the_command_needs_two_keys_and_says_what_it_accepted(
    books: PreparedDatabase, pool: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKENBILL_DATABASE_URL", books.app_url)
    superuser(books, REPAIRS["account"])
    words = ["accept", "--table", "account", "--partition", "0", "--reason", "INC-91"]
    refused = CliRunner().invoke(audit_command, words)
    assert refused.exit_code == 1 and "TOKENBILL_REQUESTED_KEY" in str(refused.exception)
    monkeypatch.setenv("TOKENBILL_REQUESTED_KEY", create_key(pool, "wang", "admin", None, None)[1])
    monkeypatch.setenv("TOKENBILL_APPROVED_KEY", create_key(pool, "li", "admin", None, None)[1])
    done = CliRunner().invoke(audit_command, words)
    assert done.exit_code == 0, done.output
    assert "partition 0, account: 2 rows with the sum" in done.output
    again = CliRunner().invoke(audit_command, words)
    assert "are as commits wrote them" in str(again.exception)
