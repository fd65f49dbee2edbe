"""What applies usage to a partition's memory: the interface that the plain and the compiled calculator both fulfil.

:class:`billing.calculator.plain.PlainCalculator` is the specification;
:class:`billing.calculator.compiled.CompiledCalculator`
equals it under random input. A calculator holds accounts and identities of one partition and does no I/O: whoever
calls it asks for what is missing first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.catalog.model import Catalog
from billing.commits.commit_record import AccountChanges, Finding, PartitionState, RollupRow
from billing.commits.identities import DedupeChange, HashHour
from billing.commits.input_batch import Record
from billing.commits.output_documents import Stamp
from billing.ledger import Posting
from billing.log_time import TimeLimits
from schemas.refusals import Refusal


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Records of one usage topic of one partition, in offset order.

    ``log_time_us`` is the partition's log time before the batch. The log time of a record is its timestamp made
    monotone: ``log_time = max(log_time, timestamp * 1000)``. With ``limits`` None (``simulate``) there is no log: the
    time of a decision is the greatest event time of the account so far, kept in ``Account.clock_us``.
    """

    partition: int
    partitions: int
    records: Sequence[Record]
    log_time_us: int
    limits: TimeLimits | None


@dataclass(slots=True)
class UsageOutcome:
    """What became of a batch. Indexes point into its records; every record is in exactly one of five places."""

    rated: int = 0
    duplicate: int = 0
    rejected: list[tuple[int, Refusal]] = field(default_factory=list)
    forwarded: list[tuple[int, int]] = field(default_factory=list)
    """(index, target partition) of events whose account lives on another partition."""
    log_time_us: int = 0
    account_events: list[AccountEvent] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    reservations: list[tuple[str, str]] = field(default_factory=list)
    """(account, reservation) that rated events named: their holds end with the commit (DESIGN 16)."""


@dataclass(slots=True)
class Effects:
    """All that calls since the last :meth:`Calculator.take_effects` changed, ready to be committed.

    ``*_frames`` are concatenated, uncompressed frames (:func:`billing.commits.outbox_frames.encode_frame`) and their
    number:
    ``usage.rated`` in decision order, at most 1,000 lines a record, key = partition in decimal digits;
    ``package.balance`` one record an account touched, sorted by account, key = account.
    """

    changes: AccountChanges
    """Rows of touched accounts and buckets of which some column changed since the last call, or that are new."""
    rated_records: int
    rated_frames: bytes
    balance_records: int
    balance_frames: bytes
    postings: list[Posting]
    """Of usage and roll-forward, sorted; not those of commands."""
    rollups: list[RollupRow]
    """Sorted by their first ten fields."""
    dedupe: DedupeChange
    book_times: dict[str, int]


Decoded: TypeAlias = Any
"""A batch that was decoded, opaque to the caller: columns in the core, plain events in the reference."""


class Calculator(Protocol):
    """Applies decoded usage to accounts, in order."""

    def load(self, state: PartitionState) -> None:
        """Take the memory of identities as SQL has it. Called once, before anything else."""

    def set_catalog(self, catalog: Catalog) -> None:
        """Price by this catalogue from now on."""

    def decode(self, batch: UsageBatch) -> Decoded:
        """Read and route the records of a batch; changes nothing that is committed."""

    def missing_accounts(self, decoded: Decoded) -> list[str]:
        """Accounts of this partition that the batch names and that are not in memory."""

    def missing_hours(self, decoded: Decoded) -> list[int]:
        """Hours of identities of unnumbered sources that the batch needs and that are not in memory."""

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        """Take one hour of identities into memory."""

    def hours_held(self) -> list[tuple[int, int]]:
        """(hour_us, bytes in memory) of each hour of identities, sorted."""

    def drop_hour(self, hour_us: int) -> None:
        """Forget an hour of identities, nothing of which is pending; it is asked for again when it is needed."""

    def account_ids(self) -> list[str]:
        """All accounts in memory, sorted."""

    def account(self, account_id: str) -> Account | None:
        """A copy of an account in memory; None where it is not there."""

    def put_account(self, account: Account, *, stored: bool) -> None:
        """Put an account into memory: as SQL has it (``stored``), or created or changed by a command (to be committed).

        Buckets need not be sorted.
        """

    def apply(self, decoded: Decoded) -> UsageOutcome:
        """Decide each event in order: time limits, dedupe, account, price, roll-forward, burn."""

    def take_effects(self, stamp: Stamp) -> Effects:
        """Hand over, and forget as pending, everything that changed."""
