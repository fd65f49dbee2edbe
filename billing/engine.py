"""What one commit decides: input batches of one partition in, a complete ``CommitRecord`` out.

Owns: the order within a commit (commands, forwarded commands, usage, forwarded usage), forwarding and its numbers,
command identities, what is loaded before it is needed, and the outbox rows. Never: Kafka, SQL (a loader fetches what is
missing), the clock. The rules are elsewhere: commands in ``billing.commands``, usage in a calculator.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any, Protocol

from pydantic_core import PydanticCustomError

from billing.accounts import Account
from billing.burn import AccountEvent
from billing.calculator import Calculator, UsageBatch
from billing.carry_out import carry_out
from billing.catalog.model import Catalog
from billing.commands import decide
from billing.commit import (
    ACCOUNT_EVENT_TOPIC,
    BALANCE_TOPIC,
    COMMAND_FORWARDED_TOPIC,
    COMMAND_TOPIC,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    FORWARD_TOPIC,
    INPUT_TOPICS,
    RATED_TOPIC,
    REJECTED_TOPIC,
    USAGE_FORWARDED_TOPIC,
    USAGE_TOPIC,
    CommitRecord,
    Counts,
    Finding,
    HashHour,
    InputBatch,
    OutboxRow,
    PartitionState,
    PositionMove,
    Record,
    RollupRow,
    Suspended,
)
from billing.core_records import pack_batches
from billing.corrections import CORRECTION_POSTED, HISTORY_DIFFERS, correct
from billing.documents import Stamp, account_event_data, dump_json, output_event
from billing.history import AccountHistory, HistoryUnavailable, Step
from billing.invariants import BrokenInvariant
from billing.ledger import Postings
from billing.lifecycle import roll_forward
from billing.limits import DecidedAt, TimeLimits, decided_at
from billing.outbox import Frame, compress, encode_frame
from billing.scene import Message, Refusal, Scene
from schemas.cloudevents import write_structured
from schemas.commands import MESSAGES, CollectBill, Command, CorrectUsage, TopUpWallet, VoidUsage, parse_command
from schemas.fields import check_name
from schemas.rejections import Rejection
from schemas.routing import partition_of
from schemas.times import HOUR_US

_CORRECTING = (VoidUsage.TYPE.encode(), CorrectUsage.TYPE.encode())
IDENTITY_MEMORY_BYTES = 512 << 20
"""What identities of unnumbered sources take at most in a worker that holds every partition (DESIGN 7)."""
ACCEPTED = "accepted"
UNKNOWN_SUBJECT = "unknown"
"""Subject of the outcome of a command that names no account, in its event or in its record's key."""
REJECTED_HEADERS = frozenset(("reason", "detail", "topic", "partition", "offset"))
"""Headers that ``usage.rejected`` adds; of a resubmitted record they replace those of its last rejection."""


class Loader(Protocol):
    """Fetches what a partition's memory lacks. ``billing.store.Store`` is one; ``simulate`` has nothing stored."""

    def load_accounts(self, ids: Sequence[str]) -> list[Account]:
        """The accounts that exist among ``ids``."""

    def known_commands(self, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """(source, id) to outcome of the commands decided before."""

    def known_payments(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """The (account, payment_ref) used before."""

    def load_hours(self, partition: int, hours: Sequence[int]) -> list[HashHour]:
        """All identities stored under these hours."""

    def histories(self, state: PartitionState, accounts: Sequence[str]) -> dict[str, AccountHistory]:
        """What was decided for these accounts, as far as it is known, by all commits of the partition so far.

        Raises:
            HistoryUnavailable: it cannot be had now.
        """


@dataclass(slots=True)
class _Pending:
    """What a commit under decision has gathered so far, besides what the calculator holds."""

    counts: Counts = field(default_factory=Counts)
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    postings: Postings = field(default_factory=Postings)
    account_events: list[AccountEvent] = field(default_factory=list)
    outcomes: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    corrections: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    rollups: list[RollupRow] = field(default_factory=list)
    accepted: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    """Commands that were accepted, by account."""
    commands_seen: list[tuple[str, str, str]] = field(default_factory=list)
    payments: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    reservations: list[tuple[str, str]] = field(default_factory=list)
    suspense: list[Suspended] = field(default_factory=list)
    forward_next: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_cursors: dict[tuple[str, int], int] = field(default_factory=dict)


class PartitionEngine:
    """One partition's memory and decisions. Thrown away after any failed or uncertain commit."""

    def __init__(
        self,
        state: PartitionState,
        catalog_epoch: int,
        catalog: Catalog,
        loader: Loader,
        calculator: Calculator,
        limits: TimeLimits | None = TimeLimits(),
        identity_memory_bytes: int = IDENTITY_MEMORY_BYTES,
    ) -> None:
        self._state = state
        self._catalog_epoch = catalog_epoch
        self._catalog = catalog
        self._loader = loader
        self._calculator = calculator
        self._limits = limits
        self._identity_bytes = identity_memory_bytes // state.partitions
        self._undecided: CommitRecord | None = None
        self._prepared: dict[str, AccountHistory] | HistoryUnavailable = {}
        calculator.load(state)
        calculator.set_catalog(catalog)
        self._plan_of = catalog.plans_by_key().__getitem__

    @property
    def positions(self) -> dict[str, int]:
        """Next offset of each input topic, after the commits so far."""
        return self._state.positions

    def continue_with(self, catalog_epoch: int, catalog: Catalog, limits: TimeLimits) -> None:
        """Decide by this catalogue and these limits from now on: a replay of commits that were decided by several."""
        self._catalog_epoch, self._catalog, self._limits = catalog_epoch, catalog, limits
        self._plan_of = catalog.plans_by_key().__getitem__
        self._calculator.set_catalog(catalog)

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Fetch what deciding these batches needs and what may take seconds: the history of accounts whose usage is
        corrected. It may be left out; then :meth:`decide` does it."""
        named: list[Command] = []
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                may_correct = (one for one in batch.records if any(mark in (one.value or b"") for mark in _CORRECTING))
                parsed = (parse_command(record.value, record.headers) for record in may_correct)
                named += [one for one in parsed if isinstance(one, Command)]
        known = self._loader.known_commands([(one.source, one.id) for one in named]) if named else {}
        self._prepared = {}
        self._prepared = self._histories(one for one in named if (one.source, one.id) not in known)

    def decide(self, batches: Sequence[InputBatch], due: Sequence[str] = ()) -> CommitRecord:
        """Decide batches of one commit, in the order of ``INPUT_TOPICS``, each contiguous with the position.

        ``due`` are accounts that time alone has changed: they are rolled forward to the log time of the commit, which
        is what their next event would do first.

        Raises:
            BrokenInvariant: batches out of order or not contiguous, or the commit before was not confirmed.
        """
        if self._undecided is not None:
            raise BrokenInvariant("a commit was decided before the one before it was confirmed")
        pending = _Pending()
        log_time_us = self._state.log_time_us
        moves = self._moves(batches)
        for batch in batches:
            if batch.topic in (COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC):
                log_time_us = self._apply_commands(batch, log_time_us, pending)
        for batch in batches:
            if batch.topic in (USAGE_TOPIC, USAGE_FORWARDED_TOPIC):
                log_time_us = self._apply_usage(batch, log_time_us, pending)
        self._roll(due, log_time_us, pending)
        self._undecided = self._record(moves, log_time_us, pending)
        return self._undecided

    def committed(self) -> None:
        """The record last decided is in SQL: the next one follows it."""
        record = self._undecided
        if record is None:
            raise BrokenInvariant("nothing was decided that could have been committed")
        self._prepared = {}
        state = self._state
        state.commit_no = record.commit_no
        state.log_time_us = record.log_time_us
        state.positions.update((move.topic, move.end) for move in record.positions)
        state.next_sequences.update(record.next_sequences)
        state.forward_next.update(record.forward_next)
        state.forward_cursors.update(record.forward_cursors)
        self._undecided = None
        if self._limits is not None:
            self._bound_identities(record.log_time_us - self._limits.past_us)

    def _bound_identities(self, oldest_us: int) -> None:
        """Forget identities of unnumbered sources that no event can name any more, and the oldest beyond the bound.

        What is forgotten is in SQL, and is loaded again for an event of its hour: memory decides no result.
        """
        held = self._calculator.hours_held()
        total_bytes = sum(held_bytes for _, held_bytes in held)
        for hour_us, held_bytes in held:
            if hour_us + HOUR_US > oldest_us and total_bytes <= self._identity_bytes:
                break
            self._calculator.drop_hour(hour_us)
            total_bytes -= held_bytes

    def roll_all(self, now_us: int) -> CommitRecord:
        """Roll every account in memory forward to ``now_us``, as a commit of its own (the end of ``simulate``)."""
        pending = _Pending()
        self._roll(self._calculator.account_ids(), now_us, pending)
        self._undecided = self._record([], self._state.log_time_us, pending)
        return self._undecided

    def _roll(self, names: Sequence[str], now_us: int, pending: _Pending) -> None:
        self._load_accounts(names)
        for name in names:
            account = self._calculator.account(name)
            if account is not None and account.next_due_us <= now_us:
                pending.account_events += roll_forward(account, now_us, self._plan_of, pending.postings, self._catalog)
                self._calculator.put_account(account, stored=False)

    def _moves(self, batches: Sequence[InputBatch]) -> list[PositionMove]:
        order = [INPUT_TOPICS.index(batch.topic) for batch in batches]
        if order != sorted(order):
            raise BrokenInvariant(f"batches out of order: {[batch.topic for batch in batches]}")
        next_offsets: dict[str, int] = {}
        moves: dict[str, PositionMove] = {}
        for batch in batches:
            expected = next_offsets.get(batch.topic, self._state.positions.get(batch.topic, 0))
            if batch.start != expected or batch.end - batch.start != len(batch.records):
                raise BrokenInvariant(
                    f"{batch.topic}[{self._state.partition}]: records {batch.start} to {batch.end} "
                    f"({len(batch.records)} of them) do not follow position {expected}"
                )
            first = moves[batch.topic].start if batch.topic in moves else batch.start
            moves[batch.topic] = PositionMove(batch.topic, first, batch.end)
            next_offsets[batch.topic] = batch.end
        return list(moves.values())

    # Commands

    def _apply_commands(self, batch: InputBatch, log_time_us: int, pending: _Pending) -> int:
        records = self._undropped(batch, pending, "commands_dropped")
        forwarded = batch.topic == COMMAND_FORWARDED_TOPIC
        parsed = [
            parse_command(record.value, record.headers, messages=forwarded and _forward_number(record) is not None)
            for record in records
        ]
        mine = [
            command
            for command in parsed
            if isinstance(command, Command) and self._target(command.account) == self._state.partition
        ]
        self._load_accounts(command.account for command in mine)
        known = self._loader.known_commands([(command.source, command.id) for command in mine])
        known.update(((source, id_), outcome) for source, id_, outcome in pending.commands_seen)
        histories = self._histories(command for command in mine if (command.source, command.id) not in known)
        refs = [
            (command.account, command.data.payment_ref)
            for command in mine
            if isinstance(command.data, TopUpWallet | CollectBill)
        ]
        payments = self._loader.known_payments(refs) | set(pending.payments)
        for record, command in zip(records, parsed, strict=True):
            log_time_us = max(log_time_us, record.timestamp * 1000)
            if isinstance(command, Rejection):
                pending.counts.commands_rejected += 1
                subject = command.account or _name_in(record.key) or UNKNOWN_SUBJECT
                self._outcome(subject, command, None, command.reason, command.detail, pending)
                continue
            target = self._target(command.account)
            if target != self._state.partition:
                self._forward(batch.topic, record, target, pending)
                pending.counts.commands_forwarded += 1
            elif (command.source, command.id) in known:
                pending.counts.commands_duplicate += 1
            elif self._apply_command(command, log_time_us, payments, histories, pending):
                known[command.source, command.id] = ACCEPTED
                pending.commands_seen.append((command.source, command.id, ACCEPTED))
        return log_time_us

    def _apply_command(
        self,
        command: Command,
        log_time_us: int,
        payments: set[tuple[str, str]],
        histories: dict[str, AccountHistory] | HistoryUnavailable,
        pending: _Pending,
    ) -> bool:
        """Decide one command; whether it was accepted. Only then it occupies its identity (CONTRACT §1 and §2): a
        refused one, sent again when what it lacked is there, is carried out."""
        account = self._calculator.account(command.account)
        now_us = log_time_us
        if self._limits is None:
            now_us = max(command.time_us, account.clock_us if account else 0)
        at = decided_at(now_us, self._limits)

        def rule(scene: Scene) -> Account | Refusal:
            if isinstance(command.data, VoidUsage | CorrectUsage):
                return self._correct(scene, at, histories, pending)
            return decide(scene)

        done = carry_out(
            command,
            account,
            at,
            rule,
            self._catalog,
            self._plan_of,
            lambda owner, ref: (owner, ref) in payments,
            pending.postings,
        )
        pending.account_events += done.events
        for message in done.messages:
            self._send(message, now_us, pending)
        if done.account is not None:
            self._calculator.put_account(done.account, stored=False)
        if done.refusal is not None:
            pending.counts.commands_rejected += 1
            self._outcome(command.account, command, command.type, done.refusal.reason, done.refusal.detail, pending)
            return False
        pending.counts.commands_accepted += 1
        if isinstance(command.data, TopUpWallet | CollectBill):
            payments.add((command.account, command.data.payment_ref))
            pending.payments.append((command.account, command.data.payment_ref))
        pending.accepted[command.account].append(Step(self._catalog_epoch, at, command))
        self._outcome(command.account, command, command.type, None, None, pending)
        return True

    def _histories(self, commands: Iterable[Command]) -> dict[str, AccountHistory] | HistoryUnavailable:
        """What was decided before this commit for the accounts whose usage is to be corrected."""
        if isinstance(self._prepared, HistoryUnavailable):
            return self._prepared
        wanted = {one.account for one in commands if isinstance(one.data, VoidUsage | CorrectUsage)}
        names = sorted(name for name in wanted - self._prepared.keys() if self._target(name) == self._state.partition)
        try:
            return self._prepared | (self._loader.histories(self._state, names) if names else {})
        except HistoryUnavailable as error:
            return error

    def _correct(
        self,
        scene: Scene,
        at: DecidedAt,
        histories: dict[str, AccountHistory] | HistoryUnavailable,
        pending: _Pending,
    ) -> Account | Refusal:
        """Void or correct usage: what its rule posts, sums up and tells goes into the commit."""
        name = scene.command.account
        if scene.account is None:
            return Refusal("unknown_account", f"account {name!r} was never opened")
        if isinstance(histories, HistoryUnavailable):
            return Refusal(histories.reason, str(histories))
        known = histories.get(name)
        if known is None:
            return Refusal("history_unavailable", f"what was decided for account {name!r} is not known here")
        catalogs = {**known.catalogs, self._catalog_epoch: self._catalog}
        history = AccountHistory([*known.steps, *pending.accepted[name]], catalogs)
        corrected = correct(scene.command, scene.account, history, at, decide, self._catalog, self._plan_of)
        if isinstance(corrected, Refusal):
            if corrected.reason == HISTORY_DIFFERS:
                pending.findings.append(Finding(HISTORY_DIFFERS, corrected.detail))
            return corrected
        scene.postings.merge_lines(corrected.postings)
        scene.events += corrected.events
        pending.rollups += corrected.rollups
        pending.corrections += [(name, CORRECTION_POSTED, {"account": name} | data) for data in corrected.outcomes]
        return corrected.account

    def _outcome(
        self,
        account: str,
        command: Command | Rejection,
        command_type: str | None,
        reason: str | None,
        detail: str | None,
        pending: _Pending,
    ) -> None:
        if command_type in MESSAGES:
            return  # Nobody sent it who would wait for an outcome; its rule says what its account should know.
        data = {
            "account": account,
            "command_type": command_type,
            "command_source": command.source,
            "command_id": command.id,
        }
        if reason is not None:
            data |= {"reason": reason, "detail": detail}
        type_name = "command.accepted.v1" if reason is None else "command.rejected.v1"
        pending.outcomes.append((account, type_name, data))

    # Usage

    def _apply_usage(self, batch: InputBatch, log_time_us: int, pending: _Pending) -> int:
        state, calculator = self._state, self._calculator
        records = self._undropped(batch, pending, "dropped")
        usage = UsageBatch(state.partition, state.partitions, records, log_time_us, self._limits)
        decoded = calculator.decode(usage)
        missing = calculator.missing_accounts(decoded)
        if missing:
            self._put_accounts(missing)
        hours = calculator.missing_hours(decoded)
        if hours:
            stored = self._loader.load_hours(state.partition, hours)
            for hour_us in hours:
                calculator.put_hour(hour_us, [part for part in stored if part.hour_us == hour_us])
        outcome = calculator.apply(decoded)
        for index, target in outcome.forwarded:
            self._forward(batch.topic, records[index], target, pending)
        for index, rejection in outcome.rejected:
            self._reject(batch.topic, records[index], rejection, pending)
        counts = pending.counts
        counts.rated += outcome.rated
        counts.duplicate += outcome.duplicate
        counts.rejected += len(outcome.rejected)
        counts.forwarded += len(outcome.forwarded)
        pending.account_events += outcome.account_events
        pending.findings += outcome.findings
        pending.reservations += outcome.reservations
        return outcome.log_time_us

    def _reject(self, topic: str, record: Record, rejection: Rejection, pending: _Pending) -> None:
        headers = (
            *((name, content) for name, content in record.headers if name not in REJECTED_HEADERS),
            ("reason", rejection.reason.encode()),
            ("detail", rejection.detail.encode()),
            ("topic", topic.encode()),
            ("partition", str(self._state.partition).encode()),
            ("offset", str(record.offset).encode()),
        )
        pending.frames.setdefault(REJECTED_TOPIC, []).append(Frame(record.key, record.value, headers))
        pending.suspense.append(Suspended(topic, record, rejection))

    # What both share

    def _target(self, account: str) -> int:
        return partition_of(account, self._state.partitions)

    def _load_accounts(self, names: Iterable[str]) -> None:
        missing = sorted({name for name in names if self._calculator.account(name) is None})
        if missing:
            self._put_accounts(missing)

    def _put_accounts(self, names: Sequence[str]) -> None:
        for account in self._loader.load_accounts(names):
            self._calculator.put_account(account, stored=True)

    def _undropped(self, batch: InputBatch, pending: _Pending, dropped_count: str) -> Sequence[Record]:
        """The records to apply: of forwarded ones only those that the cursor of their origin has not passed."""
        if batch.topic not in (USAGE_FORWARDED_TOPIC, COMMAND_FORWARDED_TOPIC):
            return batch.records
        fresh: list[Record] = []
        for record in batch.records:
            forward = _forward_number(record)
            if forward is None:
                # Nobody but a relay may write here; what did not come from one has no number to be known by.
                pending.findings.append(
                    Finding("foreign_forward", f"{batch.topic}[{self._state.partition}] offset {record.offset}")
                )
                fresh.append(record)
                continue
            origin, number = forward
            key = (batch.topic, origin)
            cursor = pending.forward_cursors.get(key, self._state.forward_cursors.get(key, 0))
            if number < cursor:
                setattr(pending.counts, dropped_count, getattr(pending.counts, dropped_count) + 1)
                continue
            if number > cursor:
                raise BrokenInvariant(
                    f"{batch.topic}[{self._state.partition}] offset {record.offset}: forward {number} from partition "
                    f"{origin}, but {cursor} was next; a forwarded record was lost"
                )
            pending.forward_cursors[key] = number + 1
            fresh.append(record)
        return fresh

    def _forward(self, topic: str, record: Record, target: int, pending: _Pending) -> None:
        own = {FORWARD_ORIGIN_HEADER, FORWARD_NUMBER_HEADER}
        headers = tuple((name, value) for name, value in record.headers if name not in own)
        self._hand_over(FORWARD_TOPIC[topic], target, record.key, record.value, headers, pending)

    def _send(self, message: Message, now_us: int, pending: _Pending) -> None:
        """Put a message among the forwarded commands of its account's partition, which may be this one."""
        value = write_structured(message.type, message.source, message.id, now_us, message.account, message.data)
        target = self._target(message.account)
        self._hand_over(COMMAND_FORWARDED_TOPIC, target, message.account.encode(), value, (), pending)
        pending.counts.messages_sent += 1

    def _hand_over(
        self,
        forward_topic: str,
        target: int,
        record_key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
        pending: _Pending,
    ) -> None:
        key = (forward_topic, target)
        number = pending.forward_next.get(key, self._state.forward_next.get(key, 0))
        pending.forward_next[key] = number + 1
        headers = (
            *headers,
            (FORWARD_ORIGIN_HEADER, str(self._state.partition).encode()),
            (FORWARD_NUMBER_HEADER, str(number).encode()),
        )
        pending.frames.setdefault(forward_topic, []).append(Frame(record_key, value, headers, target))

    def _record(self, moves: list[PositionMove], log_time_us: int, pending: _Pending) -> CommitRecord:
        state = self._state
        stamp = Stamp(state.partition, state.commit_no + 1, log_time_us)
        effects = self._calculator.take_effects(stamp)
        pending.frames[ACCOUNT_EVENT_TOPIC] = list(_account_event_frames(stamp, pending))
        packed = {topic: (len(frames), b"".join(map(encode_frame, frames))) for topic, frames in pending.frames.items()}
        packed[RATED_TOPIC] = (effects.rated_records, effects.rated_frames)
        packed[BALANCE_TOPIC] = (effects.balance_records, effects.balance_frames)
        outbox: list[OutboxRow] = []
        next_sequences: dict[str, int] = {}
        for topic, (records, frames) in sorted(packed.items()):
            if records:
                first = state.next_sequences.get(topic, 1)
                pack = compress(frames) if topic in FORWARD_TOPIC.values() else pack_batches(frames, first)
                outbox.append(OutboxRow(topic, records, first, pack))
                next_sequences[topic] = first + records
        pending.postings.merge_lines(effects.postings)
        return CommitRecord(
            partition=state.partition,
            commit_no=stamp.commit_no,
            catalog_epoch=self._catalog_epoch,
            log_time_us=log_time_us,
            positions=moves,
            counts=pending.counts,
            changes=effects.changes,
            postings=list(pending.postings.lines()),
            rollups=sorted(effects.rollups + pending.rollups, key=astuple) if pending.rollups else effects.rollups,
            dedupe=effects.dedupe,
            commands_seen=pending.commands_seen,
            payments=pending.payments,
            outbox=outbox,
            next_sequences=next_sequences,
            forward_next=pending.forward_next,
            forward_cursors=pending.forward_cursors,
            findings=pending.findings,
            book_times=effects.book_times,
            limits={}
            if self._limits is None
            else {"future_limit_us": self._limits.future_us, "past_limit_us": self._limits.past_us},
            reservations_closed=pending.reservations,
            suspense=pending.suspense,
        )


def _name_in(key: bytes | None) -> str | None:
    """The account that a record's key names; None where it is no name."""
    try:
        return check_name((key or b"").decode())
    except (UnicodeDecodeError, PydanticCustomError):
        return None


def _forward_number(record: Record) -> tuple[int, int] | None:
    """(origin partition, forward number) of a forwarded record; None where a relay did not write it."""
    headers = dict(record.headers)
    origin, number = headers.get(FORWARD_ORIGIN_HEADER), headers.get(FORWARD_NUMBER_HEADER)
    if origin is None or number is None:
        return None
    if not (origin.isdigit() and number.isdigit() and len(origin) + len(number) < 40):
        return None
    return int(origin), int(number)


def _account_event_frames(stamp: Stamp, pending: _Pending) -> Iterable[Frame]:
    outputs = [*pending.outcomes, *pending.corrections] + [
        (event.account, event.type, {"account": event.account} | account_event_data(event))
        for event in pending.account_events
    ]
    for number, (account, type_name, data) in enumerate(outputs):
        yield Frame(account.encode(), output_event(type_name, stamp, number, account, dump_json(data)))
