"""A superuser changes, empties, swaps, inserts and deletes in every column of every table: the audit finds it.

The tables and columns are those that the database lists, so a new one is tested by being there. Each change is made in
a transaction of its own on one database, audited there and rolled back. What the audit cannot find is listed with its
reason in docs/reference/what-audit-finds.md, and must not be found.
"""

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from full_books import fill
from own_database import PreparedDatabase, dropped_afterwards, in_database
from sqlalchemy import make_url

from billing.catalog import load_folder
from billing.commits.row_hashes import with_hashes
from billing.store.database import IntegerLoader
from billing.store.proofs.audit import audit_in
from billing.store.store import Store
from billing.store.summed_tables import SUMMED_TABLES

ROOT = Path(__file__).parents[4]
PAGE = ROOT / "docs" / "reference" / "what-audit-finds.md"
CATALOG = ROOT / "examples" / "catalog"
LISTED = re.compile(r"^\| `(\w+)` \| `(\*|[\w ]+)` \|", re.MULTILINE)
ROWS = "whole rows"
FAILS_BY_ITSELF = ("partition_stop",)
"""Tables in which any row makes the audit fail."""
BEGIN, END = "<!-- the table begins -->\n", "<!-- the table ends -->\n"

CHANGED: dict[str, str] = {
    "integer": "{0} + 1",
    "bigint": "{0} + 1",
    "numeric": "{0} + 1",
    "text": "{0} || 'x'",
    "character varying": "{0} || 'x'",
    "bytea": "{0} || '\\x00'",
    "boolean": "NOT {0}",
    "jsonb": "CASE jsonb_typeof({0}) WHEN 'array' THEN {0} || '[[\"x\", 1, 1]]' ELSE {0} || '{{\"x\": 1}}' END",
    "json": "regexp_replace({0}::text, '\\}}$', ',\"x\":1}}')::json",
    "timestamp with time zone": "{0} + interval '1 second'",
    "ARRAY": "{0} || '{{x}}'",
}
"""By type of a column: an expression for a value near the one that is there."""
FILLED: dict[str, str] = {
    "integer": "1",
    "bigint": "1",
    "text": "'x'",
    "bytea": "'\\x00'",
    "timestamp with time zone": "now()",
    "jsonb": "'{}'",
}
"""By type of a column that may be null: a value in place of null."""


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """A column as the database lists it. ``key``: it is part of the primary key."""

    table: str
    name: str
    type: str
    nullable: bool
    key: bool

    @property
    def sql(self) -> str:
        """The name as SQL takes it, whatever word it is."""
        return f'"{self.name}"'


@dataclass(slots=True)
class FoundBy:
    """Names of the checks that found each change of a column, or of whole rows; none where it was not found."""

    by: dict[str, frozenset[str]] = field(default_factory=dict)

    def note(self, change: str, checks: set[str]) -> None:
        known = self.by.get(change)
        self.by[change] = frozenset(checks) if known is None else known & checks


@pytest.fixture(scope="module")
def filled(server_url: str, template: str) -> Iterator[PreparedDatabase]:
    """A database with rows in every table, all consistent."""
    with dropped_afterwards(server_url) as url:
        with psycopg.connect(in_database(template, "postgres"), autocommit=True) as connection:
            names = (make_url(one).database for one in (url, template))
            connection.execute("CREATE DATABASE {} TEMPLATE {}".format(*names))
        database = PreparedDatabase(url)
        with closing(Store(database.app_url)) as store:
            store.publish(load_folder(CATALOG))
            fill(database, store)
        yield database


@pytest.fixture(scope="module")
def superuser(filled: PreparedDatabase) -> Iterator[psycopg.Connection]:
    """A session that no foreign key and no trigger stops."""
    with psycopg.connect(filled.admin_url) as connection:
        connection.execute("SET search_path = tokenbill")
        connection.execute("SET session_replication_role = replica")
        connection.adapters.register_loader("numeric", IntegerLoader)
        guards = connection.execute(
            "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname IN ('append_only', 'administration')"
        )
        for table, guard in guards.fetchall():
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER {guard}")
        counted = connection.execute("SELECT table_name, column_name FROM information_schema.columns WHERE"
                                     " table_schema = 'tokenbill' AND is_identity = 'YES'")  # fmt: skip
        for table, column in counted.fetchall():
            connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} DROP IDENTITY")
        connection.commit()
        yield connection


def failing_checks(connection: psycopg.Connection, table: str, statement: str) -> set[str] | None:
    """Run a statement without the constraints of its table; return the checks that fail, None if it changes nothing."""
    try:
        for (name,) in connection.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass AND contype <> 'n'", (table,)
        ).fetchall():
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name} CASCADE")
        for (name,) in connection.execute(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND indisunique", (table,)
        ).fetchall():
            connection.execute(f"DROP INDEX {name}")
        before = _contents(connection, table)
        connection.execute(statement.encode())
        if _contents(connection, table) == before:
            return None
        return {result.name for result in audit_in(connection).checks if result.count}
    finally:
        connection.rollback()


def _contents(connection: psycopg.Connection, table: str) -> object:
    """Return a digest of the rows of a table, in any order."""
    return connection.execute(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} AS t").fetchone()


def columns(database: PreparedDatabase) -> dict[str, list[ColumnFacts]]:
    """Return the columns of every table of the schema."""
    rows = database.run(
        "SELECT c.table_name, c.column_name, c.data_type, c.is_nullable = 'YES', k.column_name IS NOT NULL"
        " FROM information_schema.columns AS c JOIN information_schema.tables AS t USING (table_schema, table_name)"
        " LEFT JOIN information_schema.table_constraints AS p ON p.table_schema = c.table_schema"
        "  AND p.table_name = c.table_name AND p.constraint_type = 'PRIMARY KEY'"
        " LEFT JOIN information_schema.key_column_usage AS k ON k.constraint_schema = p.constraint_schema"
        "  AND k.constraint_name = p.constraint_name AND k.column_name = c.column_name"
        " WHERE c.table_schema = 'tokenbill' AND t.table_type = 'BASE TABLE' ORDER BY 1, c.ordinal_position"
    )
    found: dict[str, list[ColumnFacts]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(ColumnFacts(*row))
    return found


def changes_of(table: str, listed: list[ColumnFacts], rows: int) -> Iterator[tuple[str, str, str]]:
    """Yield (column, kind of change, statement) for every change of a table that has this many rows.

    The first and the last row are changed, one at a time.
    """
    for place in sorted({0, rows - 1}):
        yield ROWS, "deleted", f"DELETE FROM {table} WHERE ctid = {_place(table, f'OFFSET {place}')}"
        yield ROWS, "inserted", _insert(table, listed, place)
        for column in listed:
            new = CHANGED[column.type].format(column.sql)
            yield column.name, "changed", _update(table, column, new, f"OFFSET {place}")
    for column in listed:
        yield column.name, "swapped", _swap(table, column)
        if column.nullable:
            known, unknown = (f"WHERE {column.sql} IS {text} NULL" for text in ("NOT", ""))
            yield column.name, "changed", _update(table, column, CHANGED[column.type].format(column.sql), known)
            yield column.name, "emptied", _update(table, column, "NULL", known)
            yield column.name, "filled", _update(table, column, FILLED[column.type], unknown)


def _place(table: str, which: str) -> str:
    condition, _, offset = which.partition("OFFSET")
    return f"(SELECT ctid FROM {table} {condition} ORDER BY ctid OFFSET {offset or 0} LIMIT 1)"


def _update(table: str, column: ColumnFacts, value: str, which: str) -> str:
    return f"UPDATE {table} SET {column.sql} = {value} WHERE ctid = {_place(table, which)}"


def _insert(table: str, listed: list[ColumnFacts], place: int) -> str:
    """Return the statement that inserts a copy of a row under a key that no row has."""
    last = [column for column in listed if column.key][-1]
    new_key = CHANGED[last.type].format(last.sql).replace("+ 1", "+ 1000")
    values = ", ".join(new_key if column == last else column.sql for column in listed)
    names = ", ".join(column.sql for column in listed)
    source = f"SELECT {values} FROM {table} WHERE ctid = {_place(table, f'OFFSET {place}')}"
    return f"INSERT INTO {table} ({names}) {source}"


def _swap(table: str, column: ColumnFacts) -> str:
    """Return the statement that exchanges the values of two rows in which they differ."""
    name = column.sql
    return (
        f"WITH one AS (SELECT ctid AS place, {name} AS held FROM {table} ORDER BY ctid LIMIT 1), other AS ("
        f" SELECT t.ctid AS place, t.{name} AS held FROM {table} AS t, one"
        f" WHERE t.{name}::text IS DISTINCT FROM one.held::text ORDER BY t.ctid DESC LIMIT 1)"
        f" UPDATE {table} AS t SET {name} = CASE WHEN t.ctid = one.place THEN other.held ELSE one.held END"
        f" FROM one, other WHERE t.ctid IN (one.place, other.place)"
    )


@pytest.fixture(scope="module")
def found(filled: PreparedDatabase, superuser: psycopg.Connection) -> dict[tuple[str, str], FoundBy]:
    """The checks that found each change, by (table, column); of whole rows too."""
    assert [result for result in audit_in(superuser).checks if result.count] == []
    superuser.rollback()
    by: dict[tuple[str, str], FoundBy] = {}
    for table, listed in columns(filled).items():
        [(rows,)] = filled.run(f"SELECT count(*) FROM {table}")
        if table in FAILS_BY_ITSELF:
            continue
        assert rows, f"no rows in {table}: full_books.py fills every table"
        for column, change, statement in changes_of(table, listed, rows):
            checks = failing_checks(superuser, table, statement)
            if checks is not None:
                by.setdefault((table, column), FoundBy()).note(change, checks)
    return by


def test_every_change_is_found_or_listed_as_one_that_is_not(found: dict[tuple[str, str], FoundBy]) -> None:
    listed = exceptions()
    missed = {
        f"{table}.{column}: {change}"
        for (table, column), one in found.items()
        for change, checks in one.by.items()
        if not checks and not is_listed(listed, table, column, change)
    }
    assert missed == set()


def test_what_is_listed_as_not_found_is_not(found: dict[tuple[str, str], FoundBy]) -> None:
    found_after_all = []
    for entry in exceptions():
        of_it = [
            checks
            for (table, column), one in found.items()
            for change, checks in one.by.items()
            if is_listed({entry}, table, column, change)
        ]
        assert of_it, f"{entry} is listed, but there is no such column"
        if any(of_it):
            found_after_all.append(entry)
    assert found_after_all == [], "the page must not list what is found"


def exceptions() -> set[tuple[str, str]]:
    """Return what the page lists as not found: (table, column), where the column may be ``*`` or name one change."""
    text = PAGE.read_text()
    return set(LISTED.findall(text[text.index("## What it does not find") : text.index("## What it finds")]))


def is_listed(listed: set[tuple[str, str]], table: str, column: str, change: str) -> bool:
    """True if a change is among those that are listed."""
    return bool({(table, "*"), (table, column), (table, f"{column} {change}")} & listed)


def test_the_page_shows_what_was_found(found: dict[tuple[str, str], FoundBy], tmp_path: Path) -> None:
    listed = exceptions()
    lines = ["| table | column | change | found by |\n|---|---|---|---|\n"]
    for (table, column), one in sorted(found.items()):
        by_checks: dict[frozenset[str], list[str]] = {}
        for change, checks in sorted(one.by.items()):
            if not is_listed(listed, table, column, change):
                by_checks.setdefault(checks, []).append(change)
        shown = column if column == ROWS else f"`{column}`"
        for checks, changes in by_checks.items():
            lines.append(f"| `{table}` | {shown} | {', '.join(changes)} | {', '.join(sorted(checks))} |\n")
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    current = tmp_path / PAGE.name
    current.write_text(before + BEGIN + "".join(lines) + END + after)
    assert text == current.read_text(), f"{current} has the table as it is; copy it to {PAGE.relative_to(ROOT)}"


DESIGNED = {
    "50 yuan from wallet to wallet": (
        "UPDATE account SET wallet_pico = wallet_pico + CASE account WHEN 'a1' THEN 1 ELSE -1 END * 50000000000000"
        " WHERE account IN ('a1', 'a2')"),
    "50 yuan to the wallet of another partition": (
        "UPDATE account SET wallet_pico = wallet_pico + CASE account WHEN 'a1' THEN 1 ELSE -1 END * 50000000000000"
        " WHERE account IN ('a1', 'a4')"),
    "a bucket of a billion tokens": (
        "INSERT INTO bucket SELECT account, 'gift', plan, plan_version, bucket_no, unit, 1000000000000000,"
        " 1000000000000000, 0, valid_from_us, NULL, NULL, 0, status, partition, carried_cycles, row_hash"
        " FROM bucket WHERE account = 'a1'"),
    "amount and remaining raised together": (
        "UPDATE bucket SET amount_micro = amount_micro + 7, remaining_micro = remaining_micro + 7"
        " WHERE account = 'a1'"),
    "a bucket that never ends": "UPDATE bucket SET valid_until_us = NULL, lapse_at_us = NULL WHERE account = 'a2'",
    "another unit": "UPDATE bucket SET unit = 'CNY' WHERE account = 'a2'",
    "a bucket of another owner": "UPDATE bucket SET account = 'a3', grant_id = 'g9/1' WHERE account = 'a1'",
    "another plan": "UPDATE bucket SET plan = 'token-99', plan_version = 2 WHERE account = 'a1'",
    "credit": "UPDATE account SET credit_limit_pico = 10::numeric ^ 30 WHERE account = 'a1'",
    "postpaid": "UPDATE account SET payment = 'postpaid' WHERE account = 'a1'",
    "open again": "UPDATE account SET status = 'closed' WHERE account = 'a1'",
    "a cheaper price book": "UPDATE account SET price_book = 'friends' WHERE account = 'a1'",
    "a subscription that nobody pays": (
        "UPDATE account SET extras = replace(extras::text, '\"wallet\"', '\"external\"')::json WHERE account = 'a1'"),
    "a bill paid and another charged": (
        "UPDATE account SET extras = regexp_replace(extras::text, '\"bills\":.*', '\"bills\":[]}')::json"
        " WHERE account IN ('a1', 'a2')"),
    "resends billed again": "DELETE FROM dedupe_source",
    "hashes of a source forgotten": "DELETE FROM dedupe_recent WHERE source = 'urn:other'",
    "an hour of identities forgotten": "DELETE FROM dedupe_hour WHERE partition = 1",
    "output that is never published": "DELETE FROM outbox WHERE partition = 0 AND commit_no > 1",
    "output said to be published": "DELETE FROM outbox WHERE partition = 1",
    "findings removed": "DELETE FROM finding",
    "a forward counted twice": "UPDATE forward_next SET next_number = 3 - next_number WHERE partition = 0",
    "a record applied again": "UPDATE forward_cursor SET next_number = 0",
    "an earlier price list allowed": "UPDATE book_time SET max_event_time_us = 0",
    "suspense begins later": "UPDATE partition_state SET suspense_after = 99",
    "sums removed": "DELETE FROM row_sum",
}  # fmt: skip


@pytest.mark.parametrize("attack", DESIGNED)
def test_a_designed_change_is_found(filled: PreparedDatabase, superuser: psycopg.Connection, attack: str) -> None:
    table = re.search(r"(?:UPDATE|INTO|FROM) (\w+)", DESIGNED[attack])
    assert table is not None
    assert failing_checks(superuser, table[1], DESIGNED[attack])


@pytest.mark.parametrize("table", ["account", "bucket", "dedupe_source", "forward_cursor"])
def test_a_row_changed_with_its_hash_and_sum_is_found_by_the_chain(
    filled: PreparedDatabase, superuser: psycopg.Connection, table: str
) -> None:
    summed = SUMMED_TABLES[table]
    columns_of = ", ".join(summed.columns)
    changed = {"account": "clock_us", "bucket": "carried_cycles", "forward_cursor": "next_number"}.get(table)
    value = f"{changed} + 1" if changed else "NOT numbered"
    try:
        superuser.execute(f"UPDATE {table} SET {changed or 'numbered'} = {value} WHERE partition = 1".encode())
        read = f"COPY (SELECT {columns_of} FROM {table} WHERE partition = 1) TO STDOUT"
        with superuser.cursor() as cursor, cursor.copy(read.encode()) as copy:
            rows = b"".join(map(bytes, copy))
        hashed, total = with_hashes(table, 1, rows)
        for line in hashed.splitlines():
            key = line.split(b"\t")[: summed.key]
            where = " AND ".join(f"{column}::text = %s" for column in summed.columns[: summed.key])
            superuser.execute(
                f"UPDATE {table} SET row_hash = %s WHERE partition = 1 AND {where}".encode(),
                (bytes.fromhex(line[-64:].decode()), *(one.decode() for one in key)),
            )
        superuser.execute(
            "UPDATE row_sum SET rows = %s, total = %s WHERE partition = 1 AND table_name = %s",
            (total.rows, total.to_bytes(), table),
        )
        failed = {result.name: result.shown for result in audit_in(superuser).checks if result.count}
        assert failed["rows"] == ("partition 1: the sums of rows are not those in the digest of commit 5",)
    finally:
        superuser.rollback()
