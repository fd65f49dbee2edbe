"""Histories of published output in SQL: each begins when output was published that this database does not have."""

from collections.abc import Sequence
from dataclasses import replace
from typing import LiteralString

from billing.commits.commit_record import OutputHistory
from billing.store.commits.write_commit import CATALOG_LOCK
from billing.store.database import Database

_INSERT: LiteralString = """
INSERT INTO output_history (partition, history, after_commit_no, common_commit_no, published_commit_no,
                            published_digest, begun_by)
SELECT partition, %s, commit_no, %s, %s, %s, %s FROM partition_state WHERE partition = %s
RETURNING after_commit_no
"""
_LAST: LiteralString = """
SELECT partition, history, after_commit_no, common_commit_no, published_commit_no, published_digest
FROM output_history WHERE partition = %s ORDER BY history DESC LIMIT 1
"""


def last_history(database: Database, partition: int) -> OutputHistory | None:
    """Return the newest history of a partition; None in the first one, which has no row."""
    with database.transaction() as connection:
        row = connection.execute(_LAST, (partition,), binary=True).fetchone()
    return None if row is None else OutputHistory(*row)


def begin_histories(database: Database, wanted: Sequence[OutputHistory], begun_by: str) -> list[OutputHistory]:
    """Begin histories after the last commits of their partitions, and return them with the numbers of these commits.

    Waits for commits in flight. The epoch of the catalogue rises, so that every later commit is decided by a writer
    that has read the new history.
    """
    begun = []
    with database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (CATALOG_LOCK,))
        for one in wanted:
            (after,) = connection.execute(
                _INSERT,
                (
                    *(one.history, one.common_commit_no, one.published_commit_no, one.published_digest),
                    *(begun_by, one.partition),
                ),
            ).fetchall()[0]
            begun.append(replace(one, after_commit_no=after))
        connection.execute("UPDATE catalog_state SET epoch = epoch + 1")
    return begun
