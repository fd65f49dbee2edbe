"""Stopped partitions in SQL: recording a stop, listing stops, and resuming a partition with two approvals.

A resumption that skips offsets is a commit like any other: it moves the position, counts the offsets as skipped, and is
in the digest chain. So the audit and every replay see the same step.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from billing.commits.commit_record import AccountChanges, CommitCounts, CommitRecord, Finding, PartitionState
from billing.commits.identities import DedupeChange
from billing.commits.input_batch import PositionMove
from billing.commits.partition_stop import PartitionStop, StoppedPartition, stopped_object
from billing.errors import Fenced
from billing.log_time import TimeLimits
from billing.store.commits.write_commit import write_commit
from billing.store.database import Connection, Database
from billing.store.partition_rows import acquire
from schemas.topics import INPUT_TOPICS

PARTITION_STOPPED = "partition.stopped.v1"
"""Type of the webhook event that tells of a stopped partition."""
RESUMED = "partition_resumed"
"""Kind of the finding of a commit that skipped offsets because two people said so."""


class ResumeRefused(Exception):
    """A partition cannot be resumed as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """What is asked: retry, or go on after offset ``after`` of ``topic``; by whom, and who agreed."""

    partition: int
    reason: str
    requested_by: str
    approved_by: str
    topic: str | None = None
    after: int | None = None


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
            " reason, requested_by, approved_by, resumed_at FROM partition_resume"
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


def resume(database: Database, asked: Resumption) -> int | None:
    """Let a stopped partition go on; return the number of the commit that skips offsets, None if none are skipped.

    Raises:
        ResumeRefused: the partition is not stopped, or not where ``asked`` says.
        DatabaseDown: the server cannot be reached.
    """
    epoch, state, sums = acquire(database, asked.partition)
    stopped = next((one for one in stopped_partitions(database) if one.stop.partition == asked.partition), None)
    if stopped is None:
        raise ResumeRefused(f"partition {asked.partition} is not stopped")
    moves = _moves(state, asked)
    cursors = {} if moves else _cursors(stopped.stop)
    with database.transaction() as connection:
        catalog = connection.execute("SELECT epoch FROM catalog_state").fetchone()
        last = connection.execute(
            "SELECT limits FROM commit WHERE partition = %s ORDER BY commit_no DESC LIMIT 1", (asked.partition,)
        ).fetchone()
    record = _record(state, asked, moves, cursors, catalog[0] if catalog else 0, last[0] if last else None)
    if not moves and not cursors:
        with database.transaction() as connection:
            held = connection.execute(
                "SELECT FROM partition_state WHERE partition = %s AND epoch = %s FOR UPDATE", (asked.partition, epoch)
            ).fetchone()
            if held is None:
                raise Fenced(f"partition {asked.partition} is not at epoch {epoch}")
            _resumed(connection, asked, stopped, None, moves)
        return None
    write_commit(
        database,
        epoch,
        record,
        sums,
        also=lambda connection: _resumed(connection, asked, stopped, record.commit_no, moves),
    )
    return record.commit_no


def _moves(state: PartitionState, asked: Resumption) -> list[PositionMove]:
    if asked.after is None:
        return []
    if asked.topic not in INPUT_TOPICS:
        raise ResumeRefused(f"{asked.topic} is not an input topic; name one of {', '.join(INPUT_TOPICS)}")
    position = state.positions.get(asked.topic, 0)
    if asked.after < position:
        raise ResumeRefused(
            f"partition {asked.partition} of {asked.topic} is at offset {position}: --after {asked.after} skips"
            f" nothing; name the last offset to skip, or leave out --topic and --after to try again"
        )
    end = asked.after + 1
    return [PositionMove(asked.topic, position, end, end - position)]


def _cursors(stop: PartitionStop) -> dict[tuple[str, int], int]:
    if stop.origin is None or stop.next_number is None or stop.topic is None:
        return {}
    return {(stop.topic, stop.origin): stop.next_number}


def _record(
    state: PartitionState,
    asked: Resumption,
    moves: list[PositionMove],
    cursors: dict[tuple[str, int], int],
    catalog_epoch: int,
    limits: dict[str, int] | None,
) -> CommitRecord:
    what = [f"{move.topic} offsets {move.start} to {move.end - 1} are skipped" for move in moves]
    what += [
        f"forward {number} of {topic} from partition {origin} is next" for (topic, origin), number in cursors.items()
    ]
    standard = TimeLimits()
    return CommitRecord(
        partition=asked.partition,
        commit_no=state.commit_no + 1,
        catalog_epoch=catalog_epoch,
        log_time_us=state.log_time_us,
        positions=moves,
        counts=CommitCounts(),
        changes=AccountChanges(),
        postings=[],
        rollups=[],
        dedupe=DedupeChange(),
        commands_seen=[],
        payments=[],
        outbox=[],
        next_sequences={},
        forward_next={},
        forward_cursors=cursors,
        findings=[
            Finding(
                RESUMED,
                f"{'; '.join(what)}: {asked.reason} (requested by {asked.requested_by}, approved by"
                f" {asked.approved_by})",
            )
        ],
        book_times={},
        limits=limits or {"future_limit_us": standard.future_us, "past_limit_us": standard.past_us},
    )


def _resumed(
    connection: Connection,
    asked: Resumption,
    stopped: StoppedPartition,
    commit_no: int | None,
    moves: list[PositionMove],
) -> None:
    stop = stopped.stop
    skipped: tuple[str | int | None, ...] = (None, None, None)
    for move in moves:
        skipped = move.topic, move.start, move.end - 1
    lost = (None, None, None) if moves else (stop.topic, stop.origin, stop.next_number)
    connection.execute("DELETE FROM partition_stop WHERE partition = %s", (asked.partition,))
    connection.execute(
        "INSERT INTO partition_resume (partition, commit_no, topic, first_offset, last_offset, forward_topic, origin,"
        " next_number, kind, stop_reason, worker, stopped_at, reason, requested_by, approved_by)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(asked.partition, commit_no, *skipped, *(lost if stop.next_number is not None else (None, None, None))),
            *(stop.kind, stop.reason),
            *(stopped.worker, stopped.since, asked.reason, asked.requested_by, asked.approved_by),
        ),
    )
