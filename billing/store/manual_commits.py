"""The record of a commit that two people order: it decides no input, and names them and their reason in a finding."""

from billing.commits.commit_record import AccountChanges, CommitCounts, CommitRecord, Finding, PartitionState
from billing.commits.identities import DedupeChange
from billing.commits.input_batch import PositionMove
from billing.log_time import TimeLimits
from billing.store.database import Database


def manual_record(
    database: Database,
    state: PartitionState,
    finding: Finding,
    moves: list[PositionMove] | None = None,
    cursors: dict[tuple[str, int], int] | None = None,
) -> CommitRecord:
    """Return the record of the next commit of a partition, with the limits of the last one.

    ``moves`` are offsets to skip, ``cursors`` the forward numbers that are expected next, by (topic, origin).
    """
    with database.transaction() as connection:
        catalog = connection.execute("SELECT epoch FROM catalog_state").fetchone()
        last = connection.execute(
            "SELECT limits FROM commit WHERE partition = %s ORDER BY commit_no DESC LIMIT 1", (state.partition,)
        ).fetchone()
    standard = TimeLimits()
    limits = last[0] if last else None
    return CommitRecord(
        partition=state.partition,
        commit_no=state.commit_no + 1,
        catalog_epoch=catalog[0] if catalog else 0,
        log_time_us=state.log_time_us,
        positions=moves or [],
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
        forward_cursors=cursors or {},
        findings=[finding],
        book_times={},
        limits=limits or {"future_limit_us": standard.future_us, "past_limit_us": standard.past_us},
    )
