"""History of an account since its opening, step by step: the input of a correction.

Owns: the steps, and how to find them in the commits of a partition. Each commit records the outcome of its input:
``usage.rated`` names the rated usage, ``commands_seen`` the accepted commands. Never: rules, SQL, Kafka.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from billing.accounts.held import NO_HOLDS, Held
from billing.catalog.model import ABOVE_COMMITMENT, MINIMUM_CHARGE, Catalog
from billing.catalog.period_rules import BLOCKS_LINE
from billing.commits.commit_record import CommitRecord
from billing.commits.input_batch import InputBatch, Record
from billing.commits.outbox_frames import unpack_batches
from billing.log_time import CURRENT_RULES, DecidedAt, RulesByTime, TimeLimits, decided_at, rules_of
from schemas.commands import Command, parse_command
from schemas.json_text import dump_json
from schemas.meters import Counts, canonical_counts
from schemas.sources import is_own
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, RATED_TOPIC
from schemas.usage import UsageEvent, parse_usage, reread_usage

Identity: TypeAlias = tuple[str, str]
"""(source, id) of a command, or of usage within one account."""


@dataclass(frozen=True, slots=True)
class Step:
    """A rated usage event or an accepted command, with its catalogue epoch and the time of its decision."""

    epoch: int
    at: DecidedAt
    item: UsageEvent | Command
    offset: int = 0
    """Offset of the record of a usage event."""
    held: Held = NO_HOLDS
    """Amounts that open holds held when a command was decided."""


@dataclass(frozen=True, slots=True)
class AccountHistory:
    """All steps of one account in decision order, and the catalogues they refer to, by epoch."""

    steps: Sequence[Step]
    catalogs: Mapping[int, Catalog]
    rules: RulesByTime = CURRENT_RULES
    """The rules that decided, by log time."""


@dataclass(frozen=True, slots=True)
class DecidedBatches:
    """One commit: its input, the catalogue and limits that decided it, and its outcome."""

    epoch: int
    catalog: Catalog
    limits: TimeLimits | None
    log_time_us: int
    """The partition's log time before the commit, microseconds UTC."""
    batches: Sequence[InputBatch]
    accepted: frozenset[Identity]
    """Accepted commands."""
    rated: Sequence[bytes]
    """Packed output for ``usage.rated``."""
    rejected: frozenset[tuple[str, int]] = frozenset()
    """(topic, offset) of records that have no part in the identity they name: rejected, foreign or forged ones.

    One commit may hold a rejected event and its repair under one identity.
    """
    held: Mapping[str, Held] = field(default_factory=dict)
    """Amounts that open holds held when the commands were decided, by account."""


def decided_batches(
    epoch: int,
    catalog: Catalog,
    limits: TimeLimits | None,
    log_time_us: int,
    batches: Sequence[InputBatch],
    record: CommitRecord,
) -> DecidedBatches:
    """Extract from a commit what a history needs; ``log_time_us`` is the partition's log time before the commit."""
    accepted = frozenset((source, id_) for source, id_, _ in record.commands_seen)
    rated = [row.payload for row in record.outbox if row.topic == RATED_TOPIC]
    rejected = frozenset(
        (
            *((one.topic, one.record.offset) for one in record.suspense),
            *((one.topic, one.record.offset) for one in record.foreign),
            *record.passed_over,
        )
    )
    held = dict(record.held)
    return DecidedBatches(epoch, catalog, limits, log_time_us, batches, accepted, rated, rejected, held)


def histories(commits: Iterable[DecidedBatches], accounts: Collection[str]) -> dict[str, AccountHistory]:
    """Return the history of each account, from all commits of its partition."""
    reader = HistoryReader(accounts)
    for commit in commits:
        reader.read(commit)
    return reader.histories()


@dataclass(slots=True)
class HistoryReader:
    """Collector of the steps of some accounts from the commits of a partition, read in order."""

    accounts: Collection[str]
    steps: dict[str, list[Step]] = field(init=False)
    catalogs: dict[int, Catalog] = field(default_factory=dict)
    _clock_us: dict[str, int] = field(default_factory=dict)
    """Greatest time of each account so far, used if there is no log (``simulate``)."""
    _accepted: set[Identity] = field(default_factory=set)
    _rules: RulesByTime | None = None
    """The rules of the commits read so far."""

    def __post_init__(self) -> None:
        self.steps = {name: [] for name in self.accounts}

    def histories(self) -> dict[str, AccountHistory]:
        """Return the histories found so far."""
        return {
            name: AccountHistory(steps, self.catalogs, self._rules or CURRENT_RULES)
            for name, steps in self.steps.items()
        }

    def read(self, commit: DecidedBatches) -> None:
        """Add the steps of the next commit."""
        self.catalogs[commit.epoch] = commit.catalog
        number = rules_of(commit.limits).now
        self._rules = (self._rules or RulesByTime(number)).followed_by(number, commit.log_time_us)
        rated = self._rated(commit.rated)
        declared = {
            "declared_meters": commit.catalog.declared_meters(),
            "declared_attributes": commit.catalog.declared_attributes(),
        }
        log_time_us = commit.log_time_us
        for batch in commit.batches:
            commands = batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC)
            for record in batch.records:
                log_time_us = max(log_time_us, record.timestamp * 1000)
                if not self._may_concern(record):
                    continue
                rejected = (batch.topic, record.offset) in commit.rejected
                if commit.limits is None and not commands:
                    self._move_clock(record, declared, rejected)
                if rejected:
                    continue
                if commands:
                    self._read_command(commit, record, log_time_us)
                elif rated:
                    self._read_usage(commit, record, log_time_us, rated, declared)

    def _may_concern(self, record: Record) -> bool:
        """Return True if a record may belong to one of the accounts, without parsing it.

        A name that does not appear literally in the value is escaped with a backslash, or it is in a header.
        """
        value = record.value or b""
        if b"\\" in value or any(name.startswith("ce_") for name, _ in record.headers):
            return True
        return any(name.encode() in value for name in self.accounts)

    def _rated(self, payloads: Iterable[bytes]) -> dict[tuple[str, str, str], Counts]:
        """Return the accounts' usage that a commit rated: (account, source, id) to the counts in its lines."""
        marks = [b'"account":' + dump_json(name) for name in self.accounts]
        found: dict[tuple[str, str, str], Counts] = {}
        for payload in payloads:
            for frame in unpack_batches(payload):
                value = frame.value or b""
                if any(mark in value for mark in marks):
                    lines = json.loads(value)["data"]["events"]
                    mine = (line for line in lines if line["account"] in self.accounts)
                    found.update(((line["account"], line["source"], line["id"]), _counts_in(line)) for line in mine)
        return found

    def _move_clock(self, record: Record, declared: Mapping[str, frozenset[str]], rejected: bool) -> None:
        """Move the clock of an open account to the time of its usage, rated or not, as a simulation does."""
        event = parse_usage(record.value, record.headers, note_unknown=True, **declared)
        if (
            not isinstance(event, UsageEvent)
            or not self.steps.get(event.account)
            or (rejected and is_own(event.source))
        ):
            return
        self._clock_us[event.account] = max(event.time_us, self._clock_us.get(event.account, 0))

    def _read_command(self, commit: DecidedBatches, record: Record, log_time_us: int) -> None:
        command = parse_command(record.value, record.headers, messages=True)
        if not isinstance(command, Command) or command.account not in self.steps:
            return
        identity = (command.source, command.id)
        if identity in self._accepted:
            return  # a duplicate
        at = self._at(commit, command.account, command.time_us, log_time_us)
        opened = bool(self.steps[command.account]) or identity in commit.accepted
        if at.simulated and opened:
            self._clock_us[command.account] = at.now_us  # a refused command moves the clock too
        if identity in commit.accepted:
            self._accepted.add(identity)
            held = commit.held.get(command.account, NO_HOLDS)
            self.steps[command.account].append(Step(commit.epoch, at, command, held=held))

    def _read_usage(
        self,
        commit: DecidedBatches,
        record: Record,
        log_time_us: int,
        rated: dict[tuple[str, str, str], Counts],
        declared: Mapping[str, frozenset[str]],
    ) -> None:
        event = reread_usage(record.value, record.headers, rated, **declared)
        if event is None or event.account not in self.steps:
            return
        del rated[event.account, event.source, event.id]  # a later event with this identity is a resend
        at = self._at(commit, event.account, event.time_us, log_time_us)
        if at.simulated:
            self._clock_us[event.account] = at.now_us
        self.steps[event.account].append(Step(commit.epoch, at, event, record.offset))

    def _at(self, commit: DecidedBatches, account: str, time_us: int, log_time_us: int) -> DecidedAt:
        if commit.limits is None:
            return decided_at(max(time_us, self._clock_us.get(account, 0)), None)
        return decided_at(log_time_us, commit.limits)._replace(rules=self._rules or CURRENT_RULES)


def _counts_in(line: Mapping[str, Any]) -> Counts:
    """Return the counts of a rated line; a meter that is split into tiers has several entries.

    An entry that an increment raised has the quantity used besides the billed one.
    """
    sums: dict[str, int] = {}
    for one in line["lines"]:
        if one["meter"] not in (MINIMUM_CHARGE, BLOCKS_LINE, ABOVE_COMMITMENT):
            sums[one["meter"]] = sums.get(one["meter"], 0) + one.get("used", one["quantity"])
    return canonical_counts(sums)
