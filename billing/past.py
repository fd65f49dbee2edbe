"""What an account was at a time in the past: the log's records up to then, decided again commit by commit.

The log is the truth and a replay decides the same (DESIGN 2 and 4), so the answer is exact whatever has happened since.
Never: SQL, Kafka, the clock; whoever calls brings records, commits and catalogues.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from billing.accounts import Account
from billing.calculator import Calculator
from billing.catalog.model import Catalog
from billing.commit import INPUT_TOPICS, InputBatch, PartitionState, PositionMove, Record
from billing.engine import PartitionEngine
from billing.history import decided_batches
from billing.limits import TimeLimits
from billing.simulate import Remembering

_NO_BOUND = 1 << 60
"""Identities are never forgotten: there is no SQL to load them from again."""


@dataclass(frozen=True, slots=True)
class DecidedCommit:
    """How one commit was decided: by which catalogue, under which limits, from which records."""

    catalog_epoch: int
    limits: TimeLimits
    moves: tuple[PositionMove, ...]


@dataclass(frozen=True, slots=True)
class History:
    """Everything that decided a partition. ``catalogs`` are by epoch; a topic's ``records`` begin at offset 0 and end
    where the time in question ends."""

    partition: int
    partitions: int
    commits: Sequence[DecidedCommit]
    catalogs: Mapping[int, Catalog]
    records: Mapping[str, Sequence[Record]]


def account_in_past(history: History, account: str, calculator: Calculator) -> Account | None:
    """The account after all of the history's records; None where it was not open by then."""
    replayed(history, [account], calculator)
    return calculator.account(account)


def replayed(history: History, due: Sequence[str], calculator: Calculator) -> Remembering:
    """Decide all of the history's records again; accounts that are ``due`` are rolled forward to the end of each
    commit. What was decided is in the loader that comes back."""
    loader = Remembering(keep_history=True)
    engine: PartitionEngine | None = None
    decided_by: tuple[int, TimeLimits] | None = None
    log_time_us = 0
    for commit in history.commits:
        batches = _batches(commit, history.records)
        if not batches:
            continue
        catalog = history.catalogs[commit.catalog_epoch]
        if engine is None:
            state = PartitionState(history.partition, history.partitions)
            engine = PartitionEngine(state, commit.catalog_epoch, catalog, loader, calculator, commit.limits, _NO_BOUND)
        elif decided_by != (commit.catalog_epoch, commit.limits):
            engine.continue_with(commit.catalog_epoch, catalog, commit.limits)
        decided_by = commit.catalog_epoch, commit.limits
        record = engine.decide(batches, due=due)
        loader.keep(decided_batches(commit.catalog_epoch, catalog, commit.limits, log_time_us, batches, record))
        loader.remember(record)
        engine.committed()
        log_time_us = record.log_time_us
    return loader


def _batches(commit: DecidedCommit, records: Mapping[str, Sequence[Record]]) -> list[InputBatch]:
    """The records of a commit, without those that came after the time in question."""
    found: list[InputBatch] = []
    for move in sorted(commit.moves, key=lambda one: INPUT_TOPICS.index(one.topic)):
        known = records.get(move.topic, ())
        end = min(move.end, len(known))
        if end > move.start:
            found.append(InputBatch(move.topic, move.start, end, known[move.start : end]))
    return found
