"""Acquisition of a partition: raise its epoch, then load its state without the accounts. Also reads positions.

The rows of a partition are seeded when the database is prepared; this module never creates them.
"""

from collections.abc import Iterable
from typing import LiteralString

import psycopg

from billing.commits.commit_record import PartitionState
from billing.commits.identities import RECENT_NUMBERS, RecentNumbers, SourceState
from billing.errors import DatabaseDown, NotPrepared
from billing.store.commits.number_runs import unpack_numbers, unpack_runs
from billing.store.commits.write_commit import session_name
from billing.store.database import Connection, Database
from billing.store.summed_tables import READ_WHEN_ACQUIRED, SUMMED_TABLES, RowSums, check_rows, read_sums

PARTITION_COUNT_KEY = "partitions"
HUNG_COMMIT_SECONDS = 10
"""Time after which a commit of the former owner is terminated: a stopped process would hold the row lock forever."""

# Of each source, only the rows that reach into its last numbers.
_RECENT: LiteralString = """
SELECT source, highest, payload FROM (
    SELECT source, highest, payload, commit_no, row_no, max(highest) OVER (PARTITION BY source) AS last
    FROM dedupe_recent WHERE partition = %s
) AS r WHERE highest > last - %s ORDER BY commit_no, row_no
"""


def acquire(database: Database, partition: int) -> tuple[int, PartitionState, RowSums]:
    """Raise the epoch of the partition, after any commit in flight has ended, and load the state of the partition.

    Returns the new epoch, the state, and the sums of its rows with the rows that no commit had written so.

    Raises:
        NotPrepared: the database has no rows for this partition.
        DatabaseDown: the server cannot be reached, or a commit in flight did not end when it was terminated.
    """
    try:
        return _acquire(database, partition)
    except DatabaseDown as error:
        if not isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
            raise
    _end_hung_commit(database, partition)
    return _acquire(database, partition)


def _acquire(database: Database, partition: int) -> tuple[int, PartitionState, RowSums]:
    with database.transaction() as connection:
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{HUNG_COMMIT_SECONDS}s",))
        row = connection.execute(
            "UPDATE partition_state AS s SET epoch = epoch + 1 WHERE partition = %s RETURNING epoch, commit_no,"
            " log_time_us, unlogged_until_us, digest,"
            " coalesce((SELECT max(history) FROM output_history AS h WHERE h.partition = s.partition), 0)",
            (partition,),
            binary=True,
        ).fetchone()
        if row is None:
            raise NotPrepared(f"the database has no partition {partition}; prepare it with `tokenbill up`")
        epoch, commit_no, log_time_us, unlogged_until_us, digest, history = row
        state = _load(connection, partition)
        state.commit_no, state.log_time_us, state.unlogged_until_us = commit_no, log_time_us, unlogged_until_us
        state.digest, state.history = bytes(digest), history
        return epoch, state, _load_sums(connection, partition)


def _load_sums(connection: Connection, partition: int) -> RowSums:
    """Read the sums of the partition's rows, and check them and the rows from which the state follows."""
    sums = RowSums(read_sums(connection, partition))
    if _differ_from_chain(connection, partition, sums):
        sums.strange.append("row_sum")
    for table in READ_WHEN_ACQUIRED:
        checked = check_rows(connection, SUMMED_TABLES[table], partition)
        sums.strange += [name for one in checked.values() for name in one.differ]
    return sums


def sums_differ_from_chain(connection: Connection, partition: int) -> bool:
    """True if the stored sums of a partition are not those in the digest of its last commit."""
    return _differ_from_chain(connection, partition, RowSums(read_sums(connection, partition)))


def _differ_from_chain(connection: Connection, partition: int, sums: RowSums) -> bool:
    row = connection.execute(
        "SELECT c.rows_sha256 FROM partition_state AS p JOIN commit AS c USING (partition, commit_no)"
        " WHERE p.partition = %s",
        (partition,),
    ).fetchone()
    return row is not None and row[0] is not None and bytes(row[0]) != sums.digest()


def _load(connection: Connection, partition: int) -> PartitionState:
    with connection.pipeline():
        count = connection.execute("SELECT value FROM installation WHERE key = %s", (PARTITION_COUNT_KEY,))
        positions = connection.execute("SELECT topic, next_offset FROM position WHERE partition = %s", (partition,))
        sequences = connection.execute(
            "SELECT topic, next_sequence FROM output_sequence WHERE partition = %s", (partition,)
        )
        forward_next = connection.execute(
            "SELECT topic, target, next_number FROM forward_next WHERE partition = %s", (partition,)
        )
        cursors = connection.execute(
            "SELECT topic, origin, next_number FROM forward_cursor WHERE partition = %s", (partition,)
        )
        sources = connection.execute(
            "SELECT source, numbered, seen_runs, refused FROM dedupe_source WHERE partition = %s ORDER BY source",
            (partition,),
            binary=True,
        )
        recent = connection.execute(_RECENT, (partition, RECENT_NUMBERS), binary=True)
    stored_count = count.fetchone()
    if stored_count is None:
        raise NotPrepared("the database does not say how many partitions there are; prepare it with `tokenbill up`")
    return PartitionState(
        partition=partition,
        partitions=int(stored_count[0]),
        positions=dict(positions.fetchall()),
        next_sequences=dict(sequences.fetchall()),
        forward_next={(topic, target): number for topic, target, number in forward_next},
        forward_cursors={(topic, origin): number for topic, origin, number in cursors},
        sources=[
            SourceState(source, numbered, unpack_runs(runs), unpack_numbers(refused))
            for source, numbered, runs, refused in sources
        ],
        recent=[RecentNumbers(source, highest, payload) for source, highest, payload in recent],
    )


def _end_hung_commit(database: Database, partition: int) -> None:
    with database.transaction() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database() AND usename = session_user",
            (session_name(partition),),
        )


def positions(database: Database, partitions: Iterable[int]) -> dict[tuple[str, int], int]:
    """Return the next offset of every input topic of these partitions, by (topic, partition). The epochs do not change.

    Raises:
        NotPrepared: a partition has no rows.
    """
    wanted = sorted(set(partitions))
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT topic, partition, next_offset FROM position WHERE partition = ANY(%s)", (wanted,)
        ).fetchall()
    found = {(topic, partition): next_offset for topic, partition, next_offset in rows}
    if missing := set(wanted) - {partition for _, partition in found}:
        raise NotPrepared(
            f"the database has no positions of partitions {sorted(missing)}; prepare it with `tokenbill up`"
        )
    return found
