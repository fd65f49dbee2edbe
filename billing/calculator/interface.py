"""The calculator interface, which the plain and the compiled calculator implement.

:class:`billing.calculator.plain.PlainCalculator` is the specification.
:class:`billing.calculator.compiled.CompiledCalculator` equals it under random input. A calculator holds the accounts
and identities of one partition and does no I/O: the caller first loads the accounts and hours that it reports missing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.catalog.model import Catalog
from billing.commits.commit_record import AccountChanges, Finding, PartitionState, RollupRow
from billing.commits.identities import DedupeChange, HashHour, LogPart, PartHeld
from billing.commits.input_batch import Record
from billing.commits.output_documents import Stamp
from billing.ledger import Posting
from billing.log_time import TimeLimits
from schemas.refusals import Refusal
from schemas.usage import UsageEvent

SAME_ROW, CHANGED_ROW, REPLACED_ROW = 0, 1, 2
"""Differences of a row from the one that was taken last; bits, so that ``CHANGED_ROW | REPLACED_ROW`` is replaced."""
OwnCheck: TypeAlias = Callable[[Record], str | None]
"""Returns what a record with a source of the product's own carries instead of a valid digest; None if it is ours."""


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Records of one usage topic of one partition, in offset order.

    ``log_time_us`` is the partition's log time before the batch. The log time of a record is its timestamp made
    monotone: ``log_time = max(log_time, timestamp * 1000)``. If ``limits`` is None (``simulate``), there is no log:
    the time of a decision is the greatest event time of the account so far, kept in ``Account.clock_us``.
    ``own_check`` is called once for each record with an own source (:mod:`schemas.sources`), readable or not; a record
    that fails it is rejected before routing. If it is None, own sources are like others.
    """

    partition: int
    partitions: int
    records: Sequence[Record]
    log_time_us: int
    limits: TimeLimits | None
    own_check: OwnCheck | None = None
    commit_no: int = 0
    """Number of the commit that is being decided."""
    note_unknown: bool = False
    """Numbers of a usage object that its dialect does not know are noted (``UsageEvent.unknown``), not refused."""


@dataclass(slots=True)
class UsageOutcome:
    """Result of applying a batch; indexes refer to its records.

    Each record is either rated, a duplicate, rejected or forwarded.
    """

    rated: int = 0
    duplicate: int = 0
    rejected: list[tuple[int, Refusal]] = field(default_factory=list)
    forwarded: list[tuple[int, int]] = field(default_factory=list)
    """(index, target partition) of events whose account belongs to another partition."""
    log_time_us: int = 0
    account_events: list[AccountEvent] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unknown: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """(index, sentences) of the rated events with numbers that their dialect does not know, in order."""
    conflicts: list[tuple[int, UsageEvent]] = field(default_factory=list)
    """(index, event) of the duplicates whose content differs from what was rated."""
    reservations: list[tuple[str, str]] = field(default_factory=list)
    """(account, reservation) named by rated events; the commit closes these holds
    (docs/reference/principles.md, "Holds")."""


@dataclass(slots=True)
class Effects:
    """All changes since the last :meth:`Calculator.take_effects`, ready to be committed.

    ``*_frames`` are concatenated, uncompressed frames (:func:`billing.commits.outbox_frames.encode_frame`), and
    ``*_records`` is their number. They leave out the headers, which are those of their topic. ``usage.rated`` is in
    decision order, at most 1,000 lines per record, keyed by the partition in decimal digits. ``package.balance`` has
    one record per touched account, sorted and keyed by account.
    """

    changes: AccountChanges
    """Rows of accounts and buckets that are new or have a changed column since the last call."""
    rated_records: int
    rated_frames: bytes | memoryview
    balance_records: int
    balance_frames: bytes | memoryview
    postings: list[Posting]
    """Postings of usage and of the roll-forward before it, sorted; those of commands are not included."""
    rollups: list[RollupRow]
    """Sorted by their first ten fields."""
    dedupe: DedupeChange
    book_times: dict[str, int]


Decoded: TypeAlias = Any
"""A decoded batch, opaque to the caller: columns in the compiled calculator, events in the plain one."""


class Calculator(Protocol):
    """Applies decoded usage to accounts, in order."""

    def load(self, state: PartitionState) -> None:
        """Load the memory of identities from SQL's state. Called once, before any other method."""

    def set_catalog(self, catalog: Catalog) -> None:
        """Use this catalogue from now on."""

    def decode(self, batch: UsageBatch) -> Decoded:
        """Decode and route the records of a batch; change nothing that is committed."""

    def missing_accounts(self, decoded: Decoded) -> list[str]:
        """Return the accounts of this partition that the batch names and that are not in memory."""

    def missing_hours(self, decoded: Decoded) -> list[int]:
        """Return the hours of event time whose identities the batch needs and that are not in memory.

        They are needed for events that may repeat one that was rated more than 24 hours of log time ago.
        """

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        """Load the identities of one hour of event time into memory."""

    def hours_held(self) -> list[tuple[int, int]]:
        """Return (hour_us, bytes in memory) for each hour of event time, sorted."""

    def drop_hour(self, hour_us: int) -> None:
        """Remove an hour of event time; it is reported missing when it is needed again."""

    def has_unnumbered(self, decoded: Decoded) -> bool:
        """Return True if a source of the batch is unnumbered, or would be by an event of the batch."""

    def missing_parts(self, decoded: Decoded) -> list[LogPart]:
        """Return the parts that may have identities of the batch and whose identities are not in memory.

        A part is reported where it may have one: its filter is never wrong when it says no.
        """

    def put_part(self, part: LogPart, payloads: list[bytes]) -> None:
        """Load the identities of a part into memory; parts that were not known are put oldest first."""

    def parts_held(self) -> list[PartHeld]:
        """Return all known parts, oldest first."""

    def shrink_part(self, part: LogPart) -> None:
        """Replace the identities of a part that is committed by a filter, or remove the filter of one that has none."""

    def drop_part(self, part: LogPart) -> None:
        """Remove a part that is older than what is looked up."""

    def account_ids(self) -> list[str]:
        """Return the ids of all accounts in memory, sorted."""

    def holds(self, account_id: str) -> bool:
        """Return True if an account is in memory."""

    def account(self, account_id: str) -> Account | None:
        """Return a copy of an account in memory, or None if it is not there."""

    def put_account(self, account: Account, *, stored: bool, at_least: int = SAME_ROW) -> None:
        """Put an account into memory.

        With ``stored`` the account is as in SQL. Otherwise a command created or changed it, and it is to be committed.
        Its row counts as changed at least as ``at_least`` says: :data:`SAME_ROW`, :data:`CHANGED_ROW`, or
        :data:`REPLACED_ROW` if its terms changed, also if they changed back. Buckets need not be sorted.
        """

    def put_stored(self, accounts: Sequence[Account]) -> None:
        """Put accounts into memory as they are in SQL."""

    def apply(self, decoded: Decoded) -> UsageOutcome:
        """Decide each event in order: time limits, dedupe, account, price, roll-forward, burn."""

    def take_effects(self, stamp: Stamp) -> Effects:
        """Return everything that changed since the last call; it is no longer pending afterwards."""
