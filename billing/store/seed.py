"""Seeding of an installation: the partition count, which never changes, and the first rows of every partition."""

import psycopg

from billing.calculator.core_row_hashes import sum_of_hashes
from billing.errors import DatabaseDown
from billing.store.commits.digest import GENESIS
from billing.store.database import Connection, connect, schema_url
from billing.store.migrate import OWNER, target_database
from billing.store.partition_rows import PARTITION_COUNT_KEY
from billing.store.summed_tables import hash_each
from schemas.topics import INPUT_TOPICS, OUTPUT_TOPICS

FIRST_SEQUENCE = 1


def seed(admin_database_url: str, partitions: int | None) -> int:
    """Store the partition count if there is none, seed the missing rows of each partition, and return the stored count.

    If another count than ``partitions`` is stored, it is kept, and the caller compares. If ``partitions`` is None, no
    count is stored.

    Raises:
        LookupError: ``partitions`` is None and no count is stored.
        DatabaseDown: the server cannot be reached.
    """
    url = schema_url(admin_database_url).set(database=target_database(admin_database_url))
    try:
        with connect(url) as connection:
            connection.execute(f"SET ROLE {OWNER}".encode())
            if partitions is not None:
                connection.execute(
                    "INSERT INTO installation (key, value) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    (PARTITION_COUNT_KEY, str(partitions)),
                )
            row = connection.execute("SELECT value FROM installation WHERE key = %s", (PARTITION_COUNT_KEY,)).fetchone()
            if row is None:
                raise LookupError("no partition count is stored")
            count = int(row[0])
            _seed_rows(connection, count)
            return count
    except psycopg.OperationalError as error:
        raise DatabaseDown(str(error).strip()) from error


def _seed_rows(connection: Connection, count: int) -> None:
    _seed_partitions(connection, count)
    connection.execute(
        "INSERT INTO position (topic, partition, next_offset)"
        " SELECT t, p, 0 FROM unnest(%s::text[]) AS t, generate_series(0, %s - 1) AS p ON CONFLICT DO NOTHING",
        (list(INPUT_TOPICS), count),
    )
    connection.execute(
        "INSERT INTO output_sequence (topic, partition, next_sequence)"
        " SELECT t, p, %s FROM unnest(%s::text[]) AS t, generate_series(0, %s - 1) AS p ON CONFLICT DO NOTHING",
        (FIRST_SEQUENCE, list(OUTPUT_TOPICS), count),
    )
    connection.execute(
        "INSERT INTO relay_position (partition, commit_no)"
        " SELECT p, 0 FROM generate_series(0, %s - 1) AS p ON CONFLICT DO NOTHING",
        (count,),
    )


def _seed_partitions(connection: Connection, count: int) -> None:
    """Seed the missing partitions, with the hash of the row and the sum that consists of it."""
    hashes = [hash_each("partition_state", partition, [(partition, 0, 0, 0)])[0] for partition in range(count)]
    made = connection.execute(
        "INSERT INTO partition_state (partition, epoch, commit_no, log_time_us, digest, suspense_after, row_hash)"
        " SELECT p - 1, 0, 0, 0, %s, 0, hash FROM unnest(%s::bytea[]) WITH ORDINALITY AS h (hash, p)"
        " ON CONFLICT DO NOTHING RETURNING partition, row_hash",
        (GENESIS, hashes),
    ).fetchall()
    sums = [(partition, sum_of_hashes(bytes(row_hash))) for partition, row_hash in made]
    connection.execute(
        "INSERT INTO row_sum (partition, table_name, rows, total)"
        " SELECT p, 'partition_state', 1, total FROM unnest(%s::integer[], %s::bytea[]) AS s (p, total)",
        ([partition for partition, _ in sums], [one.to_bytes() for _, one in sums]),
    )
