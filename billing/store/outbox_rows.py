"""The outbox as the relay uses it: read rows in commit order, delete published rows, wait for new ones. No Kafka."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from billing.commits.commit_record import OutboxPage, OutboxRow
from billing.errors import DatabaseDown, OutboxDamaged
from billing.store.commits.digest import GENESIS
from billing.store.commits.write_commit import OUTBOX_CHANNEL
from billing.store.database import Connection, Database, connect, schema_url

_MAX_ROWS = 4_096

# Complete commits only: a commit is included if the size of the commits before it is below the limit.
_READ: LiteralString = """
SELECT o.commit_no, o.topic, o.records, o.first_sequence, o.payload
FROM outbox AS o JOIN (
    SELECT commit_no, sum(size) OVER (ORDER BY commit_no) - size AS before FROM (
        SELECT commit_no, sum(octet_length(payload)) AS size FROM (
            SELECT commit_no, payload FROM outbox WHERE partition = %(partition)s AND commit_no > %(after)s
            ORDER BY commit_no, row_no FETCH FIRST %(rows)s ROWS WITH TIES
        ) AS first_rows GROUP BY commit_no
    ) AS sizes
) AS c USING (commit_no)
WHERE o.partition = %(partition)s AND c.before < %(bytes)s
ORDER BY o.commit_no, o.row_no
"""


_COMMITS: LiteralString = """
SELECT commit_no, digest, outbox FROM commit
WHERE partition = %s AND commit_no >= %s AND commit_no <= coalesce(%s, commit_no) ORDER BY commit_no LIMIT %s
"""


def outbox_read(database: Database, partition: int, after_commit_no: int, max_bytes: int) -> OutboxPage:
    """Return the output of complete commits after ``after_commit_no``, in publishing order.

    The result stops at the commit that reaches ``max_bytes``; it holds at least one commit if there is any.

    Raises:
        OutboxDamaged: the rows are not those that their commits wrote.
    """
    with database.transaction() as connection:
        with connection.pipeline():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            found = connection.execute(
                _READ,
                {"partition": partition, "after": after_commit_no, "rows": _MAX_ROWS, "bytes": max(1, max_bytes)},
                binary=True,
            )
        rows = [(commit_no, OutboxRow(*row)) for commit_no, *row in found]
        last_no = rows[-1][0] if rows else None
        most = _MAX_ROWS if last_no is None else None
        commits = connection.execute(_COMMITS, (partition, after_commit_no, last_no, most)).fetchall()
    digests = {commit_no: bytes(digest) for commit_no, digest, _ in commits}
    if after_commit_no == 0:
        digests[0] = GENESIS
    _check_rows(partition, rows, [one for one in commits if one[0] > after_commit_no])
    return OutboxPage(rows, digests.get(after_commit_no), b"" if last_no is None else digests[last_no])


def _check_rows(partition: int, rows: list[tuple[int, OutboxRow]], commits: list[tuple[Any, ...]]) -> None:
    """Compare the rows of the outbox with the lists of them in their commits, which are in the digest chain."""
    written: dict[int, list[list[str | int]]] = {}
    for commit_no, row in rows:
        item: list[str | int] = [row.topic, row.records, row.first_sequence, hashlib.sha256(row.payload).hexdigest()]
        written.setdefault(commit_no, []).append(item)
    for commit_no, _, listed in commits:
        if listed != written.pop(commit_no, []):
            raise OutboxDamaged(f"partition {partition} commit {commit_no}: its output is not in the outbox as written")
    if written:
        raise OutboxDamaged(f"partition {partition} commit {min(written)}: the outbox has output of no commit")


def commit_digest(database: Database, partition: int, commit_no: int) -> bytes | None:
    """Return the digest of a commit, for commit 0 that before the first; None if there is no such commit."""
    if commit_no == 0:
        return GENESIS
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT digest FROM commit WHERE partition = %s AND commit_no = %s", (partition, commit_no)
        ).fetchone()
    return None if row is None else bytes(row[0])


def outbox_delete(database: Database, partition: int, through_commit_no: int) -> None:
    """Delete the published rows up to and including a commit, and store that position."""
    with database.transaction() as connection, connection.pipeline():
        connection.execute(
            "DELETE FROM outbox WHERE partition = %s AND commit_no <= %s", (partition, through_commit_no)
        )
        connection.execute(
            "UPDATE relay_position SET commit_no = greatest(commit_no, %s) WHERE partition = %s",
            (through_commit_no, partition),
        )


def last_commit(database: Database, partition: int) -> int:
    """Return the number of the last commit of a partition, 0 before the first."""
    with database.transaction() as connection:
        row = connection.execute("SELECT commit_no FROM partition_state WHERE partition = %s", (partition,)).fetchone()
    return 0 if row is None else int(row[0])


def published(database: Database, partition: int) -> int:
    """Return the last commit whose output was published and deleted.

    The position of the relay in Kafka may be ahead of it.
    """
    with database.transaction() as connection:
        row = connection.execute("SELECT commit_no FROM relay_position WHERE partition = %s", (partition,)).fetchone()
    return 0 if row is None else int(row[0])


_SIZES: LiteralString = """
SELECT p.partition, coalesce(o.records, 0), coalesce(o.bytes, 0), c.log_time_us
FROM partition_state AS p LEFT JOIN (
    SELECT partition, sum(records)::bigint AS records, sum(octet_length(payload))::bigint AS bytes,
           min(commit_no) AS first
    FROM outbox GROUP BY partition
) AS o USING (partition) LEFT JOIN commit AS c ON c.partition = o.partition AND c.commit_no = o.first
ORDER BY p.partition
"""
_LOG_TIMES: LiteralString = """
SELECT wanted.place - 1, c.log_time_us
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[]) WITH ORDINALITY AS wanted (partition, first, last, place)
JOIN commit AS c ON c.partition = wanted.partition AND c.commit_no BETWEEN wanted.first AND wanted.last
"""


def outbox_sizes(database: Database) -> list[tuple[int, int, int, int | None]]:
    """Return (partition, records, bytes, log time of the oldest commit) of what waits in the outbox.

    The log time is None for a partition of which nothing waits.
    """
    with database.transaction() as connection:
        return connection.execute(_SIZES).fetchall()


def log_times(database: Database, commits: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return (place in ``commits``, log time) of each commit in ranges of (partition, first, last)."""
    parts = [list(part) for part in zip(*commits, strict=True)]
    with database.transaction() as connection:
        return connection.execute(_LOG_TIMES, parts).fetchall() if parts else []


class Listener:
    """Dedicated connection that receives a notification of each commit."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def wait(self, timeout_seconds: float) -> set[int]:
        """Return the partitions with new output, empty after the timeout. Read the outbox once before the first wait.

        Raises:
            DatabaseDown: the connection broke; listen again and read the outbox of every partition once.
        """
        try:
            heard = self._connection.notifies(timeout=timeout_seconds, stop_after=1)
            return {int(notification.payload) for notification in heard}
        except psycopg.Error as error:
            raise DatabaseDown(str(error).strip()) from error


@contextmanager
def listen(database: Database) -> Iterator[Listener]:
    """Receive notifications of commits from now on.

    Raises:
        DatabaseDown: the server cannot be reached.
    """
    try:
        connection = connect(schema_url(database.url), autocommit=True, application_name="tokenbill listener")
    except psycopg.OperationalError as error:
        raise DatabaseDown(str(error).strip()) from error
    try:
        connection.execute(b"LISTEN " + OUTBOX_CHANNEL.encode())
        yield Listener(connection)
    finally:
        connection.close()
