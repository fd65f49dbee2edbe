"""Partitions without Kafka and SQL, for tests of forwarded records and messages between partitions.

The log here does what Kafka does for ours: it keeps records in order and may deliver a relay's batch again. The store
does what SQL does: it keeps every commit, and a partition that is thrown away is loaded from it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields

from billing_samples import MakeCalculator
from kept_identities import KeptIdentities

from billing.accounts.account import Account
from billing.accounts.held import Held
from billing.catalog import Catalog
from billing.commits.commit_record import CommitCounts, CommitRecord, Finding, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import Frame, unpack_frames
from billing.commits.output_documents import account_object
from billing.decide.roll_forward import roll_forward
from billing.engine.partition_engine import PartitionEngine
from billing.ledger import Postings
from billing.log_time import TimeLimits
from billing.record_keys import SIMULATED_KEYS, RecordKeys
from schemas.times import DAY_US, HOUR_US, parse_time_us
from schemas.topics import COMMAND_FORWARDED_TOPIC, INPUT_TOPICS, USAGE_FORWARDED_TOPIC

NOW_US = parse_time_us("2026-11-02T10:00:00+08:00")
AS_OF_US = NOW_US + 8 * DAY_US + 12 * HOUR_US


@dataclass
class Cluster(KeptIdentities):
    """Partitions, the log between them, and the stored state of each."""

    partitions: int
    make: MakeCalculator
    catalog: Catalog
    limits: TimeLimits | None = None
    log: dict[tuple[str, int], list[PlainRecord]] = field(default_factory=lambda: defaultdict(list))
    commits: list[CommitRecord] = field(default_factory=list)
    counts: CommitCounts = field(default_factory=CommitCounts)
    findings: list[Finding] = field(default_factory=list)
    balances: Counter[str] = field(default_factory=Counter)
    accounts: dict[str, Account] = field(default_factory=dict)
    commands: dict[tuple[str, str], str] = field(default_factory=dict)
    payments: set[tuple[str, str]] = field(default_factory=set)
    states: list[PartitionState] = field(default_factory=list)
    held_now: dict[str, Held] = field(default_factory=dict)
    keys: RecordKeys = SIMULATED_KEYS
    engines: list[PartitionEngine] = field(default_factory=list)
    calculators: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        for partition in range(self.partitions):
            self.states.append(PartitionState(partition, self.partitions))
            self.engines.append(self.engine(partition))

    # What SQL is asked for

    def record_keys(self) -> RecordKeys:
        return self.keys

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        return [deepcopy(self.accounts[name]) for name in ids if name in self.accounts]

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {key: self.commands[key] for key in ids if key in self.commands}

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return self.payments.intersection(pairs)

    def held(self, accounts: Sequence[str], read: object, catalog: Catalog) -> dict[str, Held]:
        return {name: self.held_now[name] for name in accounts if name in self.held_now}

    # What happens

    def engine(self, partition: int) -> PartitionEngine:
        """Load a partition's engine from its stored state."""
        calculator = self.make()
        self.calculators[partition : partition + 1] = [calculator]
        state = deepcopy(self.states[partition])
        return PartitionEngine(state, 0, self.catalog, self, calculator, self.limits)

    def produce(self, topic: str, partition: int, *frames: Frame | bytes, time_us: int = NOW_US) -> None:
        queue = self.log[topic, partition]
        for frame in frames:
            frame = Frame(None, frame) if isinstance(frame, bytes) else frame
            queue.append(PlainRecord(len(queue), time_us // 1000, frame.key, frame.value, frame.headers))  # type: ignore[arg-type]

    def step(self, partition: int, most: int, *, lose: bool = False, resend: bool = False) -> bool:
        """Commit at most ``most`` records of each topic on one partition. Return False if there were none.

        ``lose``: the commit fails and the partition starts again from what is stored. ``resend``: the relay sends what
        this commit forwards twice.
        """
        batches = []
        for topic in INPUT_TOPICS:
            start = self.engines[partition].positions.get(topic, 0)
            records = self.log[topic, partition][start : start + most]
            if records:
                batches.append(InputBatch(topic, start, start + len(records), records))
        if not batches:
            return False
        record = self.engines[partition].decide(batches)
        if lose:
            self.engines[partition] = self.engine(partition)
            return True
        self.store(partition, record)
        self.engines[partition].committed()
        for row in record.outbox:
            if row.topic in (USAGE_FORWARDED_TOPIC, COMMAND_FORWARDED_TOPIC):
                by_target: dict[int, list[Frame]] = defaultdict(list)
                for frame in unpack_frames(row.payload):
                    by_target[frame.target_partition].append(frame)
                for target, frames in by_target.items():
                    self.produce(row.topic, target, *frames)
                    if resend:
                        self.produce(row.topic, target, *frames)
        return True

    def store(self, partition: int, record: CommitRecord) -> None:
        state = self.states[partition]
        assert record.commit_no == state.commit_no + 1
        assert not self.commands.keys() & {(source, id_) for source, id_, _ in record.commands_seen}
        assert not self.payments & set(record.payments)
        state.commit_no = record.commit_no
        state.log_time_us = record.log_time_us
        state.positions.update((move.topic, move.end) for move in record.positions)
        state.next_sequences.update(record.next_sequences)
        state.forward_next.update(record.forward_next)
        state.forward_cursors.update(record.forward_cursors)
        changed = {source.source for source in record.dedupe.sources}
        state.sources = [known for known in state.sources if known.source not in changed] + record.dedupe.sources
        state.recent += record.dedupe.recent
        if self.limits is None:
            # No commit of a worker is without limits: such identities are filed by the hour of their events alone.
            state.unlogged_until_us = max(state.unlogged_until_us, record.log_time_us)
        self.keep(record)
        self.commands.update(((source, id_), outcome) for source, id_, outcome in record.commands_seen)
        self.payments.update(record.payments)
        for posting in record.postings:
            self.balances[posting.account_code] += posting.amount_pico
        for count in fields(CommitCounts):
            setattr(self.counts, count.name, getattr(self.counts, count.name) + getattr(record.counts, count.name))
        self.findings += record.findings
        self.commits.append(record)
        # The balances of SQL: what the calculator holds of the accounts that the commit names.
        changes = record.changes
        rows = b"".join(getattr(changes, rows.name) for rows in fields(changes))
        for name in {text.split("\t")[0] for text in rows.decode().splitlines()}:
            account = self.calculators[partition].account(name)  # type: ignore[attr-defined]
            self.accounts[name] = account

    def drain(self) -> None:
        """Commit until no partition has records left."""
        while any(self.step(partition, 1_000) for partition in range(self.partitions)):
            pass

    def documents(self) -> dict[str, object]:
        """Return each account as ``simulate`` writes it, rolled forward to :data:`AS_OF_US`."""
        found = {}
        for name, stored in sorted(self.accounts.items()):
            account = deepcopy(stored)
            plan_of = self.catalog.plans_by_key().__getitem__
            roll_forward(account, AS_OF_US, plan_of, Postings(), self.catalog)
            found[name] = account_object(account)
        return found
