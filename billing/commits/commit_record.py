"""Values passed between the rules and SQL: the state that a partition is loaded from, and the record of one commit.

A :class:`CommitRecord` is complete: the store writes it in one transaction and adds only the digests. No I/O here.
"""

from dataclasses import dataclass, field

from billing.accounts.held import Held, HeldLimit
from billing.commits.identities import DedupeChange, RecentNumbers, SourceState
from billing.commits.input_batch import PositionMove, Record
from billing.ledger import Posting
from schemas.refusals import Refusal

NO_DIGEST = bytes(32)
"""Digest before the first commit of a partition."""
ACCEPTED = "accepted"
"""Outcome of a command in ``commands_seen``; a refused command is not in it."""


@dataclass(slots=True)
class CommitCounts:
    """Counts of the records of one commit by outcome.

    Usage records in = rated + duplicate + rejected + forwarded + dropped + foreign. Command records in = accepted +
    rejected + duplicate + forwarded + dropped + foreign.
    """

    rated: int = 0
    duplicate: int = 0
    rejected: int = 0
    forwarded: int = 0
    dropped: int = 0
    """Forwarded records that were applied before: the relay sent them again."""
    commands_accepted: int = 0
    commands_rejected: int = 0
    commands_duplicate: int = 0
    commands_forwarded: int = 0
    commands_dropped: int = 0
    messages_sent: int = 0
    """Messages to accounts, sent as forwarded commands. They are output, so they are not part of the records in."""
    foreign: int = 0
    """Records on the topic of forwarded usage that no partition forwarded: kept, and without any effect."""
    commands_foreign: int = 0


@dataclass(frozen=True, slots=True)
class RollupRow:
    """Usage of one commit, summed by hour of event time, price book, currency and combination."""

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
    """Raw tokens: the sum of the token meters."""
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
    """Output of one commit for one topic: ``records`` records, packed by :mod:`billing.commits.outbox_frames`.

    The first record has the sequence ``first_sequence`` of (topic, partition); each later one is greater by one.
    """

    topic: str
    records: int
    first_sequence: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class OutboxPage:
    """Output of complete commits after a commit, in publishing order, with the digests of both ends."""

    rows: list[tuple[int, OutboxRow]]
    """(commit number, row); empty if nothing waits."""
    before: bytes | None
    """Digest of the commit after which the rows begin; None if there is no such commit."""
    last: bytes
    """Digest of the last commit in ``rows``; empty if there are none."""


@dataclass(frozen=True, slots=True)
class OutputHistory:
    """A history of one partition's output, which begins when an older copy of the database takes over.

    Commits up to ``common_commit_no`` are in both histories. Consumers have the earlier one up to
    ``published_commit_no``. Output of this database up to ``after_commit_no`` is compared with it before it is
    published; what follows carries the number ``history``.
    """

    partition: int
    history: int
    after_commit_no: int
    common_commit_no: int
    published_commit_no: int
    published_digest: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that an operator should look at and that stops nothing. ``detail`` names the place and the facts."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class SuspenseRecord:
    """A usage record that this commit rejected: its topic, its bytes as received, and the reason. Kept permanently."""

    topic: str
    record: Record
    rejection: Refusal


@dataclass(frozen=True, slots=True)
class ConflictRecord:
    """A duplicate whose content differs from what was rated: its topic, its bytes as received, and its identity.

    Kept permanently.
    """

    topic: str
    record: Record
    account: str
    source: str
    id: str
    sequence: int | None


@dataclass(frozen=True, slots=True)
class ForeignRecord:
    """A record on a forward topic that no partition forwarded: its topic, its bytes, and what shows it."""

    topic: str
    record: Record
    fault: str


@dataclass(slots=True)
class AccountChanges:
    """Accounts and buckets after this commit, as PostgreSQL ``COPY`` text (tab-separated, ``\\N`` for null).

    Columns of ``accounts_*``: account, currency, price_book, payment, credit_limit, wallet, absorbed, absorbed_amount,
    status, clock_us, next_due_us, extras. Columns of ``buckets_*``: account, grant_id, plan, plan_version, bucket_no,
    unit, amount, remaining, liability, valid_from_us, valid_until_us, lapse_at_us, alerts_fired, status,
    carried_cycles. Money is in pico, quota in micro. The key is account, or (account, grant_id).

    - ``*_new``: rows whose key is new.
    - ``*_changed``: rows in which only balances changed. Of an account: wallet, absorbed, absorbed_amount, status,
      clock_us, next_due_us. Of a bucket: remaining, liability, alerts_fired, status.
    - ``*_replaced``: rows whose terms changed too. Of an account: credit_limit, extras. Of a bucket: amount,
      valid_from_us, valid_until_us, lapse_at_us, carried_cycles.
    """

    accounts_new: bytes = b""
    accounts_changed: bytes = b""
    accounts_replaced: bytes = b""
    buckets_new: bytes = b""
    buckets_changed: bytes = b""
    buckets_replaced: bytes = b""


@dataclass(slots=True)
class CommitRecord:
    """Everything that one commit of one partition writes, except the epoch and the digests."""

    partition: int
    commit_no: int
    """Number of the commit in its partition: from 1, without gaps."""
    catalog_epoch: int
    log_time_us: int
    """The monotone log time of the partition after the commit."""
    positions: list[PositionMove]
    counts: CommitCounts
    changes: AccountChanges
    postings: list[Posting]
    """Journal lines, balanced in each currency and sorted."""
    rollups: list[RollupRow]
    dedupe: DedupeChange
    commands_seen: list[tuple[str, str, str]]
    """(source, id, outcome) of the commands that this commit accepted; (source, id) is unique forever."""
    payments: list[tuple[str, str]]
    """(account, payment_ref) pairs that this commit used; each is unique forever."""
    outbox: list[OutboxRow]
    """Rows of the output topics and of the forward topics. Frames of a forward topic carry their target partition."""
    next_sequences: dict[str, int]
    """Next sequence of this partition, by topic."""
    forward_next: dict[tuple[str, int], int]
    """Next forward number by (forward topic, target partition), where this commit forwarded records."""
    forward_cursors: dict[tuple[str, int], int]
    """Next expected number by (forward topic, origin partition), where this commit applied forwarded records."""
    findings: list[Finding]
    book_times: dict[str, int]
    """Greatest event time rated in this commit, by price book name. Later versions of the book must begin after it."""
    limits: dict[str, int]
    """Limits that the commit was decided with (:func:`billing.log_time.limits_object`). Empty if there were none."""
    reservations_closed: list[tuple[str, str]] = field(default_factory=list)
    """(account, reservation) pairs whose hold this commit closes, because usage naming them was rated. Not digested."""
    suspense: list[SuspenseRecord] = field(default_factory=list)
    """Every usage record counted as rejected, in the order of decision."""
    conflicts: list[ConflictRecord] = field(default_factory=list)
    """Every duplicate with other content, in the order of decision; each also has a finding ``identity_conflict``."""
    held: list[tuple[str, Held]] = field(default_factory=list)
    """Amounts that open holds held when commands of this commit were decided, by account, where there were any."""
    held_limits: dict[str, HeldLimit] = field(default_factory=dict)
    """The most that may be held of accounts from which commands took, by account; checked with the commit."""
    foreign: list[ForeignRecord] = field(default_factory=list)
    """Every record counted as foreign, in the order of decision."""
    passed_over: list[tuple[str, int]] = field(default_factory=list)
    """(topic, offset) of commands with an own source and no valid digest. For histories; not stored."""


@dataclass(slots=True)
class PartitionState:
    """State that a partition is loaded from. Accounts are not part of it: each is loaded when it is first needed."""

    partition: int
    partitions: int
    commit_no: int = 0
    digest: bytes = NO_DIGEST
    """Digest of the last commit, which each output of the next one carries; constant where nothing is stored."""
    history: int = 0
    """Number of the history of published commits: it rises when an older copy of the database takes over."""
    log_time_us: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    next_sequences: dict[str, int] = field(default_factory=dict)
    forward_next: dict[tuple[str, int], int] = field(default_factory=dict)
    forward_cursors: dict[tuple[str, int], int] = field(default_factory=dict)
    sources: list[SourceState] = field(default_factory=list)
    recent: list[RecentNumbers] = field(default_factory=list)
    unlogged_until_us: int = 0
    """Log time up to which identities were stored without the hour of log time; 0 if all have it."""
