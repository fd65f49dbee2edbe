"""An account at a time in the past, and its history: the log's records are decided again, commit by commit.

A replay of the log decides the same, so the result is exact regardless of later events (docs/reference/principles.md,
"Log and writer" and "Log time"). Never: SQL, Kafka, the clock; the caller supplies commits, catalogues and records.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from billing.accounts.account import Account
from billing.accounts.held import Held
from billing.calculator.interface import Calculator
from billing.catalog.model import Catalog
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import InputBatch, PositionMove, Record
from billing.corrections.history import AccountHistory, HistoryReader, decided_batches
from billing.engine.partition_engine import PartitionEngine
from billing.engine.simulation import Remembering
from billing.log_time import TimeLimits
from billing.record_keys import RecordKeys
from schemas.topics import INPUT_TOPICS

_NO_BOUND = 1 << 60
"""Memory limit that is never reached: identities cannot be loaded again, because there is no SQL."""


@dataclass(frozen=True, slots=True)
class DecidedCommit:
    """One past commit: its catalogue epoch, time limits, position moves, and what was held of accounts."""

    catalog_epoch: int
    limits: TimeLimits
    moves: tuple[PositionMove, ...]
    held: Mapping[str, Held] = field(default_factory=dict)
    accepted_forwards: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """Forward numbers accepted as next after a lost forward, by (topic, origin)."""
    commit_no: int = 0


@dataclass(frozen=True, slots=True)
class PartitionHistory:
    """All input of a partition's decisions up to a time.

    ``catalogs`` maps epochs to catalogues. ``read`` returns the records of a position move from its start up to the
    time in question; it is called in the order of the commits. ``record_keys`` are those of the installation.
    """

    partition: int
    partitions: int
    commits: Iterable[DecidedCommit]
    catalogs: Mapping[int, Catalog]
    read: Callable[[PositionMove], Sequence[Record]]
    record_keys: RecordKeys


class _Watching(Remembering):
    """A loader that knows the history of some accounts only.

    The replay does not correct usage of other accounts, because their state is not requested.
    """

    def __init__(self, accounts: Sequence[str], record_keys: RecordKeys) -> None:
        super().__init__(keep_history=False)
        self.keys = record_keys
        self.reader = HistoryReader(accounts)
        self.recorded: Mapping[str, Held] = {}
        """The record of the current commit about holds, by account."""

    def held(
        self, accounts: Sequence[str], read: Callable[[str], Account | None], catalog: Catalog
    ) -> Mapping[str, Held]:
        return self.recorded

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        known = self.reader.histories()
        return {name: known[name] for name in accounts if name in known}


def account_in_past(
    history: PartitionHistory, account: str, calculator: Calculator
) -> tuple[Account, int | None] | None:
    """Return the account after all records of the history, and the number of the commit that it is as of.

    The result is None if the account was not open then. The number is None if the history ends within a commit.
    """
    _, commit_no = _replay(history, [account], calculator)
    found = calculator.account(account)
    return None if found is None else (found, commit_no)


def histories_of(
    history: PartitionHistory, accounts: Sequence[str], calculator: Calculator
) -> dict[str, AccountHistory]:
    """Return the history of each account; afterwards the calculator holds the accounts, rolled to the last log time."""
    return _replay(history, accounts, calculator)[0]


def _replay(
    history: PartitionHistory, accounts: Sequence[str], calculator: Calculator
) -> tuple[dict[str, AccountHistory], int | None]:
    """Decide the history again; return that of each account, and the number of the last commit if it is whole."""
    commit_no: int | None = None
    loader = _Watching(accounts, history.record_keys)
    engine: PartitionEngine | None = None
    decided_by: tuple[int, TimeLimits] | None = None
    log_time_us = 0
    ended: set[str] = set()
    for commit in history.commits:
        batches = _batches(commit, history.read, ended)
        if engine is not None:
            engine.accept_forwards(commit.accepted_forwards)
        if not batches:
            continue
        catalog = history.catalogs[commit.catalog_epoch]
        if engine is None:
            state = PartitionState(history.partition, history.partitions)
            engine = PartitionEngine(state, commit.catalog_epoch, catalog, loader, calculator, commit.limits, _NO_BOUND)
        elif decided_by != (commit.catalog_epoch, commit.limits):
            engine.continue_with(commit.catalog_epoch, catalog, commit.limits)
        decided_by = commit.catalog_epoch, commit.limits
        loader.recorded = commit.held
        record = engine.decide(batches, due=accounts)
        loader.reader.read(decided_batches(commit.catalog_epoch, catalog, commit.limits, log_time_us, batches, record))
        loader.remember(record)
        engine.committed()
        log_time_us = record.log_time_us
        whole = sum(batch.end - batch.start for batch in batches) == sum(move.end - move.start for move in commit.moves)
        commit_no = commit.commit_no if whole else None
    return loader.reader.histories(), commit_no


def _batches(
    commit: DecidedCommit, read: Callable[[PositionMove], Sequence[Record]], ended: set[str]
) -> list[InputBatch]:
    """Return the batches of a commit, without records after the time in question.

    A topic in which that time is reached is added to ``ended``: the later moves of the topic are beyond it.
    """
    found: list[InputBatch] = []
    for move in sorted(commit.moves, key=lambda one: INPUT_TOPICS.index(one.topic)):
        if move.topic in ended:
            continue
        records = read(move)
        if len(records) == move.records:
            found.append(InputBatch(move.topic, move.start, move.end, records, move.skipped))
            continue
        ended.add(move.topic)
        if records:
            end = records[-1].offset + 1
            found.append(InputBatch(move.topic, move.start, end, records, end - move.start - len(records)))
    return found
