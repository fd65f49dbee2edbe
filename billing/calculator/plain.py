"""The plain calculator: the specification that the compiled one equals. It decides one event at a time."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import attrgetter
from typing import TypeAlias

from billing.accounts.account import ACCOUNT_CLOSED, PENDING, Account
from billing.accounts.deduction_order import sort_buckets
from billing.accounts.extras import snapshot
from billing.burning.deduct import Burned
from billing.calculator.dedupe import CONFLICT, DUPLICATE, Dedupe
from billing.calculator.interface import REPLACED_ROW, SAME_ROW, Effects, UsageBatch, UsageOutcome
from billing.catalog.model import Catalog, Plan, PlanKey
from billing.commits.columns import account_terms, bucket_terms
from billing.commits.commit_record import AccountChanges, PartitionState, RollupRow
from billing.commits.copy_text import account_row, bucket_row
from billing.commits.identities import HashHour, LogPart, PartHeld
from billing.commits.input_batch import Record
from billing.commits.outbox_frames import Frame, encode_frame
from billing.commits.output_documents import (
    RATED_PER_RECORD,
    Stamp,
    balance_object,
    output_event,
    paid_line,
    rated_data,
)
from billing.decide.bill_usage import ROLLUP_SUMS, Billed, UsageRules, bill_usage
from billing.ledger import Postings
from billing.log_time import TimeLimits, decided_at, identity_rules, time_refusal
from billing.pricing.rate import Raters
from billing.record_keys import forged
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.sources import is_own
from schemas.usage import UsageEvent, parse_usage

__all__ = ["PlainCalculator"]


def batched(items: list[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield slices of at most ``size`` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


AccountBefore: TypeAlias = tuple[tuple[object, ...], tuple[object, ...]]
"""Values of an account's columns that a change may change, the credit limit first, and a snapshot of its extras."""
_values = attrgetter(
    *("credit_limit_pico", "wallet_pico", "absorbed_micro", "absorbed_pico", "status", "clock_us", "next_due_us")
)
RenderedRows: TypeAlias = dict[str | None, tuple[bytes, object]]


def rows_of(account: Account | None) -> RenderedRows:
    """Return row and terms of an account (key None) and of each bucket (key: bucket id); empty if it is unknown."""
    if account is None:
        return {}
    rows: RenderedRows = {None: (account_row(account), account_terms(account))}
    for bucket in account.buckets:
        rows[bucket.grant_id] = bucket_row(account.account, bucket), bucket_terms(bucket)
    return rows


@dataclass(slots=True)
class PlainDecoded:
    """A decoded batch: each record as an event, a rejection, or the number of the partition it belongs to."""

    batch: UsageBatch
    read: list[UsageEvent | Refusal | int]

    def events(self) -> list[tuple[UsageEvent, int]]:
        """Return the events of this partition, with the log time of their records."""
        found: list[tuple[UsageEvent, int]] = []
        log_time_us = self.batch.log_time_us
        for record, item in zip(self.batch.records, self.read, strict=True):
            log_time_us = max(log_time_us, record.timestamp * 1000)
            if isinstance(item, UsageEvent):
                found.append((item, log_time_us))
        return found


class PlainCalculator:
    """Calculator in plain Python, see :class:`billing.calculator.interface.Calculator`."""

    def __init__(self) -> None:
        self._plans: dict[PlanKey, Plan] = {}
        self._rules = UsageRules(Catalog(), self._plans.__getitem__, Raters())
        self._declared: frozenset[str] = frozenset()
        self._attributes: frozenset[str] = frozenset()
        self._accounts: dict[str, Account] = {}
        self._stored_accounts: set[str] = set()
        self._stored_buckets: set[tuple[str, str]] = set()
        self._touched: set[str] = set()
        self._dirty: dict[tuple[str, str | None], str] = {}
        """(account, None) or (account, bucket id) to ``changed``, or to ``replaced`` if the terms changed too
        (:class:`billing.commits.commit_record.AccountChanges`)."""
        self._dedupe = Dedupe()
        self._lines: list[bytes] = []
        self._postings = Postings()
        self._rollups: dict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * len(ROLLUP_SUMS))
        self._book_times: dict[str, int] = {}

    def load(self, state: PartitionState) -> None:
        self._dedupe = Dedupe(state)

    def set_catalog(self, catalog: Catalog) -> None:
        self._plans = catalog.plans_by_key()
        self._rules = UsageRules(catalog, self._plans.__getitem__, Raters())
        self._declared = catalog.declared_meters()
        self._attributes = catalog.declared_attributes()

    def parse(self, record: Record, *, note_unknown: bool) -> UsageEvent | Refusal:
        """Return the usage event of a record, with the meters and attributes that the catalogue declares."""
        return parse_usage(
            record.value,
            record.headers,
            declared_meters=self._declared,
            declared_attributes=self._attributes,
            note_unknown=note_unknown,
        )

    def decode(self, batch: UsageBatch) -> PlainDecoded:
        self._dedupe.decide_by(identity_rules(batch.limits), batch.commit_no)
        read: list[UsageEvent | Refusal | int] = []
        for record in batch.records:
            item = self.parse(record, note_unknown=batch.note_unknown)
            if batch.own_check is not None and is_own(item.source):
                fault = batch.own_check(record)
                if fault is not None:
                    item = forged(fault, item.source, item.id, item.account)
            if isinstance(item, UsageEvent):
                target = partition_of(item.account, batch.partitions)
                read.append(item if target == batch.partition else target)
            else:
                read.append(item)
        return PlainDecoded(batch, read)

    def missing_accounts(self, decoded: PlainDecoded) -> list[str]:
        return sorted({event.account for event, _ in decoded.events()} - self._accounts.keys())

    def missing_hours(self, decoded: PlainDecoded) -> list[int]:
        return self._dedupe.missing_hours(decoded.events())

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        self._dedupe.put_hour(hour_us, stored)

    def hours_held(self) -> list[tuple[int, int]]:
        return self._dedupe.hours_held()

    def drop_hour(self, hour_us: int) -> None:
        self._dedupe.drop_hour(hour_us)

    def has_unnumbered(self, decoded: PlainDecoded) -> bool:
        return self._dedupe.has_unnumbered(decoded.events())

    def missing_parts(self, decoded: PlainDecoded) -> list[LogPart]:
        return self._dedupe.missing_parts(decoded.events())

    def put_part(self, part: LogPart, payloads: list[bytes]) -> None:
        self._dedupe.put_part(part, payloads)

    def parts_held(self) -> list[PartHeld]:
        return self._dedupe.parts_held()

    def shrink_part(self, part: LogPart) -> None:
        self._dedupe.shrink_part(part)

    def drop_part(self, part: LogPart) -> None:
        self._dedupe.drop_part(part)

    def account_ids(self) -> list[str]:
        return sorted(self._accounts)

    def holds(self, account_id: str) -> bool:
        return account_id in self._accounts

    def account(self, account_id: str) -> Account | None:
        return deepcopy(self._accounts.get(account_id))

    def put_stored(self, accounts: Sequence[Account]) -> None:
        for account in accounts:
            self.put_account(account, stored=True)

    def put_account(self, account: Account, *, stored: bool, at_least: int = SAME_ROW) -> None:
        account = deepcopy(account)
        sort_buckets(account, self._plans.__getitem__)
        before = self._rows(self._accounts.get(account.account))
        self._accounts[account.account] = account
        if stored:
            self._stored_accounts.add(account.account)
            self._stored_buckets.update((account.account, bucket.grant_id) for bucket in account.buckets)
        else:
            self._touched.add(account.account)
            self._note_changes(account, before)
            if at_least & REPLACED_ROW:
                self._dirty[account.account, None] = "replaced"
            elif at_least:
                self._dirty.setdefault((account.account, None), "changed")

    def apply(self, decoded: PlainDecoded) -> UsageOutcome:
        batch = decoded.batch
        outcome = UsageOutcome(log_time_us=batch.log_time_us)
        self._dedupe.decide_by(identity_rules(batch.limits), batch.commit_no)
        for index, (record, item) in enumerate(zip(batch.records, decoded.read, strict=True)):
            outcome.log_time_us = max(outcome.log_time_us, record.timestamp * 1000)
            if isinstance(item, int):
                outcome.forwarded.append((index, item))
                continue
            refused = item if isinstance(item, Refusal) else None
            if isinstance(item, UsageEvent):
                refused = self._decide(item, index, record.offset, batch.limits, outcome)
            if refused is not None:
                self._dedupe.refused(refused)
                outcome.rejected.append((index, refused))
        return outcome

    def _decide(
        self, event: UsageEvent, index: int, offset: int, limits: TimeLimits | None, outcome: UsageOutcome
    ) -> Refusal | None:
        """Decide one event, the record ``index`` of its batch; return the rejection if it is rejected, else None.

        Without a log, an event that is not rated moves the clock of its account too, as a record moves the log's time.
        """
        if limits is None:
            self._move_clock(event)
        if limits is not None:
            late = time_refusal(event, self._dedupe.numbered(event), outcome.log_time_us, limits)
            if late is not None:
                return late
        seen = self._dedupe.look(event, outcome.findings, outcome.log_time_us)
        if isinstance(seen, Refusal):
            return seen
        if seen in (DUPLICATE, CONFLICT):
            outcome.duplicate += 1
            if seen == CONFLICT:
                outcome.conflicts.append((index, event))
            return None
        account = self._accounts.get(event.account)
        if account is None:
            return event.refuse("unknown_account", f"subject: account {event.account!r} was never opened")
        if account.status == ACCOUNT_CLOSED:
            return event.refuse("account_closed", f"subject: account {event.account!r} is closed")
        now_us = max(account.clock_us, event.time_us) if limits is None else outcome.log_time_us
        # Where nothing is due and nothing waits, only the buckets that pay change: no other row is rendered.
        quiet = max(now_us, event.time_us) < account.next_due_us
        quiet = quiet and all(bucket.status != PENDING for bucket in account.buckets)
        rows, before = ({}, self._account_row(account)) if quiet else (self._rows(account), None)
        billed = bill_usage(account, event, decided_at(now_us, limits), self._rules, self._postings)
        if not isinstance(billed, Billed):
            return billed
        outcome.account_events += billed.events
        outcome.rated += 1
        if event.unknown:
            outcome.unknown.append((index, event.unknown))
        if event.reservation is not None:
            outcome.reservations.append((event.account, event.reservation))
        self._dedupe.rated(event, outcome.log_time_us)
        self._touched.add(account.account)
        if before is None:
            self._note_changes(account, rows)
        else:
            self._note_account(account, before)
            self._note_burn(account, billed.burned)
        self._lines.append(dump_json(paid_line(event, billed.rated, offset, billed.burned)))
        sums = self._rollups[billed.rollup_key]
        for place, value in enumerate(billed.rollup_sums):
            sums[place] += value
        book = billed.book.name
        self._book_times[book] = max(event.time_us, self._book_times.get(book, event.time_us))
        return None

    def _move_clock(self, event: UsageEvent) -> None:
        account = self._accounts.get(event.account)
        if account is None or account.clock_us >= event.time_us:
            return
        before = self._account_row(account)
        account.clock_us = event.time_us
        self._touched.add(account.account)
        self._note_account(account, before)

    def take_effects(self, stamp: Stamp) -> Effects:
        rated = [
            encode_frame(
                Frame(
                    str(stamp.partition).encode(),
                    output_event("usage.rated.v1", stamp, number, str(stamp.partition), rated_data(chunk)),
                )
            )
            for number, chunk in enumerate(batched(self._lines, RATED_PER_RECORD))
        ]
        touched = [self._accounts[name] for name in sorted(self._touched)]
        balances = [
            encode_frame(
                Frame(
                    account.account.encode(),
                    output_event(
                        "package.balance.v1", stamp, number, account.account, dump_json(balance_object(account))
                    ),
                )
            )
            for number, account in enumerate(touched)
        ]
        effects = Effects(
            changes=self._take_changes(touched),
            rated_records=len(rated),
            rated_frames=b"".join(rated),
            balance_records=len(balances),
            balance_frames=b"".join(balances),
            postings=list(self._postings.lines()),
            rollups=[RollupRow(*key, *sums) for key, sums in sorted(self._rollups.items())],  # type: ignore[arg-type]
            dedupe=self._dedupe.take_change(),
            book_times=dict(sorted(self._book_times.items())),
        )
        self._lines, self._touched, self._postings, self._book_times = [], set(), Postings(), {}
        self._rollups.clear()
        return effects

    def _rows(self, account: Account | None) -> RenderedRows:
        """Return the rows of an account before a change, for comparison."""
        return rows_of(account)

    def _account_row(self, account: Account) -> AccountBefore:
        """Return an account before a change, without its buckets, for comparison."""
        return _values(account), snapshot(account.extras)

    def _note_account(self, account: Account, before: AccountBefore) -> None:
        """Mark the row of an account if it differs from ``before``, without those of its buckets."""
        (old_limit, *old), old_extras = before
        limit, *new = _values(account)
        if (old_limit, old_extras) != (limit, snapshot(account.extras)):
            self._dirty[account.account, None] = "replaced"
        elif old != new:
            self._dirty.setdefault((account.account, None), "changed")

    def _note_burn(self, account: Account, burned: Burned) -> None:
        """Mark the rows of the buckets that an event burned; those that it bought are new anyway."""
        for deduction in burned.deductions:
            self._dirty.setdefault((account.account, deduction.grant_id), "changed")

    def _note_changes(self, account: Account, before: RenderedRows) -> None:
        """Mark the rows of an account that differ from ``before``."""
        for grant_id, (row, terms) in rows_of(account).items():
            old_row, old_terms = before.get(grant_id, (b"", None))
            if old_terms != terms:
                self._dirty[account.account, grant_id] = "replaced"
            elif old_row != row:
                self._dirty.setdefault((account.account, grant_id), "changed")

    def _take_changes(self, touched: list[Account]) -> AccountChanges:
        parts: dict[str, list[bytes]] = defaultdict(list)
        for account in touched:
            name = account.account
            if name not in self._stored_accounts:
                parts["accounts_new"].append(account_row(account))
            elif (name, None) in self._dirty:
                parts[f"accounts_{self._dirty[name, None]}"].append(account_row(account))
            for bucket in sorted(account.buckets, key=lambda bucket: bucket.grant_id):
                key = (name, bucket.grant_id)
                if key not in self._stored_buckets:
                    parts["buckets_new"].append(bucket_row(name, bucket))
                elif key in self._dirty:
                    parts[f"buckets_{self._dirty[key]}"].append(bucket_row(name, bucket))
                self._stored_buckets.add(key)
            self._stored_accounts.add(name)
        self._dirty.clear()
        return AccountChanges(**{name: b"".join(rows) for name, rows in parts.items()})
