"""Resumption of a stopped partition, which two people agree to.

A resumption that skips offsets is a commit like any other: it moves the position, counts the offsets as skipped, and is
in the digest chain. So the audit and every replay see the same step.
"""

from dataclasses import dataclass

from billing.commits.commit_record import Finding, PartitionState
from billing.commits.input_batch import PositionMove
from billing.commits.partition_stop import PartitionStop, StoppedPartition
from billing.errors import Fenced
from billing.store.commits.write_commit import write_commit
from billing.store.database import Connection, Database
from billing.store.manual_commits import manual_record
from billing.store.partition_rows import acquire
from billing.store.partition_stops import stopped_partitions
from billing.store.two_keys import TwoKeys
from schemas.topics import INPUT_TOPICS

RESUMED = "partition_resumed"
"""Kind of the finding of a commit that skipped offsets because two people said so."""


class ResumeRefused(Exception):
    """A partition cannot be resumed as asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Resumption:
    """A request to retry, or to go on after offset ``after`` of ``topic``, with the keys of two people."""

    partition: int
    reason: str
    keys: TwoKeys
    topic: str | None = None
    after: int | None = None


def resume(database: Database, asked: Resumption) -> int | None:
    """Let a stopped partition go on; return the number of the commit that skips offsets, None if none are skipped.

    Raises:
        ResumeRefused: the partition is not stopped, or not where ``asked`` says.
        DatabaseDown: the server cannot be reached.
    """
    # Before the epoch is raised: that would fence the writer of a partition that is not stopped.
    stopped = next((one for one in stopped_partitions(database) if one.stop.partition == asked.partition), None)
    if stopped is None:
        raise ResumeRefused(f"partition {asked.partition} is not stopped")
    epoch, state, sums = acquire(database, asked.partition)
    moves = _moves(state, asked)
    cursors = {} if moves else _cursors(stopped.stop)
    what = [f"{move.topic} offsets {move.start} to {move.end - 1} are skipped" for move in moves]
    what += [
        f"forward {number} of {topic} from partition {origin} is next" for (topic, origin), number in cursors.items()
    ]
    finding = Finding(RESUMED, f"{'; '.join(what)}: {asked.reason} ({asked.keys})")
    record = manual_record(database, state, finding, moves, cursors)
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
        " next_number, kind, stop_reason, worker, stopped_at, reason, requested_key, requested_by,"
        " approved_key, approved_by) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(asked.partition, commit_no, *skipped, *(lost if stop.next_number is not None else (None, None, None))),
            *(stop.kind, stop.reason),
            *(stopped.worker, stopped.since, asked.reason, asked.keys.requested_key, asked.keys.requested_by),
            *(asked.keys.approved_key, asked.keys.approved_by),
        ),
    )
