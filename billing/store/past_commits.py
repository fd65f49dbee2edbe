"""Inputs of the past commits of a partition, for a replay: positions, limits and catalogues. Never writes."""

from billing.catalog import Catalog
from billing.catalog.entries import from_entries
from billing.commits.input_batch import PositionMove
from billing.engine.past_account import DecidedCommit
from billing.log_time import TimeLimits
from billing.store.database import Database


def decisions(database: Database, partition: int) -> tuple[list[DecidedCommit], dict[int, Catalog]]:
    """Return the commits of a partition, in order, and the catalogues that they were decided with, by epoch."""
    commits = _decided_commits(database, partition)
    return commits, _catalogs_of(database, {commit.catalog_epoch for commit in commits})


def _decided_commits(database: Database, partition: int) -> list[DecidedCommit]:
    """Return the commits of a partition, in order."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT catalog_epoch, limits, positions, commit_no FROM commit WHERE partition = %s ORDER BY commit_no",
            (partition,),
        )
        return [
            DecidedCommit(
                epoch,
                TimeLimits(limits["future_limit_us"], limits["past_limit_us"]),
                tuple(PositionMove(topic, start, end) for topic, start, end in positions),
                commit_no,
            )
            for epoch, limits, positions, commit_no in rows
        ]


def _catalogs_of(database: Database, epochs: set[int]) -> dict[int, Catalog]:
    """Return the catalogue of each of these epochs."""
    with database.transaction() as connection:
        rows = connection.execute("SELECT epoch, body FROM catalog_entry").fetchall()
    return {epoch: from_entries([body for since, body in rows if since <= epoch]) for epoch in epochs}
