"""The transaction that writes one commit of one partition (docs/reference/principles.md, "Commit").

:func:`write_commit` owns the order of the effects. It adds only the digests to the record. PostgreSQL accepts no COPY
inside a pipeline, so a commit has four parts: a pipeline that checks that the writer still owns the partition, the
COPY statements, a pipeline of the statements that change summed rows, and a pipeline of the others.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from billing.calculator.core_row_hashes import sum_of_hashes
from billing.commits.commit_record import AccountChanges, CommitRecord
from billing.commits.row_hashes import RowSum
from billing.errors import BrokenInvariant, CatalogMoved, Fenced, HeldMoved
from billing.store.commits.commit_rows import STAGING, copies, hashed_changes, small_statements, updates_of
from billing.store.commits.digest import (
    COUNT_COLUMNS,
    appended_text,
    changes_sha256,
    commit_digest,
    outbox_list,
    position_list,
)
from billing.store.commits.summed_rows import summed_statements
from billing.store.database import Connection, Database
from billing.store.open_holds import lock_heads, read_held
from billing.store.summed_tables import CHANGED_OUTSIDE, RowSums, changed_outside, sums_digest

CATALOG_LOCK = 0x7462_6361  # "tbca"
"""Advisory lock of the catalogue: commits share it, a publication takes it alone (docs/decisions/catalogue-lock.md)."""
OUTBOX_CHANNEL = "tokenbill_outbox"

_INSERT_COMMIT: LiteralString = (
    "INSERT INTO commit (partition, commit_no, epoch, catalog_epoch, log_time_us, positions, limits, outbox,"
    " changes_sha256, previous_digest, digest, rated, duplicate, rejected, forwarded, dropped, commands_accepted,"
    ' commands_rejected, commands_duplicate, commands_forwarded, commands_dropped, messages_sent, "foreign",'
    " commands_foreign, rows_sha256, administration_no, administration_digest)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b, %b, %b, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
    " %b, %s, %b)"
)
_WRITE_SUMS: LiteralString = (
    "INSERT INTO row_sum (partition, table_name, rows, total)"
    " SELECT %s, * FROM unnest(%s::text[], %s::bigint[], %b::bytea[])"
    " ON CONFLICT (partition, table_name) DO UPDATE SET rows = excluded.rows, total = excluded.total"
)


def session_name(partition: int) -> str:
    """Return the application name of a session while it commits for a partition."""
    return f"tokenbill commit {partition}"


def write_commit(
    database: Database,
    epoch: int,
    record: CommitRecord,
    known: RowSums,
    also: Callable[[Connection], None] | None = None,
    rebased: Collection[str] = (),
) -> tuple[bytes, dict[str, RowSum]]:
    """Write all of ``record``, or nothing; return the digest of the commit and the sums of the rows after it.

    ``known`` are the sums before, as the commits so far carried them forward, and rows found changed since. ``also`` is
    called in the same transaction. ``rebased`` names tables whose sum in ``known`` is not the stored one, but that of
    the rows as two people accepted them.

    Raises:
        Fenced: the database has another epoch, commit number or position.
        CatalogMoved: the catalogue has another epoch than the one that the record was decided with.
        HeldMoved: a hold was taken meanwhile on what a command of the record took.
        BrokenInvariant: the database contradicts the record (a new key that exists, a changed row that does not exist).
        DatabaseDown: the connection broke; only a reload shows if the commit happened.
    """
    strange, found = changed_outside(record.partition, known.strange)
    if found:
        record = replace(record, findings=[*record.findings, *found])
    text = appended_text(record)
    changes, added = hashed_changes(record.partition, record.changes)
    changed = changes_sha256(record)
    outbox = outbox_list(record)
    positions = position_list(record)
    counts = asdict(record.counts)
    with database.transaction() as connection:
        previous, book_times, administration = _claim(connection, epoch, record)
        with connection.cursor() as cursor:
            for statement, rows in copies(changes, text):
                if rows:
                    with cursor.copy(statement) as copy:
                        copy.write(rows)
        if record.held_limits:
            _check_held(connection, record)
        written = _write_summed(connection, record, changes, book_times) | {CHANGED_OUTSIDE: strange}
        moved = {table: _sum(written, table) + _sum(added, table) for table in written | added}
        moved = {table: change for table, change in moved.items() if change != RowSum()}
        sums = known.sums | {table: _sum(known.sums, table) + change for table, change in moved.items()}
        rows_sha256 = sums_digest(sums)
        digest = commit_digest(
            previous,
            partition=record.partition,
            commit_no=record.commit_no,
            catalog_epoch=record.catalog_epoch,
            log_time_us=record.log_time_us,
            positions=positions,
            counts=counts,
            limits=record.limits,
            outbox=outbox,
            changes=changed,
            appended=text.sha256(),
            rows=rows_sha256,
            administration=administration,
        )
        with connection.pipeline():
            for small in small_statements(record):
                connection.execute(*small)
            connection.execute(
                _INSERT_COMMIT,
                (
                    *(record.partition, record.commit_no, epoch, record.catalog_epoch, record.log_time_us),
                    *(Jsonb(positions), Jsonb(record.limits), Jsonb(outbox), changed, previous, digest),
                    *(counts[name] for name in COUNT_COLUMNS),
                    rows_sha256,
                    *administration,
                ),
            )
            _write_sums(connection, record.partition, {table: sums[table] for table in {*moved, *rebased}})
            connection.execute(
                "UPDATE partition_state SET digest = %b WHERE partition = %s", (digest, record.partition)
            )
            connection.execute("SELECT pg_notify(%s, %s)", (OUTBOX_CHANNEL, str(record.partition)))
        if also is not None:
            also(connection)
    return digest, sums


def _check_held(connection: Connection, record: CommitRecord) -> None:
    """Lock the heads of the accounts that commands took from, and compare what is held with what may be held.

    The lock is the one of the API (:mod:`billing.store.holds.hold_book`), in the same order, heads before holds. Until
    the end of this transaction nobody takes a hold on these accounts, and afterwards sees the new balance.
    """
    accounts = sorted(record.held_limits)
    connection.execute(lock_heads("%s"), (accounts,))
    # A statement of its own: one that began before the lock would miss what the lock's former owner wrote.
    for account, held in read_held(connection, accounts).items():
        taken = record.held_limits[account].exceeded_by(held.amounts, held.holds)
        if taken is not None:
            raise HeldMoved(f"account {account!r}: {taken}, since a hold was taken while the batch was decided")


def _sum(sums: Mapping[str, RowSum], table: str) -> RowSum:
    return sums.get(table, RowSum())


def _write_sums(connection: Connection, partition: int, sums: Mapping[str, RowSum]) -> None:
    totals = [one.to_bytes() for one in sums.values()]
    connection.execute(_WRITE_SUMS, (partition, list(sums), [one.rows for one in sums.values()], totals))


def _write_summed(
    connection: Connection, record: CommitRecord, changes: AccountChanges, book_times: Mapping[str, int]
) -> dict[str, RowSum]:
    """Run the statements on summed tables.

    Returns what they change in the sums, without the accounts and buckets that were staged.
    """
    moved: dict[str, RowSum] = {}
    with connection.pipeline():
        updates = [
            # Not prepared: the server would keep a plan made while the staging table was empty.
            (table, staged, connection.execute(statement, (record.partition,), prepare=False, binary=True))
            for table, statement, staged in updates_of(changes)
            if staged
        ]
        summed = [
            (one, connection.execute(one.query, one.parameters, binary=True))
            for one in summed_statements(record, book_times)
        ]
    for table, staged, cursor in updates:
        hashes, updated = _one(cursor)
        count = staged.count(b"\n")
        if count != updated:
            raise BrokenInvariant(f"{count} changed {table}s were staged, but {updated} are in the database")
        moved[table] = _sum(moved, table) - sum_of_hashes(hashes or b"")
    for one, cursor in summed:
        [hashes] = _one(cursor)
        moved[one.table] = _sum(moved, one.table) + one.added - sum_of_hashes(hashes or b"")
    return moved


def _one(cursor: psycopg.Cursor[TupleRow]) -> TupleRow:
    row = cursor.fetchone()
    if row is None:
        raise BrokenInvariant("a statement on summed rows returned nothing")
    return row


def _claim(connection: Connection, epoch: int, record: CommitRecord) -> tuple[bytes, dict[str, int], tuple[int, bytes]]:
    """Check that the writer still owns the partition and that the catalogue has not moved.

    Compares and sets epoch, commit number and positions, locks the catalogue, and compares its epoch. Takes one round
    trip, and a second one when the session has no staging tables. Returns the digest of the preceding commit, the
    times of the record's books, and number and digest of the last change of an administrative table.
    """
    moves = record.positions
    with connection.pipeline():
        state = connection.execute(
            "UPDATE partition_state SET commit_no = %s, log_time_us = %s"
            " WHERE partition = %s AND epoch = %s AND commit_no = %s RETURNING digest",
            (record.commit_no, record.log_time_us, record.partition, epoch, record.commit_no - 1),
        )
        positions = connection.execute(
            "UPDATE position AS p SET next_offset = m.end_offset"
            " FROM unnest(%s::text[], %s::bigint[], %s::bigint[]) AS m (topic, start_offset, end_offset)"
            " WHERE p.topic = m.topic AND p.partition = %s AND p.next_offset = m.start_offset",
            ([m.topic for m in moves], [m.start for m in moves], [m.end for m in moves], record.partition),
        )
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (CATALOG_LOCK,))
        # The name lets a new owner find and terminate this session if it hangs (billing.store.partition_rows).
        catalog = connection.execute(
            "SELECT c.epoch, to_regclass('pg_temp.replace_bucket') IS NOT NULL,"
            " set_config('tokenbill.partition', %s, true), set_config('application_name', %s, true),"
            # Changed rows must be found by index at any table size: the staging tables have no statistics.
            " set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)"
            ", a.number, a.digest FROM catalog_state AS c, administration_head AS a",
            (str(record.partition), session_name(record.partition)),
        )
        books = connection.execute(
            "SELECT name, max_event_time_us FROM book_time WHERE partition = %s AND name = ANY(%s)",
            (record.partition, list(record.book_times)),
        )
    row = state.fetchone()
    if row is None:
        raise Fenced(f"partition {record.partition} is not at epoch {epoch} and commit {record.commit_no - 1}")
    if positions.rowcount != len(moves):
        raise Fenced(f"partition {record.partition}: the positions in the database are not where {moves} start")
    found = catalog.fetchone()
    if found is None:
        raise BrokenInvariant("catalog_state has no row")
    if found[0] != record.catalog_epoch:
        raise CatalogMoved(int(found[0]))
    if not found[1]:
        connection.execute(STAGING)
    return bytes(row[0]), dict(books.fetchall()), (int(found[-2]), bytes(found[-1]))
