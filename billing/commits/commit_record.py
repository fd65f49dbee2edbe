"""The values that cross the edge between rules and SQL: what one commit reads, and everything it writes.

A :class:`CommitRecord` is complete: the store writes it in one transaction and adds nothing of its own but digests.
No I/O here.
"""

from dataclasses import dataclass, field

from billing.commits.identities import DedupeChange, RecentNumbers, SourceState
from billing.commits.input_batch import PositionMove, Record
from billing.ledger import Posting
from schemas.refusals import Refusal


@dataclass(slots=True)
class CommitCounts:
    """What became of the records of one commit. Usage: in = rated + duplicate + rejected + forwarded + dropped."""

    rated: int = 0
    duplicate: int = 0
    rejected: int = 0
    forwarded: int = 0
    dropped: int = 0
    """Forwarded records that had already been applied (a relay that sent them again)."""
    commands_accepted: int = 0
    commands_rejected: int = 0
    commands_duplicate: int = 0
    commands_forwarded: int = 0
    commands_dropped: int = 0
    messages_sent: int = 0
    """Messages to accounts, put among the forwarded commands; no records that came in."""


@dataclass(frozen=True, slots=True)
class RollupRow:
    """Usage of one commit summed by hour of event time and combination."""

    hour_us: int
    price_book: str
    currency: str
    model: str
    hardware_tier: str
    energy_source: str
    site: str
    channel: str
    service_tier: str
    outcome: str
    events: int
    tokens: int
    """Raw tokens: sum of the token meters."""
    standard_micro: int
    amount_pico: int
    net_pico: int
    burned_micro: int
    charged_pico: int
    absorbed_micro: int
    absorbed_pico: int
    revenue_pico: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """Output of this commit for one topic: ``payload`` as :mod:`billing.commits.outbox_frames` packs it, ``records``
    records.

    The first record has sequence ``first_sequence`` of (topic, partition), the others follow by one.
    """

    topic: str
    records: int
    first_sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a person should look at that stops nothing: kind, where, and the facts."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Suspended:
    """A usage record that this commit rejected: where it stood, as it came, and why. Kept for good."""

    topic: str
    record: Record
    rejection: Refusal


@dataclass(slots=True)
class AccountChanges:
    """Accounts and buckets after this commit, as PostgreSQL ``COPY`` text (tab-separated, ``\\N`` for null).

    ``accounts``: account, currency, price_book, payment, credit_limit, wallet, absorbed, absorbed_amount, status,
    clock_us, next_due_us, extras. ``buckets``: account, grant_id, plan, plan_version, bucket_no, unit, amount,
    remaining, liability, valid_from_us, valid_until_us, lapse_at_us, alerts_fired, status, carried_cycles. Money in
    pico, quota in micro. A row whose key is new is in ``*_new``. One of which only what follows the hyphen changed is
    in ``*_changed``: account - wallet, absorbed, absorbed_amount, status, clock_us, next_due_us;
    (account, grant_id) - remaining, liability, alerts_fired, status. One whose terms changed too is in ``*_replaced``:
    credit_limit, extras; amount, valid_until_us, lapse_at_us, carried_cycles.
    """

    accounts_new: bytes = b""
    accounts_changed: bytes = b""
    accounts_replaced: bytes = b""
    buckets_new: bytes = b""
    buckets_changed: bytes = b""
    buckets_replaced: bytes = b""


@dataclass(slots=True)
class CommitRecord:
    """Everything one commit of one partition writes, besides epoch and digests."""

    partition: int
    commit_no: int
    """The partition's commits are numbered from 1 without holes."""
    catalog_epoch: int
    log_time_us: int
    """The partition's monotone log time after the commit."""
    positions: list[PositionMove]
    counts: CommitCounts
    changes: AccountChanges
    postings: list[Posting]
    """Balanced per currency, sorted."""
    rollups: list[RollupRow]
    dedupe: DedupeChange
    commands_seen: list[tuple[str, str, str]]
    """(source, id, outcome) of commands decided here, unique for ever."""
    payments: list[tuple[str, str]]
    """(account, payment_ref) used here, unique for ever."""
    outbox: list[OutboxRow]
    """Output topics, and the forward topics (their payload frames carry the target partition)."""
    next_sequences: dict[str, int]
    """Topic to the sequence its next record of this partition gets."""
    forward_next: dict[tuple[str, int], int]
    """(forward topic, target partition) to the next forward number, where this commit forwarded."""
    forward_cursors: dict[tuple[str, int], int]
    """(forward topic, origin partition) to the next number expected, where this commit applied forwarded records."""
    findings: list[Finding]
    book_times: dict[str, int]
    """Price book name to the greatest event time rated under it in this commit (back-dating guard)."""
    limits: dict[str, int]
    """The settings that decided: future_limit_us, past_limit_us."""
    reservations_closed: list[tuple[str, str]] = field(default_factory=list)
    """(account, reservation) whose hold ends with this commit: usage naming it was rated. Not in the digest."""
    suspense: list[Suspended] = field(default_factory=list)
    """Every usage record counted as rejected, in the order of decision."""


@dataclass(slots=True)
class PartitionState:
    """What a partition is loaded from: everything but accounts, which are loaded when first needed."""

    partition: int
    partitions: int
    commit_no: int = 0
    log_time_us: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    next_sequences: dict[str, int] = field(default_factory=dict)
    forward_next: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_cursors: dict[tuple[str, int], int] = field(default_factory=dict)
    sources: list[SourceState] = field(default_factory=list)
    recent: list[RecentNumbers] = field(default_factory=list)
