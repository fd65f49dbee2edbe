"""The draft of a commit: outcomes, rejections, forwarded records and outbox rows, until it is a ``CommitRecord``.

Never: the decisions (:mod:`billing.engine.partition_engine` and the rules), SQL, Kafka, the clock.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import Message
from billing.calculator.core_records import pack_batches
from billing.calculator.interface import Effects
from billing.commits.commit_record import (
    CommitCounts,
    CommitRecord,
    Finding,
    OutboxRow,
    PartitionState,
    RollupRow,
    SuspenseRecord,
)
from billing.commits.input_batch import InputBatch, PositionMove, Record
from billing.commits.outbox_frames import Frame, compress, encode_frame
from billing.commits.output_documents import Stamp, account_event_data, output_event
from billing.corrections.history import Step
from billing.errors import BrokenInvariant
from billing.ledger import Postings
from billing.log_time import TimeLimits
from schemas.cloudevents import write_structured
from schemas.commands import MESSAGES, Command
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import (
    ACCOUNT_EVENT_TOPIC,
    BALANCE_TOPIC,
    COMMAND_FORWARDED_TOPIC,
    FORWARD_NUMBER_HEADER,
    FORWARD_ORIGIN_HEADER,
    FORWARD_TOPIC,
    RATED_TOPIC,
    REJECTED_TOPIC,
    USAGE_FORWARDED_TOPIC,
)

REJECTED_HEADERS = frozenset(
    ("reason", "detail", "topic", "partition", "offset", "commit", "previousdigest", "history", "comparedthrough")
)
"""Headers that ``usage.rejected`` adds; on a resubmitted record they replace those of its last rejection."""


@dataclass(slots=True)
class CommitDraft:
    """Contents of the commit that is being decided, except the effects held by the calculator.

    ``state`` is the partition before the commit.
    """

    state: PartitionState
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
    suspense: list[SuspenseRecord] = field(default_factory=list)
    forward_next: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_cursors: dict[tuple[str, int], int] = field(default_factory=dict)

    def records_to_apply(self, batch: InputBatch, dropped_count: str) -> Sequence[Record]:
        """Return the records to apply, without forwarded records that the cursor of their origin has passed.

        Dropped records are added to the count named ``dropped_count``.

        Raises:
            BrokenInvariant: a forward number is missing, so a forwarded record was lost.
        """
        if batch.topic not in (USAGE_FORWARDED_TOPIC, COMMAND_FORWARDED_TOPIC):
            return batch.records
        fresh: list[Record] = []
        for record in batch.records:
            forward = forward_number(record)
            if forward is None:
                # Only the relay may write to this topic; a record from elsewhere has no number to deduplicate by.
                self.findings.append(
                    Finding("foreign_forward", f"{batch.topic}[{self.state.partition}] offset {record.offset}")
                )
                fresh.append(record)
                continue
            origin, number = forward
            key = (batch.topic, origin)
            cursor = self.forward_cursors.get(key, self.state.forward_cursors.get(key, 0))
            if number < cursor:
                setattr(self.counts, dropped_count, getattr(self.counts, dropped_count) + 1)
                continue
            if number > cursor:
                raise BrokenInvariant(
                    f"{batch.topic}[{self.state.partition}] offset {record.offset}: forward {number} from partition "
                    f"{origin}, but {cursor} was next; a forwarded record was lost"
                )
            self.forward_cursors[key] = number + 1
            fresh.append(record)
        return fresh

    def outcome(
        self,
        account: str,
        command: Command | Refusal,
        command_type: str | None,
        reason: str | None,
        detail: str | None,
    ) -> None:
        """Add the outcome of a command to ``account.events``: accepted if ``reason`` is None, else rejected."""
        if command_type in MESSAGES:
            return  # A message has no outcome event: its rule emits the events for its account.
        data = {
            "account": account,
            "command_type": command_type,
            "command_source": command.source,
            "command_id": command.id,
        }
        if reason is not None:
            data |= {"reason": reason, "detail": detail}
        type_name = "command.accepted.v1" if reason is None else "command.rejected.v1"
        self.account_events += [(account, type_name, data), *self.corrections]
        self.corrections.clear()

    def add_events(self, events: Iterable[AccountEvent]) -> None:
        """Add account events, in order."""
        self.account_events += [
            (event.account, event.type, {"account": event.account} | account_event_data(event)) for event in events
        ]

    def reject(self, topic: str, record: Record, rejection: Refusal) -> None:
        """Publish a rejected usage record with its original bytes, and keep it in suspense."""
        headers = (
            *((name, content) for name, content in record.headers if name not in REJECTED_HEADERS),
            ("reason", rejection.code.encode()),
            ("detail", rejection.detail.encode()),
            ("topic", topic.encode()),
            ("partition", str(self.state.partition).encode()),
            ("offset", str(record.offset).encode()),
            ("commit", str(self.state.commit_no + 1).encode()),
            ("previousdigest", self.state.digest.hex().encode()),
            *((("history", str(self.state.history).encode()),) if self.state.history else ()),
        )
        self.frames.setdefault(REJECTED_TOPIC, []).append(Frame(record.key, record.value, headers))
        self.suspense.append(SuspenseRecord(topic, record, rejection))

    def forward(self, topic: str, record: Record, target: int) -> None:
        """Forward a record to the partition of its account."""
        own = {FORWARD_ORIGIN_HEADER, FORWARD_NUMBER_HEADER}
        headers = tuple((name, value) for name, value in record.headers if name not in own)
        self._hand_over(FORWARD_TOPIC[topic], target, record.key, record.value, headers)

    def send(self, message: Message, now_us: int) -> None:
        """Add a message to the forwarded commands of its account's partition, which may be this one."""
        value = write_structured(message.type, message.source, message.id, now_us, message.account, message.data)
        target = partition_of(message.account, self.state.partitions)
        self._hand_over(COMMAND_FORWARDED_TOPIC, target, message.account.encode(), value, ())
        self.counts.messages_sent += 1

    def _hand_over(
        self,
        forward_topic: str,
        target: int,
        record_key: bytes | None,
        value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
    ) -> None:
        key = (forward_topic, target)
        number = self.forward_next.get(key, self.state.forward_next.get(key, 0))
        self.forward_next[key] = number + 1
        headers = (
            *headers,
            (FORWARD_ORIGIN_HEADER, str(self.state.partition).encode()),
            (FORWARD_NUMBER_HEADER, str(number).encode()),
        )
        self.frames.setdefault(forward_topic, []).append(Frame(record_key, value, headers, target))

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
        packed = {topic: (len(frames), b"".join(map(encode_frame, frames))) for topic, frames in self.frames.items()}
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
            limits={} if limits is None else {"future_limit_us": limits.future_us, "past_limit_us": limits.past_us},
            reservations_closed=self.reservations,
            suspense=self.suspense,
        )

    def _account_event_frames(self, stamp: Stamp) -> Iterable[Frame]:
        for number, (account, type_name, data) in enumerate(self.account_events):
            yield Frame(account.encode(), output_event(type_name, stamp, number, account, dump_json(data)))


def forward_number(record: Record) -> tuple[int, int] | None:
    """Return (origin partition, forward number) of a forwarded record, or None if no relay wrote it."""
    headers = dict(record.headers)
    origin, number = headers.get(FORWARD_ORIGIN_HEADER), headers.get(FORWARD_NUMBER_HEADER)
    if origin is None or number is None:
        return None
    if not (origin.isdigit() and number.isdigit() and len(origin) + len(number) < 40):
        return None
    return int(origin), int(number)
