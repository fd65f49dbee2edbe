"""A database from before the sums of rows: the migration hashes what is there, and the commits go on from it."""

from contextlib import closing

import pytest
from own_database import PreparedDatabase
from store_records import Books

from billing.store import migrate as migration
from billing.store.migrate import migrate
from billing.store.proofs.audit import ROWS, audit
from billing.store.store import Store
from billing.store.summed_tables import SUMMED_TABLES

HASHES = "SELECT account, row_hash FROM account UNION SELECT grant_id, row_hash FROM bucket ORDER BY 1"


def to_the_schema_before(database: PreparedDatabase) -> None:
    """Take back what the revision of the sums of rows made; the commits so far then name no sums."""
    database.run(
        "ALTER TABLE commit DISABLE TRIGGER append_only",
        "DROP TABLE row_sum",
        "ALTER TABLE journal DROP COLUMN account",
        "ALTER TABLE commit DROP COLUMN rows_sha256",
        *(f"ALTER TABLE {table} DROP COLUMN row_hash" for table in SUMMED_TABLES),
        "ALTER TABLE account ALTER COLUMN extras DROP DEFAULT",
        "ALTER TABLE account ALTER COLUMN extras TYPE jsonb USING extras::jsonb",
        "ALTER TABLE account ALTER COLUMN extras SET DEFAULT '{}'",
        "ALTER TABLE commit ENABLE ALWAYS TRIGGER append_only",
        "UPDATE alembic_version SET version_num = '0017'",
    )


def test_rows_of_an_older_version_are_hashed_and_proved_from_then_on(
    database: PreparedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = Books()
    with closing(Store(database.app_url)) as store:
        epoch, _ = store.acquire(0)
        store.commit(epoch, books.opening(["a1", "a\t2\\N", "词元"]))
        store.commit(epoch, books.burning(["a1"]))
    sums = database.run("SELECT * FROM row_sum ORDER BY partition, table_name")
    hashes = database.run(
        "SELECT account, row_hash FROM account UNION SELECT grant_id, row_hash FROM bucket ORDER BY 1"
    )
    newest = database.run("SELECT version_num FROM alembic_version")[0][0]
    to_the_schema_before(database)
    upgrade = migration.command.upgrade
    with monkeypatch.context() as one:
        one.setattr(migration.command, "upgrade", lambda config, _: upgrade(config, "0018"))
        migrate(database.admin_url, None, None)
    database.run(f"UPDATE alembic_version SET version_num = '{newest}'")
    assert database.run("SELECT * FROM row_sum ORDER BY partition, table_name") == sums
    assert database.run(HASHES) == hashes
    with closing(Store(database.app_url)) as store:
        epoch, _ = store.acquire(0)
        assert store.load_accounts(["a1"])[0].wallet_pico == books.accounts["a1"].wallet_pico
        store.commit(epoch, books.burning(["a1", "词元"]))
    [rows] = [result for result in audit(database.report_url).checks if result.name == ROWS]
    assert rows.shown == ()
    assert database.run("SELECT count(*) FROM commit WHERE rows_sha256 IS NOT NULL") == [(1,)]
