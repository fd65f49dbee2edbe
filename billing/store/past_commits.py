"""Inputs of the past commits of a partition, for a replay: positions, limits and catalogues. Never writes."""

from collections import defaultdict

from billing.catalog import Catalog
from billing.catalog.entries import from_entries
from billing.commits.input_batch import PositionMove
from billing.engine.past_account import DecidedCommit
from billing.log_time import read_limits
from billing.store.commits.held_rows import HeldRow, read_held_rows
from billing.store.database import Database
from billing.store.partition_stops import accepted_forwards


def decisions(database: Database, partition: int) -> tuple[list[DecidedCommit], dict[int, Catalog]]:
    """Return the commits of a partition, in order, and the catalogues that they were decided with, by epoch."""
    commits = _decided_commits(database, partition)
    return commits, _catalogs_of(database, {commit.catalog_epoch for commit in commits})


def _decided_commits(database: Database, partition: int) -> list[DecidedCommit]:
    """Return the commits of a partition, in order."""
    with database.transaction() as connection:
        held: dict[int, list[HeldRow]] = defaultdict(list)
        for commit_no, *row in connection.execute(
            "SELECT commit_no, account, kind, bucket, amount FROM command_held WHERE partition = %s", (partition,)
        ):
            held[commit_no].append(HeldRow(*row))
        rows = connection.execute(
            "SELECT commit_no, catalog_epoch, limits, positions FROM commit WHERE partition = %s ORDER BY commit_no",
            (partition,),
        ).fetchall()
        accepted = accepted_forwards(connection, partition)
        return [
            DecidedCommit(
                epoch,
                read_limits(limits),
                tuple(PositionMove(*move) for move in positions),
                read_held_rows(held.get(commit_no, ())),
                accepted.get(commit_no, {}),
                commit_no,
            )
            for commit_no, epoch, limits, positions in rows
        ]


def _catalogs_of(database: Database, epochs: set[int]) -> dict[int, Catalog]:
    """Return the catalogue of each of these epochs."""
    with database.transaction() as connection:
        rows = connection.execute("SELECT epoch, body FROM catalog_entry").fetchall()
    return {epoch: from_entries([body for since, body in rows if since <= epoch]) for epoch in epochs}
