"""The transaction that writes one commit of one partition (docs/reference/principles.md, "Commit").

:func:`write_commit` owns the order of the effects. It adds only the digests to the record. PostgreSQL accepts no COPY
inside a pipeline, so a commit has three parts: a pipeline that checks that the writer still owns the partition, the
COPY statements, and a pipeline of the other statements.
"""

from dataclasses import asdict
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from billing.commits.commit_record import CommitRecord
from billing.errors import BrokenInvariant, CatalogMoved, Fenced
from billing.store.commits.commit_rows import STAGING, copies, small_statements, updates_of
from billing.store.commits.digest import COUNT_COLUMNS, appended_text, changes_sha256, commit_digest, outbox_list
from billing.store.database import Connection, Database

CATALOG_LOCK = 0x7462_6361  # "tbca"
"""Advisory lock of the catalogue: commits share it, a publication takes it alone (docs/decisions/catalogue-lock.md)."""
OUTBOX_CHANNEL = "tokenbill_outbox"

_INSERT_COMMIT: LiteralString = (
    "INSERT INTO commit (partition, commit_no, epoch, catalog_epoch, log_time_us, positions, limits, outbox,"
    " changes_sha256, previous_digest, digest, rated, duplicate, rejected, forwarded, dropped, commands_accepted,"
    " commands_rejected, commands_duplicate, commands_forwarded, commands_dropped, messages_sent, administration_no,"
    " administration_digest)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %b, %b, %b, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %b)"
)


def session_name(partition: int) -> str:
    """Return the application name of a session while it commits for a partition."""
    return f"tokenbill commit {partition}"


def write_commit(database: Database, epoch: int, record: CommitRecord) -> bytes:
    """Write all of ``record``, or nothing; return the digest of the commit.

    Raises:
        Fenced: the database has another epoch, commit number or position.
        CatalogMoved: the catalogue has another epoch than the one that the record was decided with.
        BrokenInvariant: the database contradicts the record (a new key that exists, a changed row that does not exist).
        DatabaseDown: the connection broke; only a reload shows if the commit happened.
    """
    text = appended_text(record)
    changes = changes_sha256(record)
    outbox = outbox_list(record)
    positions: list[list[str | int]] = [[move.topic, move.start, move.end] for move in record.positions]
    counts = asdict(record.counts)
    with database.transaction() as connection:
        previous, administration = _claim(connection, epoch, record)
        with connection.cursor() as cursor:
            for statement, rows in copies(record, text):
                if rows:
                    with cursor.copy(statement) as copy:
                        copy.write(rows)
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
            changes=changes,
            appended=text.sha256(),
            administration=administration,
        )
        with connection.pipeline():
            updates = [
                (what, staged, _update(connection, statement, record.partition, staged))
                for what, statement, staged in updates_of(record.changes)
            ]
            for small in small_statements(record):
                connection.execute(*small)
            connection.execute(
                _INSERT_COMMIT,
                (
                    *(record.partition, record.commit_no, epoch, record.catalog_epoch, record.log_time_us),
                    *(Jsonb(positions), Jsonb(record.limits), Jsonb(outbox), changes, previous, digest),
                    *(counts[name] for name in COUNT_COLUMNS),
                    *administration,
                ),
            )
            connection.execute(
                "UPDATE partition_state SET digest = %b WHERE partition = %s", (digest, record.partition)
            )
            connection.execute("SELECT pg_notify(%s, %s)", (OUTBOX_CHANNEL, str(record.partition)))
        for what, staged, updated in updates:
            _check_updated(what, staged, updated.rowcount if updated else 0)
    return digest


def _update(
    connection: Connection, statement: LiteralString, partition: int, staged: bytes
) -> psycopg.Cursor[TupleRow] | None:
    # Not prepared: the server would keep a plan made while the staging table was empty.
    return connection.execute(statement, (partition,), prepare=False) if staged else None


def _check_updated(what: str, staged: bytes, updated: int) -> None:
    if staged.count(b"\n") != updated:
        count = staged.count(b"\n")
        raise BrokenInvariant(f"{count} changed {what} were staged, but {updated} are in the database")


def _claim(connection: Connection, epoch: int, record: CommitRecord) -> tuple[bytes, tuple[int, bytes]]:
    """Check that the writer still owns the partition and that the catalogue has not moved.

    Compares and sets epoch, commit number and positions, locks the catalogue, and compares its epoch. Takes one round
    trip, and a second one when the session has no staging tables. Returns the digest of the preceding commit, and
    number and digest of the last change of an administrative table.
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
    return bytes(row[0]), (int(found[-2]), bytes(found[-1]))
