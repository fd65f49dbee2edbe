"""The draft of a commit: outcomes, rejections, forwarded records and outbox rows, until it is a ``CommitRecord``.

Never: the decisions (:mod:`billing.engine.partition_engine` and the rules), SQL, Kafka, the clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import Message
from billing.accounts.held import NO_LIMIT, Held, HeldLimit, exactly
from billing.accounts.movements import Movement
from billing.calculator.core_records import pack_batches
from billing.calculator.interface import Effects
from billing.commits.commit_record import (
    CommitCounts,
    CommitRecord,
    ConflictRecord,
    Finding,
    ForeignRecord,
    OutboxRow,
    PartitionState,
    RollupRow,
    SuspenseRecord,
)
from billing.commits.input_batch import InputBatch, PositionMove, Record
from billing.commits.outbox_frames import Frame, compress, encode_frame, frame_size
from billing.commits.output_documents import Stamp, account_event_data, movement_objects, output_event, output_headers
from billing.conflicts import IDENTITY_CONFLICT
from billing.corrections.history import Step
from billing.errors import ForwardLost
from billing.ledger import Postings
from billing.log_time import TimeLimits, limits_object
from billing.record_keys import FOREIGN_RECORD, FORGED_RECORD, Forward, RecordKeys, forward_headers, read_forward
from billing.suspense import RecordPlace
from schemas.cloudevents import write_structured
from schemas.commands import MESSAGES, Command
from schemas.json_text import dump_json
from schemas.record_sizes import LARGEST_OUTPUT
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import (
    ACCOUNT_EVENT_TOPIC,
    BALANCE_TOPIC,
    COMMAND_FORWARDED_TOPIC,
    FORWARD_HEADERS,
    FORWARD_TOPIC,
    RATED_TOPIC,
    REJECTED_TOPIC,
    USAGE_FORWARDED_TOPIC,
)
from schemas.usage import UsageEvent

UNKNOWN_USAGE = "unknown_usage"
"""Kind of the finding of rated usage with numbers that its dialect does not know (``TOKENBILL_UNKNOWN_USAGE=note``)."""
WITHHELD_HEADER = "withheld"
"""Header of a rejected record that is published without key, headers and value: the bytes that suspense keeps."""
REJECTED_HEADERS = frozenset(
    (
        *("reason", "detail", "topic", "partition", "offset", WITHHELD_HEADER),
        *("commit", "previousdigest", "history", "comparedthrough"),
    )
)
"""Headers that ``usage.rejected`` adds; on a resubmitted record they replace those of its last rejection."""


@dataclass(slots=True)
class CommitDraft:
    """Contents of the commit that is being decided, except the effects held by the calculator.

    ``state`` is the partition before the commit.
    """

    state: PartitionState
    keys: RecordKeys
    counts: CommitCounts = field(default_factory=CommitCounts)
    frames: dict[str, list[Frame]] = field(default_factory=dict)
    postings: Postings = field(default_factory=Postings)
    account_events: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """(account, type, data) of each record for ``account.events``, in order."""
    corrections: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    """``correction.posted.v1`` events of the current command; they are published after its outcome."""
    rollups: list[RollupRow] = field(default_factory=list)
    accepted: dict[str, list[Step]] = field(default_factory=lambda: defaultdict(list))
    """Steps of accepted commands, by account."""
    commands_seen: list[tuple[str, str, str]] = field(default_factory=list)
    payments: list[tuple[str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    reservations: list[tuple[str, str]] = field(default_factory=list)
    held: dict[str, Held] = field(default_factory=dict)
    """Amounts that open holds hold, by account; read once, before the first command of the account."""
    held_limits: dict[str, HeldLimit] = field(default_factory=dict)
    suspense: list[SuspenseRecord] = field(default_factory=list)
    conflicts: list[ConflictRecord] = field(default_factory=list)
    foreign: list[ForeignRecord] = field(default_factory=list)
    passed_over: list[tuple[str, int]] = field(default_factory=list)
    forward_next: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_cursors: dict[tuple[str, int], int] = field(default_factory=dict)

    def records_to_apply(self, batch: InputBatch, prefix: str = "") -> Sequence[Record]:
        """Return the records to apply: all of an input topic, and those of a forward topic that are ours and new.

        Records that the cursor of their origin has passed are counted as dropped, records that no partition forwarded
        as foreign. ``prefix`` is that of the names of both counts.

        Raises:
            ForwardLost: a forwarded record is missing.
        """
        if batch.topic not in (USAGE_FORWARDED_TOPIC, COMMAND_FORWARDED_TOPIC):
            return batch.records
        fresh: list[Record] = []
        for record in batch.records:
            read = read_forward(self.keys, batch.topic, self.state.partition, record)
            if isinstance(read, str):
                self._put_aside(batch.topic, record, read, prefix)
                continue
            forward, proven = read
            key = (batch.topic, forward.origin)
            cursor = self.forward_cursors.get(key, self.state.forward_cursors.get(key, 0))
            if forward.number < cursor:
                self._count(f"{prefix}dropped")
            elif forward.number == cursor:
                self.forward_cursors[key] = cursor + 1
                fresh.append(record)
            elif proven:
                place = (batch.topic, self.state.partition, record.offset)
                raise ForwardLost(*place, forward.origin, cursor, forward.number)
            else:
                fault = f"no digest, and number {forward.number} where {cursor} was next"
                self._put_aside(batch.topic, record, fault, prefix)
        return fresh

    def took(self, account: str, limit: HeldLimit) -> None:
        """Note what may still be held of an account from which an accepted command took."""
        if limit:
            stored = self.held[account].stored
            # Where the rows of the holds do not say what is held, a changed row may change what the command may take.
            limit = limit if stored is None else exactly(stored)
            self.held_limits[account] = self.held_limits.get(account, NO_LIMIT).lower(limit)

    def _put_aside(self, topic: str, record: Record, fault: str, prefix: str) -> None:
        """Keep a foreign record, and report it."""
        self._count(f"{prefix}foreign")
        self.foreign.append(ForeignRecord(topic, record, fault))
        self._find(FOREIGN_RECORD, topic, record, f"no partition forwarded it: it carries {fault}")

    def forged(self, topic: str, record: Record, detail: str) -> None:
        """Report a record with an own source and without a valid digest, which was refused."""
        self.passed_over.append((topic, record.offset))
        self._find(FORGED_RECORD, topic, record, detail)

    def unknown_usage(self, topic: str, record: Record, sentences: Sequence[str]) -> None:
        """Report rated usage with numbers that its dialect does not know, by the first of them."""
        more = f"; and {len(sentences) - 1} more" if len(sentences) > 1 else ""
        self._find(UNKNOWN_USAGE, topic, record, sentences[0] + more)

    def _find(self, kind: str, topic: str, record: Record, detail: str) -> None:
        self.findings.append(Finding(kind, f"{topic}[{self.state.partition}] offset {record.offset}: {detail}"))

    def _count(self, name: str) -> None:
        setattr(self.counts, name, getattr(self.counts, name) + 1)

    def outcome(
        self,
        account: str,
        command: Command | Refusal,
        command_type: str | None,
        reason: str | None,
        detail: str | None,
        movements: Sequence[Movement] = (),
    ) -> None:
        """Add the outcome of a command to ``account.events``: accepted if ``reason`` is None, else rejected.

        ``movements`` are what an accepted command moved.
        """
        if command_type in MESSAGES:
            return  # A message has no outcome event: its rule emits the events for its account.
        data: dict[str, Any] = {
            "account": account,
            "command_type": command_type,
            "command_source": command.source,
            "command_id": command.id,
        }
        if reason is not None:
            data |= {"reason": reason, "detail": detail}
        if movements:
            data |= {"movements": movement_objects(movements)}
        type_name = "command.accepted.v1" if reason is None else "command.rejected.v1"
        self.account_events += [(account, type_name, data), *self.corrections]
        self.corrections.clear()

    def add_events(self, events: Iterable[AccountEvent]) -> None:
        """Add account events, in order."""
        self.account_events += [
            (event.account, event.type, {"account": event.account} | account_event_data(event)) for event in events
        ]

    def reject(self, topic: str, record: Record, rejection: Refusal) -> None:
        """Publish a rejected usage record with its original bytes, and keep it in suspense.

        A record that is too large for its topic is published without its key, headers and value.
        """
        given = tuple((name, content) for name, content in record.headers if name not in REJECTED_HEADERS)
        added = (
            ("reason", rejection.code.encode()),
            ("detail", rejection.detail.encode()),
            ("topic", topic.encode()),
            ("partition", str(self.state.partition).encode()),
            ("offset", str(record.offset).encode()),
            ("commit", str(self.state.commit_no + 1).encode()),
            ("previousdigest", self.state.digest.hex().encode()),
            *((("history", str(self.state.history).encode()),) if self.state.history else ()),
        )
        frame = Frame(record.key, record.value, (*given, *added))
        if frame_size(frame) > LARGEST_OUTPUT:
            # Suspense keeps the record, under the topic, partition and offset that the headers name.
            withheld = (WITHHELD_HEADER, str(frame_size(frame)).encode())
            frame = Frame(None, None, (*added, withheld))
        self.frames.setdefault(REJECTED_TOPIC, []).append(frame)
        self.suspense.append(SuspenseRecord(topic, record, rejection))

    def keep_conflict(self, topic: str, record: Record, event: UsageEvent) -> None:
        """Keep a duplicate with other content, and report it as a finding."""
        place = RecordPlace(topic, self.state.partition, record.offset)
        self.findings.append(
            Finding(
                IDENTITY_CONFLICT,
                f"{place}: source {event.source!r} id {event.id!r} of account {event.account!r} was sent again with "
                "other content",
            )
        )
        self.conflicts.append(ConflictRecord(topic, record, event.account, event.source, event.id, event.sequence))

    def forward(self, topic: str, record: Record, target: int) -> None:
        """Forward a record to the partition of its account."""
        # The relay's client ends a header's name at a NUL, and the digest covers the names as they arrive.
        kept = ((name.replace("\0", "\\x00"), value) for name, value in record.headers)
        headers = tuple((name, value) for name, value in kept if name not in FORWARD_HEADERS)
        self._hand_over(FORWARD_TOPIC[topic], target, record.key, record.value, headers, _place(topic, record))

    def send(self, message: Message, now_us: int, topic: str, record: Record) -> None:
        """Add a message to the forwarded commands of its account's partition, which may be this one.

        ``record`` of ``topic`` is the command that sends it.
        """
        value = write_structured(message.type, message.source, message.id, now_us, message.account, message.data)
        target = partition_of(message.account, self.state.partitions)
        self._hand_over(COMMAND_FORWARDED_TOPIC, target, message.account.encode(), value, (), _place(topic, record))
        self.counts.messages_sent += 1

    def _hand_over(
        self,
        forward_topic: str,
        target: int,
        record_key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
        came_from: bytes,
    ) -> None:
        key = (forward_topic, target)
        number = self.forward_next.get(key, self.state.forward_next.get(key, 0))
        self.forward_next[key] = number + 1
        forward = Forward(self.state.partition, number, came_from)
        added = forward_headers(self.keys, forward_topic, target, forward, record_key, value, headers)
        self.frames.setdefault(forward_topic, []).append(Frame(record_key, value, (*headers, *added), target))

    def record(
        self,
        effects: Effects,
        stamp: Stamp,
        moves: list[PositionMove],
        catalog_epoch: int,
        limits: TimeLimits | None,
    ) -> CommitRecord:
        """Return the complete commit, including the calculator's ``effects``."""
        state = self.state
        self.frames[ACCOUNT_EVENT_TOPIC] = list(self._account_event_frames(stamp))
        packed: dict[str, tuple[int, bytes | memoryview]] = {
            topic: (len(frames), b"".join(map(encode_frame, frames))) for topic, frames in self.frames.items()
        }
        packed[RATED_TOPIC] = (effects.rated_records, effects.rated_frames)
        packed[BALANCE_TOPIC] = (effects.balance_records, effects.balance_frames)
        outbox: list[OutboxRow] = []
        next_sequences: dict[str, int] = {}
        for topic, (records, frames) in sorted(packed.items()):
            if records:
                first = state.next_sequences.get(topic, 1)
                pack = compress(frames) if topic in FORWARD_TOPIC.values() else _packed(topic, frames, first)
                outbox.append(OutboxRow(topic, records, first, pack))
                next_sequences[topic] = first + records
        self.postings.merge_lines(effects.postings)
        return CommitRecord(
            partition=state.partition,
            commit_no=stamp.commit_no,
            catalog_epoch=catalog_epoch,
            log_time_us=stamp.log_time_us,
            positions=moves,
            counts=self.counts,
            changes=effects.changes,
            postings=list(self.postings.lines()),
            rollups=sorted(effects.rollups + self.rollups, key=astuple) if self.rollups else effects.rollups,
            dedupe=effects.dedupe,
            commands_seen=self.commands_seen,
            payments=self.payments,
            outbox=outbox,
            next_sequences=next_sequences,
            forward_next=self.forward_next,
            forward_cursors=self.forward_cursors,
            findings=self.findings,
            book_times=effects.book_times,
            limits=limits_object(limits),
            reservations_closed=self.reservations,
            suspense=self.suspense,
            conflicts=self.conflicts,
            held=sorted((name, held) for name, held in self.held.items() if held.holds),
            held_limits=self.held_limits,
            foreign=self.foreign,
            passed_over=self.passed_over,
        )

    def _account_event_frames(self, stamp: Stamp) -> Iterable[Frame]:
        for number, (account, type_name, data) in enumerate(self.account_events):
            value = output_event(type_name, stamp, number, account, dump_json(data))
            yield Frame(account.encode(), value, output_headers(type_name))


_HEADERS = {RATED_TOPIC: output_headers("usage.rated.v1"), BALANCE_TOPIC: output_headers("package.balance.v1")}
"""Headers of all records of a topic, which its frames leave out."""


def _packed(topic: str, frames: bytes | memoryview, first_sequence: int) -> bytes:
    return pack_batches(frames, first_sequence, _HEADERS.get(topic, ()))


def _place(topic: str, record: Record) -> bytes:
    return b"%b/%d" % (topic.encode(), record.offset)
