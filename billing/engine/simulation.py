"""Simulation: usage and commands of a file, decided in order by the same engine, without servers.

It is the reference for every balance. Owns: how lines become batches, and the JSON document of ``tokenbill simulate``
(docs/reference/command-line.md, "tokenbill simulate").
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from billing import ledger
from billing.accounts.account import Account
from billing.accounts.held import Held
from billing.calculator.interface import Calculator
from billing.catalog.model import Catalog
from billing.commits.commit_record import CommitCounts, CommitRecord, PartitionState
from billing.commits.identities import HashHour, LogPart
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.outbox_frames import Frame, unpack_batches, unpack_frames
from billing.commits.output_documents import account_object, debts_object, trial_balance_object
from billing.corrections.history import AccountHistory, DecidedBatches, decided_batches, histories
from billing.engine.partition_engine import PartitionEngine
from billing.record_keys import SIMULATED_KEYS, RecordKeys
from schemas.cloudevents import read_envelope
from schemas.commands import COMMANDS, TransferPackage
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.topics import ACCOUNT_EVENT_TOPIC, COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, REJECTED_TOPIC, USAGE_TOPIC
from schemas.units import format_pico

LINES_PER_COMMIT = 20_000
DEFAULT_OPERATOR = "operator"


class NothingStored:
    """A loader for a partition that starts empty."""

    keys: RecordKeys = SIMULATED_KEYS

    def record_keys(self) -> RecordKeys:
        return self.keys

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        return []

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {}

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return set()

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        return []

    def log_parts(self, partition: int, from_us: int, at_most: int) -> list[LogPart]:
        return []

    def load_part(self, partition: int, part: LogPart) -> list[bytes]:
        return []

    def held(
        self, accounts: Sequence[str], read: Callable[[str], Account | None], catalog: Catalog
    ) -> Mapping[str, Held]:
        return {}

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        return histories([], accounts)


class Remembering(NothingStored):
    """A loader that keeps identities and payments of one run in memory; with ``keep_history`` also its commits.

    Identities of usage are kept by the hour of the event's time, where there is a log: those of a simulation never
    leave the calculator.
    """

    def __init__(self, *, keep_history: bool) -> None:
        self.hours: dict[int, list[HashHour]] = defaultdict(list)
        self.commands: dict[tuple[str, str], str] = {}
        self.payments: set[tuple[str, str]] = set()
        self._commits: list[DecidedBatches] | None = [] if keep_history else None

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        return {key: self.commands[key] for key in ids if key in self.commands}

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        return self.payments.intersection(pairs)

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        return [part for hour_us in hours for part in self.hours.get(hour_us, ())]

    def remember(self, record: CommitRecord) -> None:
        """Add the identities and payments of a commit."""
        self.commands.update(((source, id_), outcome) for source, id_, outcome in record.commands_seen)
        if record.limits:
            for hour in record.dedupe.hours:
                self.hours[hour.hour_us].append(hour)
        self.payments.update(record.payments)

    def keep(self, commit: DecidedBatches) -> None:
        """Add a commit to the history, if histories are kept."""
        if self._commits is not None:
            self._commits.append(commit)

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory] | Refusal:
        if self._commits is None:
            return Refusal("history_not_kept", "this run was told that no usage is corrected, and keeps none")
        return histories(self._commits, accounts)


@dataclass(slots=True)
class Simulation:
    """A simulation in progress: call :meth:`feed` with lines, then :meth:`document`."""

    catalog: Catalog
    calculator: Calculator
    operator: str = DEFAULT_OPERATOR
    lines_per_commit: int = LINES_PER_COMMIT
    keep_history: bool = True
    """Keep all lines in memory, as voiding and correction of usage require."""
    record_keys: RecordKeys = SIMULATED_KEYS
    """:data:`billing.record_keys.TRUSTING_KEYS` takes records with the product's own sources as they are."""
    note_unknown: bool = False
    """Numbers of a usage object that its dialect does not know are a finding; otherwise the event is refused."""
    account_event: Callable[[int, bytes], object] | None = None
    """Called with each event of ``account.events`` and the time of the line that caused it, microseconds UTC.

    If set, each line is a commit of its own, so that events come in the order of the file.
    """
    counts: CommitCounts = field(default_factory=CommitCounts)
    rejections: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    """Findings by kind; the first of each kind is in ``first_findings``."""
    first_findings: dict[str, str] = field(default_factory=dict)
    _balances: Counter[tuple[str, str]] = field(default_factory=Counter)
    _greatest_us: int = 0
    _line_us: int = 0
    _positions: dict[str, int] = field(default_factory=dict)
    _loader: Remembering = field(init=False)
    _engine: PartitionEngine = field(init=False)

    def __post_init__(self) -> None:
        self._loader = Remembering(keep_history=self.keep_history)
        self._loader.keys = self.record_keys
        self._engine = PartitionEngine(
            *(PartitionState(0, 1), 0, self.catalog, self._loader, self.calculator),
            limits=None,
            note_unknown=self.note_unknown,
        )

    def feed(self, lines: Iterable[bytes]) -> None:
        """Apply lines in order; each is one CloudEvent as JSON, and blank lines are skipped."""
        topic, run = USAGE_TOPIC, list[bytes]()
        for line in lines:
            if not line.strip():
                continue
            line_topic, sends = self._look(line)
            if line_topic != topic or len(run) >= self.lines_per_commit:
                self._commit(topic, run)
                topic, run = line_topic, []
            run.append(line)
            # Deliver its messages and report its account events before the next line is decided.
            if sends or self.account_event is not None:
                self._commit(topic, run)
                run = []
        self._commit(topic, run)

    def _look(self, line: bytes) -> tuple[str, bool]:
        """Record the time of a line; return its topic, and True if it may send a message to another account."""
        envelope = read_envelope(line)
        if not isinstance(envelope, Refusal):
            self._greatest_us, self._line_us = max(self._greatest_us, envelope.time_us), envelope.time_us
            is_command = envelope.type in COMMANDS
            return COMMAND_TOPIC if is_command else USAGE_TOPIC, envelope.type == TransferPackage.TYPE
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            return USAGE_TOPIC, False
        is_command = isinstance(body, dict) and isinstance(body.get("type"), str) and body["type"] in COMMANDS
        return COMMAND_TOPIC if is_command else USAGE_TOPIC, False

    def _commit(self, topic: str, lines: Sequence[bytes]) -> None:
        if not lines:
            return
        frames = self._decide(topic, [Frame(None, line) for line in lines])
        while frames:
            frames = self._decide(COMMAND_FORWARDED_TOPIC, frames)

    def _decide(self, topic: str, frames: Sequence[Frame]) -> list[Frame]:
        """Decide one commit and return the messages that it sends."""
        start = self._positions.get(topic, 0)
        records = [PlainRecord(start + n, 0, frame.key, frame.value, _present(frame)) for n, frame in enumerate(frames)]
        self._positions[topic] = start + len(records)
        batches = [InputBatch(topic, start, start + len(records), records)]
        record = self._engine.decide(batches)
        self._loader.keep(decided_batches(0, self.catalog, None, 0, batches, record))
        self._take(record)
        sent = (row for row in record.outbox if row.topic == COMMAND_FORWARDED_TOPIC)
        return [frame for row in sent for frame in unpack_frames(row.payload)]

    def _take(self, record: CommitRecord) -> None:
        self._loader.remember(record)
        self._engine.committed()
        for name in CommitCounts.__dataclass_fields__:
            setattr(self.counts, name, getattr(self.counts, name) + getattr(record.counts, name))
        for finding in record.findings:
            self.findings[finding.kind] += 1
            self.first_findings.setdefault(finding.kind, finding.detail)
        for posting in record.postings:
            self._balances[posting.account_code, posting.currency] += posting.amount_pico
        for row in record.outbox:
            if row.topic == REJECTED_TOPIC:
                for frame in unpack_batches(row.payload):
                    self.rejections[(dict(frame.headers)["reason"] or b"").decode()] += 1
            elif row.topic == ACCOUNT_EVENT_TOPIC and self.account_event is not None:
                for frame in unpack_batches(row.payload):
                    self.account_event(self._line_us, frame.value or b"")

    def document(self, as_of_us: int | None = None) -> dict[str, object]:
        """Roll every account forward to ``as_of_us`` (default: the greatest time fed) and return the document."""
        self._line_us = self._greatest_us if as_of_us is None else as_of_us
        self._take(self._engine.roll_all(self._line_us))
        accounts = {}
        for name in self.calculator.account_ids():
            account = self.calculator.account(name)
            if account is not None:
                accounts[name] = account_object(account) | debts_object(account.extras)
        earned = (ledger.REVENUE_USAGE, ledger.REVENUE_COMMITMENT, ledger.REVENUE_TRUE_UP, ledger.REVENUE_DEBT)
        revenue_pico = -sum(v for (code, _), v in self._balances.items() if code in earned)
        breakage_pico = -sum(v for (code, _), v in self._balances.items() if code == ledger.REVENUE_BREAKAGE)
        body: dict[str, object] = {
            "accounts": accounts,
            "events": {
                "rated": self.counts.rated,
                "duplicate": self.counts.duplicate,
                "rejected": self.counts.rejected,
            },
            "rejections": dict(sorted(self.rejections.items())),
            "ledger": {
                "trial_balance": trial_balance_object({k: v for k, v in self._balances.items() if v}),
                "sum": format_pico(sum(self._balances.values())),
            },
            "settlement": {self.operator: format_pico(revenue_pico)} if revenue_pico else {},
            "revenue_net": format_pico(revenue_pico),
            "breakage": format_pico(breakage_pico),
        }
        return body | {"state_digest": f"sha256:{hashlib.sha256(dump_json(body)).hexdigest()}"}


def _present(frame: Frame) -> list[tuple[str, bytes]]:
    """Return a frame's headers that have a value."""
    return [(name, content) for name, content in frame.headers if content is not None]
