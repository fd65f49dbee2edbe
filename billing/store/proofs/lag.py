"""Progress of the database, for ``tokenbill status``: positions, depth of the outbox, and stopped partitions."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg

from billing.commits.partition_stop import stopped_object
from billing.errors import StoreError
from billing.store.database import Connection, Database
from billing.store.partition_stops import stopped_partitions


def input_positions(database_url: str) -> dict[tuple[str, int], int]:
    """Return the next offset of every input topic, by (topic, partition).

    Raises:
        DatabaseDown: the server cannot be reached.
        NotPrepared: there is no schema yet.
        StoreError: the server refused the query.
    """
    with _connected(database_url) as connection:
        rows = connection.execute("SELECT topic, partition, next_offset FROM position").fetchall()
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}


def outbox_depth(database_url: str) -> int:
    """Return the number of records in the outbox: committed, and not yet published and deleted.

    Raises as :func:`input_positions`.
    """
    with _connected(database_url) as connection:
        row = connection.execute("SELECT coalesce(sum(records), 0) FROM outbox").fetchone()
    return 0 if row is None else int(row[0])


def stopped(database_url: str) -> list[dict[str, Any]]:
    """Return the stopped partitions as JSON objects (:func:`billing.commits.partition_stop.stopped_object`).

    Raises as :func:`input_positions`.
    """
    with closing(Database(database_url, pool_size=1, application_name="tokenbill status")) as database:
        return [stopped_object(one) for one in stopped_partitions(database)]


@contextmanager
def _connected(database_url: str) -> Iterator[Connection]:
    database = Database(database_url, pool_size=1, application_name="tokenbill status")
    try:
        with closing(database), database.transaction() as connection:
            yield connection
    except psycopg.Error as error:
        raise StoreError(str(error)) from error
