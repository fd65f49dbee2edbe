"""Audit of the summed tables: the hash of each row, the sum of the rows, and the sums in the digest chain."""

from collections.abc import Iterator

from billing.commits.row_hashes import RowSum
from billing.store.database import Connection
from billing.store.summed_tables import (
    CHANGED_OUTSIDE,
    ROW_CHANGED,
    SUMMED_TABLES,
    CheckedRows,
    check_rows,
    sums_digest,
)


def check_sums(connection: Connection) -> Iterator[str]:
    """Yield what differs between the rows of the summed tables and what the commits carried forward.

    A row whose hash is not its own names itself. Rows that were inserted or deleted, or changed together with their
    hash, are found by the sum of their table and partition.
    """
    partitions = [number for (number,) in connection.execute("SELECT partition FROM partition_state ORDER BY 1")]
    sums = _stored_sums(connection)
    yield from _against_the_chain(connection, sums)
    for table, covered in SUMMED_TABLES.items():
        found = check_rows(connection, covered)
        for partition in sorted({*partitions, *found}):
            checked = found.get(partition, CheckedRows())
            for name in checked.differ:
                yield f"partition {partition}: {name}: the row is not as a commit wrote it"
            yield from sum_difference(partition, table, checked.total, sums.get(partition, {}).get(table, RowSum()))
    for partition, of_tables in sorted(sums.items()):
        for table, total in sorted(of_tables.items()):
            if partition not in partitions:
                yield f"partition {partition}: a sum of {table}, but there is no such partition"
            elif table == CHANGED_OUTSIDE and total != RowSum():
                yield (
                    f"partition {partition}: {total.rows} rows were read that no commit had written so; "
                    f"findings of the kind {ROW_CHANGED} name them"
                )
            elif table not in (*SUMMED_TABLES, CHANGED_OUTSIDE):
                yield f"partition {partition}: a sum of {table}, which is no summed table"


def _stored_sums(connection: Connection) -> dict[int, dict[str, RowSum]]:
    sums: dict[int, dict[str, RowSum]] = {}
    for partition, table, rows, total in connection.execute("SELECT partition, table_name, rows, total FROM row_sum"):
        sums.setdefault(partition, {})[table] = RowSum.read(rows, bytes(total))
    return sums


def _against_the_chain(connection: Connection, sums: dict[int, dict[str, RowSum]]) -> Iterator[str]:
    """Yield the partitions whose sums are not those in the digest of the last commit.

    A partition without a commit since the sums began has none in its chain yet.
    """
    last = connection.execute(
        "SELECT partition, commit_no, rows_sha256 FROM commit WHERE (partition, commit_no) IN ("
        " SELECT partition, max(commit_no) FROM commit GROUP BY partition) ORDER BY partition"
    )
    for partition, commit_no, digest in last:
        if digest is not None and bytes(digest) != sums_digest(sums.get(partition, {})):
            yield f"partition {partition}: the sums of rows are not those in the digest of commit {commit_no}"


def sum_difference(partition: int, table: str, found: RowSum, committed: RowSum) -> Iterator[str]:
    """Yield how the sum of the rows of a table differs from the committed one, if it does."""
    if found.rows != committed.rows:
        yield f"partition {partition}: {table} has {found.rows} rows, {committed.rows} were committed"
    elif found != committed:
        yield f"partition {partition}: {table}: the rows are not those that were committed"
