"""The tables whose rows are summed, and what a commit changes in the sums (docs/decisions/sums-of-rows.md).

Each row of these tables has its hash in the column ``row_hash``. Decisions read the rows, or they say what happened,
and later commits change or delete them, so that the digest of one commit cannot cover them.
:mod:`billing.commits.row_hashes` defines hash and sum. No statement here writes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import LiteralString

from psycopg import sql

from billing.calculator.core_row_hashes import check_hashes, sum_of_hashes
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, ChangedBy, column_names
from billing.commits.commit_record import Finding
from billing.commits.copy_text import copy_rows
from billing.commits.row_hashes import NO_ROWS, RowSum, row_hash
from billing.store.database import Connection

CHANGED_OUTSIDE = "changed_outside"
"""Sum of the rows that a worker read and that no commit had written so. The audit fails while there are any.

It shrinks only when two people accept the rows (:mod:`billing.store.row_acceptance`).
"""
ROW_CHANGED = "row_changed"
"""Kind of the finding that names such a row."""
_NOT_AS_WRITTEN = " is not as a commit wrote it"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SummedTable:
    """A table whose rows are summed by partition: its name, the columns that its hash covers, and those of its key."""

    name: LiteralString
    columns: tuple[LiteralString, ...]
    key: int = 1
    """Number of columns that name a row in messages: the first ones."""

    def named(self, values: Sequence[object]) -> str:
        """Return the name of a row with these values, as the audit shows it."""
        named = ", ".join(f"{column} {value}" for column, value in zip(self.columns[: self.key], values, strict=False))
        return f"{self.name} ({named})"


SUMMED_TABLES = {
    one.name: one
    for one in (
        SummedTable("account", column_names(ACCOUNT_COLUMNS)),
        SummedTable("bucket", column_names(BUCKET_COLUMNS), len(column_names(BUCKET_COLUMNS, ChangedBy.KEY))),
        SummedTable("book_time", ("name", "max_event_time_us")),
        SummedTable("dedupe_hour", ("hour_us", "commit_no", "row_no", "log_hour_us", "payload"), 3),
        SummedTable("dedupe_recent", ("commit_no", "row_no", "source", "highest", "payload"), 2),
        SummedTable("dedupe_source", ("source", "numbered", "seen_runs", "refused")),
        SummedTable("finding", ("commit_no", "row_no", "kind", "detail"), 2),
        SummedTable("forward_cursor", ("topic", "origin", "next_number"), 2),
        SummedTable("forward_next", ("topic", "target", "next_number"), 2),
        SummedTable("partition_state", ("partition", "suspense_after", "conflict_after", "unlogged_until_us")),
    )
}
"""The summed tables, by name; the partition is in every hash besides."""
READ_WHEN_ACQUIRED = ("partition_state", "book_time", "dedupe_source", "forward_cursor", "forward_next")
"""Tables of which a worker reads every row of a partition, and writes rows that follow from what it read."""


@dataclass(slots=True)
class RowSums:
    """The sums of one partition as its last commit left them, and what was found changed since."""

    sums: dict[str, RowSum] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)
    """Names of rows that were read and that no commit had written so; the next commit keeps them as findings."""

    def digest(self) -> bytes:
        """Return the SHA-256 of all sums, which the digest of a commit covers."""
        return sums_digest(self.sums)


def sums_digest(sums: Mapping[str, RowSum]) -> bytes:
    """Return the SHA-256 of sums by table: JSON of the tables that have rows, each with number and sum."""
    listed = {table: [one.rows, one.to_bytes().hex()] for table, one in sums.items() if one != NO_ROWS}
    return hashlib.sha256(json.dumps(listed, sort_keys=True, separators=(",", ":")).encode()).digest()


def changed_outside(partition: int, strange: Sequence[str]) -> tuple[RowSum, list[Finding]]:
    """Return what the names of changed rows add to :data:`CHANGED_OUTSIDE`, and the findings that keep them."""
    hashes = b"".join(row_hash(CHANGED_OUTSIDE, partition, name.encode("utf-8", "replace")) for name in strange)
    findings = [Finding(ROW_CHANGED, f"partition {partition}: {name}{_NOT_AS_WRITTEN}") for name in strange]
    return sum_of_hashes(hashes), findings


def changed_row_named(partition: int, detail: str) -> str | None:
    """Return the name of the row in the text of a finding :data:`ROW_CHANGED`; None if the text has another form."""
    before = f"partition {partition}: "
    if not (detail.startswith(before) and detail.endswith(_NOT_AS_WRITTEN)):
        return None
    return detail[len(before) : -len(_NOT_AS_WRITTEN)]


def hash_each(table: str, partition: int, rows: Sequence[Sequence[str | int | bytes | None]]) -> list[bytes]:
    """Return the hash of each row, given as the values of the columns that it covers."""
    return [row_hash(table, partition, copy_rows([row])[:-1]) for row in rows]


def read_sums(connection: Connection, partition: int) -> dict[str, RowSum]:
    """Return the stored sums of a partition."""
    rows = connection.execute("SELECT table_name, rows, total FROM row_sum WHERE partition = %s", (partition,))
    return {table: RowSum.read(number, bytes(total)) for table, number, total in rows}


@dataclass(slots=True)
class CheckedRows:
    """The rows of one partition in a table as they are: their sum, and the names of those with another's hash."""

    total: RowSum = NO_ROWS
    differ: list[str] = field(default_factory=list)


def check_rows(connection: Connection, table: SummedTable, partition: int | None = None) -> dict[int, CheckedRows]:
    """Read the rows of a table, of one partition or of all; return what they are, by partition."""
    columns = sql.SQL(", ").join(map(sql.Identifier, ("partition", *table.columns, "row_hash")))
    where = sql.SQL("" if partition is None else " WHERE partition = {}").format(sql.Literal(partition))
    statement = sql.SQL("COPY (SELECT {} FROM {}{}) TO STDOUT").format(columns, sql.Identifier(table.name), where)
    found: dict[int, CheckedRows] = defaultdict(CheckedRows)
    for rows_by_partition in _chunks(connection, statement):
        for number, rows in rows_by_partition.items():
            total, wrong = check_hashes(table.name, int(number), b"".join(rows))
            checked = found[int(number)]
            checked.total += total
            checked.differ += [table.named(rows[index].decode("utf-8", "replace").split("\t")) for index in wrong]
    return found


def _chunks(connection: Connection, statement: sql.Composed) -> Iterator[dict[bytes, list[bytes]]]:
    """Yield the rows of a ``COPY`` statement in parts, by their first column."""
    parts: dict[bytes, list[bytes]] = defaultdict(list)
    size = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for line in copy:
            number, _, row = bytes(line).partition(b"\t")
            parts[number].append(row)
            size += len(row)
            if size > _CHUNK_BYTES:
                yield parts
                parts, size = defaultdict(list), 0
    yield parts
