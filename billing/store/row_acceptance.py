"""Acceptance of rows as they are, which two people agree to, after a row was repaired by hand.

An acceptance is a commit: from it on the sum of one table in one partition is that of the rows as they are. A finding
of the commit and a row of ``row_acceptance``, which is logged like every administrative change, name the sum before,
the sum after, the reason and the people. Marks of rows that workers had read changed (``changed_outside``) are taken
back for that table. An acceptance proves nothing about the rows, and posts nothing: sub-ledgers are still compared.
"""

from dataclasses import dataclass

from psycopg import sql

from billing.calculator.core_row_hashes import check_hashes
from billing.commits.commit_record import Finding
from billing.commits.row_hashes import NO_ROWS, RowSum, row_hash
from billing.store.commits.write_commit import write_commit
from billing.store.database import Connection, Database
from billing.store.manual_commits import manual_record
from billing.store.partition_rows import acquire, sums_differ_from_chain
from billing.store.summed_tables import (
    CHANGED_OUTSIDE,
    ROW_CHANGED,
    SUMMED_TABLES,
    RowSums,
    SummedTable,
    changed_outside,
    changed_row_named,
)
from billing.store.two_keys import TwoKeys

ROWS_ACCEPTED = "rows_accepted"
"""Kind of the finding of a commit that took the rows of a table as they are because two people said so."""
STORED_SUMS = "row_sum"
"""The stored sums themselves: accepting them takes back the mark of a worker that read other sums than committed."""
ACCEPTABLE = (*SUMMED_TABLES, STORED_SUMS)


class AcceptanceRefused(Exception):
    """Rows cannot be accepted as asked; the message says why."""


@dataclass(frozen=True, slots=True)
class RowsToAccept:
    """A request to take the rows of one table of one partition as they are, with the keys of two people."""

    partition: int
    table: str
    reason: str
    keys: TwoKeys


@dataclass(frozen=True, slots=True)
class AcceptedRows:
    """The commit that accepted rows, and the difference that it accepted."""

    commit_no: int
    before: RowSum
    after: RowSum
    rehashed: int
    """Rows that had another row's hash."""
    marks: int
    """Changed rows that workers had read, of which the marks are taken back."""

    def __str__(self) -> str:
        return (
            f"{self.before.rows} rows with the sum {_digits(self.before)} became {self.after.rows} rows with the sum"
            f" {_digits(self.after)}; {self.rehashed} rows had another hash, {self.marks} marks are taken back"
        )


def _digits(total: RowSum) -> str:
    return total.to_bytes().hex()[:16]


def accept_rows(database: Database, asked: RowsToAccept) -> AcceptedRows:
    """Take the rows of a table in a partition as they are, in a commit of that partition.

    The partition is acquired: a worker that holds it is fenced, starts again, and reads the rows as they are.

    Raises:
        AcceptanceRefused: there is nothing to accept, or the table has no sums.
        Fenced: another process acquired the partition meanwhile; nothing was written.
        DatabaseDown: the server cannot be reached.
    """
    if asked.table not in ACCEPTABLE:
        raise AcceptanceRefused(f"{asked.table} has no sums of rows; expected one of {', '.join(ACCEPTABLE)}")
    with database.transaction() as connection:
        row = connection.execute("SELECT FROM partition_state WHERE partition = %s", (asked.partition,)).fetchone()
        if row is None:
            raise AcceptanceRefused(f"there is no partition {asked.partition}")
        # Before the epoch is raised, which would fence the worker for nothing.
        if not _differs(connection, asked):
            raise AcceptanceRefused(
                f"the rows of {asked.table} in partition {asked.partition} are as commits wrote them"
            )
    epoch, state, known = acquire(database, asked.partition)
    with database.transaction() as connection:
        before = known.sums.get(asked.table, NO_ROWS)
        after, wrong = _rows_now(connection, asked)
        if asked.table not in SUMMED_TABLES:
            after = before
        names = _marked_rows(connection, asked)
    taken_back, _ = changed_outside(asked.partition, names)
    accepted = AcceptedRows(state.commit_no + 1, before, after, len(wrong), len(names))
    sums = known.sums | {asked.table: after} if asked.table in SUMMED_TABLES else dict(known.sums)
    if names:
        sums[CHANGED_OUTSIDE] = sums.get(CHANGED_OUTSIDE, NO_ROWS) - taken_back
    strange = [name for name in known.strange if not _is_of(asked.table, name)]
    detail = f"{asked.table} of partition {asked.partition}: {accepted}: {asked.reason} ({asked.keys})"
    record = manual_record(database, state, Finding(ROWS_ACCEPTED, detail))

    def also(connection: Connection) -> None:
        _rehash(connection, asked)
        _store(connection, asked, accepted)

    write_commit(
        database,
        epoch,
        record,
        RowSums(sums, strange),
        also,
        rebased=tuple({asked.table, CHANGED_OUTSIDE} & sums.keys()),
    )
    return accepted


def _differs(connection: Connection, asked: RowsToAccept) -> bool:
    if asked.table == STORED_SUMS and sums_differ_from_chain(connection, asked.partition):
        return True
    after, wrong = _rows_now(connection, asked)
    stored = connection.execute(
        "SELECT rows, total FROM row_sum WHERE partition = %s AND table_name = %s", (asked.partition, asked.table)
    ).fetchone()
    before = NO_ROWS if stored is None else RowSum.read(stored[0], bytes(stored[1]))
    return bool(wrong) or (asked.table in SUMMED_TABLES and after != before) or bool(_marked_rows(connection, asked))


def _is_of(table: str, name: str) -> bool:
    return name == table or name.startswith(f"{table} (")


def _marked_rows(connection: Connection, asked: RowsToAccept) -> list[str]:
    """Return the names of the rows of the table that workers read changed since the last acceptance of the table."""
    rows = connection.execute(
        "SELECT detail FROM finding WHERE partition = %s AND kind = %s AND commit_no > coalesce("
        " (SELECT max(commit_no) FROM row_acceptance WHERE partition = %s AND table_name = %s), 0)",
        (asked.partition, ROW_CHANGED, asked.partition, asked.table),
    )
    names = [changed_row_named(asked.partition, detail) for (detail,) in rows]
    return [name for name in names if name is not None and _is_of(asked.table, name)]


def _rows_now(connection: Connection, asked: RowsToAccept) -> tuple[RowSum, list[tuple[str, bytes]]]:
    """Return the sum of the rows as they are, and (place, hash) of those whose hash is missing or another row's."""
    table = SUMMED_TABLES.get(asked.table)
    if table is None:
        return NO_ROWS, []
    places, rows = list[str](), list[bytes]()
    statement = sql.SQL("COPY (SELECT {} FROM {} WHERE partition = {}) TO STDOUT").format(
        sql.SQL(", ").join(map(sql.Identifier, ("ctid", *table.columns, "row_hash"))),
        sql.Identifier(table.name),
        sql.Literal(asked.partition),
    )
    total, wrong = NO_ROWS, list[tuple[str, bytes]]()

    def add() -> None:
        nonlocal total
        part, differ = check_hashes(table.name, asked.partition, b"".join(rows))
        total += part
        wrong.extend((places[index], _hash_of(table, asked.partition, rows[index])) for index in differ)
        places.clear()
        rows.clear()

    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for line in copy:
            place, _, row = bytes(line).partition(b"\t")
            places.append(place.decode())
            rows.append(row)
            if len(rows) == _CHUNK_ROWS:
                add()
    add()
    return total, wrong


_CHUNK_ROWS = 10_000


def _hash_of(table: SummedTable, partition: int, row: bytes) -> bytes:
    return row_hash(table.name, partition, row.rpartition(b"\t")[0])


def _rehash(connection: Connection, asked: RowsToAccept) -> None:
    """Give each row of the table its own hash. The rows are read again, because the commit may have moved them."""
    _, wrong = _rows_now(connection, asked)
    if wrong:
        places, hashes = zip(*wrong, strict=True)
        connection.execute(
            sql.SQL(
                "UPDATE {} AS t SET row_hash = s.hash FROM unnest(%s::text[], %b::bytea[]) AS s (place, hash)"
                " WHERE t.ctid = s.place::tid AND t.partition = %s"
            ).format(sql.Identifier(asked.table)),
            (list(places), list(hashes), asked.partition),
        )


def _store(connection: Connection, asked: RowsToAccept, accepted: AcceptedRows) -> None:
    keys = asked.keys
    connection.execute(
        "INSERT INTO row_acceptance (partition, commit_no, table_name, rows_before, total_before, rows_after,"
        " total_after, marks, reason, requested_key, requested_by, approved_key, approved_by)"
        " VALUES (%s, %s, %s, %s, %b, %s, %b, %s, %s, %s, %s, %s, %s)",
        (
            *(asked.partition, accepted.commit_no, asked.table, accepted.before.rows, accepted.before.to_bytes()),
            *(accepted.after.rows, accepted.after.to_bytes(), accepted.marks, asked.reason),
            *(keys.requested_key, keys.requested_by, keys.approved_key, keys.approved_by),
        ),
    )
