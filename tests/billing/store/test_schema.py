"""Protection of the books by the schema itself: privileges of the roles, and append-only tables."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from own_database import PreparedDatabase
from sqlalchemy import create_engine
from store_records import Books

from billing.store.database import schema_url
from billing.store.migrate import APP, OWNER, REPORT, migrate
from billing.store.store import Store
from billing.store.tables import metadata

APPEND_ONLY = (
    "journal",
    "commit",
    "rollup",
    "command_seen",
    "payment_ref",
    "catalog_entry",
    "suspense",
    "suspense_resolution",
    "partition_resume",
    "row_acceptance",
    "conflict",
    "conflict_resolution",
)


@pytest.mark.parametrize("role", [None, OWNER, APP, REPORT])
@pytest.mark.parametrize("table", APPEND_ONLY)
def test_no_role_changes_or_removes_what_was_appended(
    untouched: PreparedDatabase, table: str, role: str | None
) -> None:
    column = "epoch" if table == "catalog_entry" else "partition"
    with untouched.connect(role) as connection:
        for statement in (f"UPDATE {table} SET {column} = 0", f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
            with pytest.raises((psycopg.errors.IntegrityConstraintViolation, psycopg.errors.InsufficientPrivilege)):
                connection.execute(statement)


def test_replica_mode_does_not_switch_the_triggers_off(untouched: PreparedDatabase) -> None:
    with untouched.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="append only"):
            connection.execute("DELETE FROM journal")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE account SET currency = 'USD'",
        "UPDATE bucket SET plan_version = 2",
        "DELETE FROM account",
        "DELETE FROM bucket",
        "DELETE FROM partition_state",
        "INSERT INTO partition_state VALUES (99, 0, 0, 0, '')",
        "UPDATE installation SET value = '5'",
        "DELETE FROM dedupe_source",
        "DELETE FROM finding",
        "UPDATE outbox SET records = 1",
        "UPDATE partition_state SET suspense_after = 9",
        "UPDATE finding SET detail = ''",
        "UPDATE dedupe_hour SET payload = ''",
        "DELETE FROM foreign_record",
        "DELETE FROM record_key",
        "UPDATE record_key SET secret = sha256('x')",
        "UPDATE unsigned_forward SET before_number = 9",
        "UPDATE partition_state SET conflict_after = 9",
        "ALTER TABLE journal DISABLE TRIGGER append_only",
        "CREATE TABLE tokenbill.mine (n integer)",
    ],
)
def test_workers_have_no_right_they_do_not_need(untouched: PreparedDatabase, statement: str) -> None:
    with untouched.connect(APP) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_reports_read_everything_and_write_nothing(untouched: PreparedDatabase) -> None:
    tables = [name for (name,) in untouched.run("SELECT tablename FROM pg_tables WHERE schemaname = 'tokenbill'")]
    assert len(tables) >= 23
    with untouched.connect(REPORT) as connection:
        for table in tables:
            if table != "record_key":
                connection.execute(f"SELECT * FROM {table} LIMIT 1")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT secret FROM record_key")
        for table in tables:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(f"DELETE FROM {table}")


def test_the_owner_cannot_log_in_and_owns_everything(untouched: PreparedDatabase) -> None:
    assert untouched.run(f"SELECT rolcanlogin FROM pg_roles WHERE rolname = '{OWNER}'") == [(False,)]
    owners = untouched.run("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'tokenbill'")
    assert owners == [(OWNER,)]


def test_an_account_without_the_partition_of_a_commit_is_refused(untouched: PreparedDatabase) -> None:
    with untouched.connect(APP) as connection, pytest.raises(psycopg.Error):
        connection.execute("INSERT INTO account VALUES ('a', 'CNY', 'b', 'prepaid', 0, 0, 0, 0, 'open', 0)")


def test_tables_are_as_sqlalchemy_sees_them(untouched: PreparedDatabase) -> None:
    engine = create_engine(schema_url(untouched.admin_url))
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    differences = [d for d in found if not _is_outside(d)]
    assert differences == []


def _is_outside(difference: object) -> bool:
    """Return True for tables and columns that reports do not read, and for indexes and keys.

    Only the migrations define these.
    """
    if isinstance(difference, list):
        return all(map(_is_outside, difference))
    assert isinstance(difference, tuple)
    kind = difference[0]
    if kind == "remove_column":
        return difference[2] == "commit"
    return kind in ("remove_table", "remove_index", "remove_fk")


def test_migrating_again_and_twice_at_once_changes_nothing(new_database: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: migrate(new_database, None, None), range(2)))
    migrate(new_database, None, None)
    prepared = PreparedDatabase(new_database)
    assert prepared.run("SELECT count(*) FROM alembic_version") == [(1,)]
    assert prepared.run("SELECT count(*) FROM catalog_state") == [(1,)]


def test_updates_of_balances_touch_no_index(database: PreparedDatabase, store: Store) -> None:
    books = Books()
    epoch, _ = store.acquire(0)
    names = [f"a{n}" for n in range(200)]
    store.commit(epoch, books.opening(names))
    for _ in range(3):
        store.commit(epoch, books.burning(names))
    store.close()
    with database.connect() as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        for _ in range(50):
            row = connection.execute(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_all_tables WHERE relname = 'bucket'"
            ).fetchone()
            if row and row[0] == 600:
                break
            connection.execute("SELECT pg_sleep(0.1)")
    assert row is not None
    assert row[0] == 600
    assert row[1] > 300
