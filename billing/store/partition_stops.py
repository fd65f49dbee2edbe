"""Stopped partitions in SQL: recording a stop, and reading stops and resumptions."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from billing.commits.partition_stop import PartitionStop, StoppedPartition, stopped_object
from billing.store.database import Connection, Database

PARTITION_STOPPED = "partition.stopped.v1"
"""Type of the webhook event of a partition that stopped."""


def record_stop(database: Database, stop: PartitionStop, worker: str) -> None:
    """Record a stop, unless the partition has one, and tell the webhooks that subscribe to every account."""
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO partition_stop (partition, kind, reason, topic, stop_offset, last_offset, origin, next_number,"
            " worker) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " ON CONFLICT (partition) DO NOTHING RETURNING stopped_at, nextval('partition_stop_no')",
            (
                *(stop.partition, stop.kind, stop.reason, stop.topic, stop.offset, stop.last),
                *(stop.origin, stop.next_number, worker),
            ),
        ).fetchone()
        if row is not None:
            _tell(connection, StoppedPartition(stop, worker, row[0]), row[1])


def _tell(connection: Connection, stopped: StoppedPartition, number: int) -> None:
    partition = stopped.stop.partition
    event = {
        "specversion": "1.0",
        "type": PARTITION_STOPPED,
        "source": "urn:tokenbill:partitions",
        "id": f"stop-{number}",
        "time": stopped.since.isoformat().replace("+00:00", "Z"),
        "subject": f"partition-{partition}",
        "datacontenttype": "application/json",
        "data": stopped_object(stopped),
    }
    # The event is in no topic: a negative offset keeps its delivery apart from those of account.events.
    connection.execute(
        "INSERT INTO webhook_delivery (webhook_id, partition, record_offset, account, type, event_id, body)"
        " SELECT webhook_id, %s, %s, '', %s, %s, %b FROM webhook"
        " WHERE removed_at IS NULL AND account IS NULL AND (types = '{}' OR %s = ANY (types))",
        (
            *(partition, -number, PARTITION_STOPPED, f"{event['source']}/{event['id']}"),
            *(json.dumps(event, ensure_ascii=False).encode(), PARTITION_STOPPED),
        ),
    )


def stopped_partitions(database: Database) -> list[StoppedPartition]:
    """Return the partitions that are stopped, in order."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT partition, kind, reason, topic, stop_offset, last_offset, origin, next_number, worker, stopped_at"
            " FROM partition_stop ORDER BY partition"
        )
        return list(map(_stopped, rows))


def stop_of(database: Database, partition: int) -> PartitionStop | None:
    """Return why a partition is stopped, or None if it is not."""
    return next((one.stop for one in stopped_partitions(database) if one.stop.partition == partition), None)


def _stopped(row: tuple[Any, ...]) -> StoppedPartition:
    partition, kind, reason, topic, offset, last, origin, next_number, worker, since = row
    stop = PartitionStop(partition, kind, reason, topic, offset, last, origin, next_number)
    return StoppedPartition(stop, worker, since)


def resumptions(database: Database, partition: int | None = None) -> list[dict[str, Any]]:
    """Return what was resumed, oldest first, as JSON objects."""
    with database.transaction() as connection:
        cursor = connection.execute(
            "SELECT partition, commit_no, topic, first_offset, last_offset, kind, stop_reason, worker, stopped_at,"
            " reason, requested_key, requested_by, approved_key, approved_by, resumed_at FROM partition_resume"
            " WHERE %s::integer IS NULL OR partition = %s ORDER BY resume_no",
            (partition, partition),
        )
        names = [column.name for column in cursor.description or ()]
        return [{name: _shown(value) for name, value in zip(names, row, strict=True)} for row in cursor]


def _shown(value: object) -> object:
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def accepted_forwards(connection: Connection, partition: int) -> dict[int, dict[tuple[str, int], int]]:
    """Return by commit number the forward numbers that a resumption accepted as next, by (topic, origin)."""
    rows: Iterable[tuple[int, str, int, int]] = connection.execute(
        "SELECT r.commit_no, r.forward_topic, r.origin, r.next_number FROM partition_resume AS r"
        " WHERE r.partition = %s AND r.next_number IS NOT NULL",
        (partition,),
    )
    found: dict[int, dict[tuple[str, int], int]] = {}
    for commit_no, topic, origin, number in rows:
        found.setdefault(commit_no, {})[topic, origin] = number
    return found
