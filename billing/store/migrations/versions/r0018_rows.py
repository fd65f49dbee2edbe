"""Hashes of rows, and their sums by table and partition, in the digest of each commit from now on; journal accounts.

The rows that are there when this runs are taken as they are: their hashes and sums are computed here, and what changed
them before cannot be known. Extras become ``json``: what was written is what is read, to the byte.
"""

from hashlib import blake2b
from typing import Any

from alembic import op

revision = "0018"
down_revision = "0017"

TABLES = """
CREATE TABLE row_sum (
    partition integer REFERENCES partition_state,
    table_name text COLLATE "C",
    rows bigint NOT NULL,
    total bytea NOT NULL,
    PRIMARY KEY (partition, table_name)
) WITH (fillfactor = 50);
GRANT INSERT, UPDATE (rows, total) ON row_sum TO tokenbill_app;
ALTER TABLE commit ADD COLUMN rows_sha256 bytea;
ALTER TABLE journal ADD COLUMN account text COLLATE "C";
ALTER TABLE account ALTER COLUMN extras DROP DEFAULT;
ALTER TABLE account ALTER COLUMN extras TYPE json USING extras::json;
ALTER TABLE account ALTER COLUMN extras SET DEFAULT '{}';
GRANT UPDATE (row_hash) ON account, bucket TO tokenbill_app;
"""
COLUMNS = {
    "account": "account, currency, price_book, payment, credit_limit_pico, wallet_pico, absorbed_micro, absorbed_pico,"
    " status, clock_us, next_due_us, extras",
    "bucket": "account, grant_id, plan, plan_version, bucket_no, unit, amount_micro, remaining_micro, liability_pico,"
    " valid_from_us, valid_until_us, lapse_at_us, alerts_fired, status, carried_cycles",
    "book_time": "name, max_event_time_us",
    "dedupe_hour": "hour_us, commit_no, row_no, log_hour_us, payload",
    "dedupe_recent": "commit_no, row_no, source, highest, payload",
    "dedupe_source": "source, numbered, seen_runs, refused",
    "finding": "commit_no, row_no, kind, detail",
    "forward_cursor": "topic, origin, next_number",
    "forward_next": "topic, target, next_number",
    "partition_state": "partition, suspense_after, conflict_after, unlogged_until_us",
}
"""The covered columns of each table (billing.store.summed_tables), as they are in this revision."""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    for table in COLUMNS:
        op.execute(f"ALTER TABLE {table} ADD COLUMN row_hash bytea")
    op.execute(TABLES)
    connection: Any = op.get_bind().connection.driver_connection
    partitions = [number for (number,) in connection.execute("SELECT partition FROM partition_state").fetchall()]
    for table, columns in COLUMNS.items():
        for partition in partitions:
            _begin(connection, table, columns, partition)


def _begin(connection: Any, table: str, columns: str, partition: int) -> None:
    """Store the hash of each row of a partition in a table, and their sum."""
    salt = partition.to_bytes(16, "little")
    staged, rows, total = [], 0, 0
    query = f"COPY (SELECT ctid, {columns} FROM {table} WHERE partition = {partition}) TO STDOUT"  # noqa: S608 (literals)
    with connection.cursor() as cursor:
        with cursor.copy(query) as copy:
            for line in copy:
                place, _, row = bytes(line)[:-1].partition(b"\t")
                hashed = blake2b(row, digest_size=32, person=table.encode(), salt=salt).digest()
                weight = blake2b(hashed, digest_size=64, person=b"row sum").digest()
                staged.append(place + b"\t\\\\x" + hashed.hex().encode() + b"\n")
                rows, total = rows + 1, (total + int.from_bytes(weight, "little")) % (1 << 512)
        if not rows:
            return
        cursor.execute("CREATE TEMPORARY TABLE stage_hash (place tid, hash bytea) ON COMMIT DROP")
        with cursor.copy("COPY stage_hash FROM STDIN") as copy:
            copy.write(b"".join(staged))
        cursor.execute(f"UPDATE {table} AS t SET row_hash = s.hash FROM stage_hash AS s WHERE t.ctid = s.place")  # noqa: S608 (literals)
        cursor.execute("DROP TABLE stage_hash")
        cursor.execute(
            "INSERT INTO row_sum (partition, table_name, rows, total) VALUES (%s, %s, %s, %s)",
            (partition, table, rows, total.to_bytes(64, "little")),
        )
