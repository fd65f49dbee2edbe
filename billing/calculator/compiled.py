"""The compiled calculator: the interface to ``cython_ext``. It equals :class:`PlainCalculator` and holds no rule.

The loop of :mod:`cython_ext.usage` decides the common case. It stops where it needs an answer from this module: the
price of a combination or the scope of a bucket, which plain functions look up once. Any other event is decided by
:class:`PlainCalculator`, alone and in order, on a plain copy of its account and over the same memory of identities.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from billing.accounts.account import Account, Bucket
from billing.accounts.deduction_order import deduction_key, deduction_order
from billing.burning.deduct import Burned, alert_floor_micro
from billing.calculator.core_prices import CorePrices
from billing.calculator.dedupe import (
    CONFLICT,
    DUPLICATE,
    NEW,
    Dedupe,
    number_missing,
    number_reused,
    number_too_far,
)
from billing.calculator.interface import SAME_ROW, Effects, OwnCheck, UsageBatch, UsageOutcome
from billing.calculator.packed_extras import TOLD_OF_NO_EXTRAS, ExtrasPacker
from billing.calculator.plain import AccountBefore, PlainCalculator, RenderedRows
from billing.catalog.model import TEXT_DIMENSIONS, Catalog, Plan, PlanBucket, PlanKey
from billing.catalog.patterns import scope_matches
from billing.commits.commit_record import AccountChanges, Finding, PartitionState, RollupRow
from billing.commits.identities import DedupeChange, HashHour, LogPart, PartHeld, RecentNumbers, SourceState
from billing.commits.input_batch import Record
from billing.commits.output_documents import (
    RATED_PER_RECORD,
    Stamp,
    described_combination,
    output_event,
    rated_data,
)
from billing.commits.stored_accounts import StoredAccounts
from billing.decide.bill_usage import ROLLUP_SUMS
from billing.errors import BrokenInvariant
from billing.ledger import CONTRACT_LIABILITY, CUSTOMER_DEPOSITS, OUTPUT_VAT, REVENUE_USAGE, Postings
from billing.log_time import IdentityRules, TimeLimits, identity_rules
from billing.record_keys import forged
from cython_ext.accounts import AccountStore
from cython_ext.decode import Decoder, EventColumns
from cython_ext.dedupe import Memory
from cython_ext.usage import Usage
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.sources import OWN_SOURCES, is_own
from schemas.usage import DIMENSIONS, UsageEvent

__all__ = ["CompiledCalculator"]

_NEEDS_SCOPE, _NEEDS_PLAIN, _ALL_DONE = 3, 4, 5  # cython_ext.usage
_NEEDS_PART = 8  # cython_ext.usage: the plain calculator, with some of the account's buckets
_MARKED = 2  # in CompiledDecoded.mine: a row of this partition that names a reservation, or has unknown numbers
_LOOK_NEW, _LOOK_DUPLICATE, _LOOK_CONFLICT, _LOOK_REUSED, _LOOK_NO_NUMBER, _LOOK_TOO_FAR = range(6)  # cython_ext.dedupe
_OWN_SOURCES = OWN_SOURCES.encode()
_MARK_NUMBER = 987_654_321_012_345_678
_MARK_SUBJECT, _MARK_DATA = "<the subject>", b"<the data>"


@dataclass(slots=True)
class CompiledDecoded:
    """A decoded batch: columns, one mark per row, and the rejections of the plain decoder.

    ``mine`` has one byte per row: 1 for a readable row of this partition, 2 if such a row is in ``reservations`` or in
    ``unknown``, else 0. ``elsewhere`` lists (row, target partition).
    """

    batch: UsageBatch
    columns: EventColumns
    mine: bytes
    elsewhere: list[tuple[int, int]]
    rejections: dict[int, Refusal]
    reservations: dict[int, str]
    """Row to the reservation that it names; the hold ends when the row is rated."""
    unknown: dict[int, tuple[str, ...]]
    """Row to sentences about numbers that its dialect does not know."""


BucketKey = tuple[str, int, int, str, int]
"""Plan, version, bucket number, amount as text, and number of alerts fired."""
BucketTerms = tuple[int, int, PlanBucket]
"""Rule number, alert floor and plan bucket."""


class _Terms(dict[BucketKey, BucketTerms]):
    """The terms of buckets, looked up once: most buckets of a plan have the same."""

    MOST = 4096

    def __init__(self, look_up: Callable[[BucketKey], BucketTerms]) -> None:
        super().__init__()
        self._look_up = look_up

    def __missing__(self, key: BucketKey) -> BucketTerms:
        if len(self) >= self.MOST:
            self.clear()
        found = self[key] = self._look_up(key)
        return found


class _CompiledDedupe(Dedupe):
    """Adapter of the compiled memory to :class:`Dedupe`, for the row that the plain calculator decides.

    The compiled memory determines the case. The texts of rejections and findings are those of the plain module.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory
        self.columns = EventColumns()
        self.row = 0

    def decide_by(self, rules: IdentityRules, commit_no: int = 0) -> None:
        super().decide_by(rules, commit_no)
        self.memory.decide_by(*rules, commit_no)

    def numbered(self, event: UsageEvent) -> bool:
        return self.memory.is_numbered(self.columns, self.row)

    def look(self, event: UsageEvent, findings: list[Finding], log_time_us: int = 0) -> str | Refusal:
        seen = self.memory.look_at(self.columns, self.row, log_time_us)
        if seen == _LOOK_NEW:
            return NEW
        if seen == _LOOK_NO_NUMBER:
            return number_missing(event)
        if seen == _LOOK_REUSED:
            return number_reused(event, findings)
        if seen == _LOOK_TOO_FAR:
            return number_too_far(event, self.memory.highest_seen(self.columns, self.row), self._rules.sequence_jump)
        return CONFLICT if seen == _LOOK_CONFLICT else DUPLICATE

    def rated(self, event: UsageEvent, log_time_us: int = 0) -> None:
        self.memory.set_rated(self.columns, self.row, log_time_us)

    def refused(self, rejection: Refusal) -> None:
        if rejection.source is None or rejection.sequence is None or rejection.code == "sequence_reused":
            return
        self.memory.set_refused(rejection.source, rejection.sequence)


class _PlainCopies(dict[str, Account]):
    """Plain copies of accounts of the compiled store, made when requested and kept to be stored back."""

    def __init__(self, store: AccountStore) -> None:
        super().__init__()
        self._store = store
        self.part: list[int] | None = None
        """Places of the buckets that decide the event; None: all of them."""

    def get(self, account_id: str, default: Account | None = None) -> Account | None:  # type: ignore[override]
        known = dict.get(self, account_id)
        if known is not None:
            return known
        part = self.part
        account = self._store.get(account_id) if part is None else self._store.get_part(account_id, part)
        if account is None:
            return default
        self[account_id] = account
        return account


class _RareCases(PlainCalculator):
    """The plain calculator over the compiled memories; decides one event at a time."""

    def __init__(self, memory: Memory, store: AccountStore) -> None:
        super().__init__()
        self.dedupe = self._dedupe = _CompiledDedupe(memory)
        self._copies = _PlainCopies(store)
        self._accounts: dict[str, Account] = self._copies

    def decide(
        self,
        event: UsageEvent,
        row: int,
        offset: int,
        limits: TimeLimits | None,
        outcome: UsageOutcome,
        part: list[int] | None = None,
    ) -> tuple[Refusal | None, list[Account], list[bytes]]:
        """Decide the event of one row; ``part`` are the places of the buckets that decide it, None: all of them.

        Returns:
            The rejection or None, the accounts to store back, and the rated lines to append.
        """
        self._copies.part = part
        refused = self._decide(event, row, offset, limits, outcome)
        changed = [self._accounts[name] for name in self._touched]
        lines = self._lines
        self._accounts.clear()
        self._touched, self._lines = set(), []
        return refused, changed, lines

    def _rows(self, account: Account | None) -> RenderedRows:
        """Return no rows; the compiled store compares when the account is put back."""
        return {}

    def _account_row(self, account: Account) -> AccountBefore:
        """Return nothing, as :meth:`_rows`."""
        return (), ()

    def _note_account(self, account: Account, before: AccountBefore) -> None:
        """Do nothing: notes kept here would never be cleared."""

    def _note_burn(self, account: Account, burned: Burned) -> None:
        """Do nothing, as :meth:`_note_account`."""

    def _note_changes(self, account: Account, before: RenderedRows) -> None:
        """Do nothing, as :meth:`_note_account`."""

    def plan(self, key: PlanKey) -> Plan:
        """Return a plan version of the catalogue."""
        return self._plans[key]

    def take(self) -> tuple[Postings, dict[tuple[object, ...], list[int]], dict[str, int]]:
        """Return and clear the postings, rollups and book times of events decided here since the last call."""
        taken = self._postings, dict(self._rollups), self._book_times
        self._postings, self._book_times = Postings(), {}
        self._rollups.clear()
        return taken


class CompiledCalculator:
    """Calculator over columns, see :class:`billing.calculator.interface.Calculator`."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._memory = Memory(self._decoder.sources, self._decoder.accounts)
        self._store = AccountStore(self._decoder.accounts, Account, Bucket, ExtrasPacker())
        self._prices = CorePrices(self._decoder, lambda text: self._usage.word(text))
        self._usage = Usage(self._decoder, self._memory, self._store, self._prices.tables)
        self._rare = _RareCases(self._memory, self._store)
        self._rules: list[PlanBucket] = []
        self._terms = _Terms(self._terms_of)
        self._own_sources = bytearray()
        """1 for each source number that is an own source, 0 for others."""
        self._knows_own_source = False

    def load(self, state: PartitionState) -> None:
        self._memory.load_unlogged(state.unlogged_until_us)
        for stored in state.sources:
            self._memory.load_source(stored.source, stored.numbered, stored.seen_runs, stored.refused)
        for recent in state.recent:
            self._memory.load_recent(recent.source, recent.payload)

    def set_catalog(self, catalog: Catalog) -> None:
        self._rare.set_catalog(catalog)
        self._decoder.declare_meters(catalog.declared_meters())
        self._decoder.declare_attributes(sorted(catalog.declared_attributes()))
        self._usage.clear_scopes()
        self._terms.clear()
        self._prices.set_books(catalog.price_books)

    def decode(self, batch: UsageBatch) -> CompiledDecoded:
        self._rare.dedupe.decide_by(identity_rules(batch.limits), batch.commit_no)
        columns = self._decoder.decode(batch.records)
        rejections: dict[int, Refusal] = {}
        reservations, unknown = columns.reservations(), dict[int, tuple[str, ...]]()
        for row in columns.unread():
            record = batch.records[row]
            item = self._rare.parse(record, note_unknown=batch.note_unknown)
            if isinstance(item, Refusal):
                rejections[row] = item
                columns.refuse(row)
                continue
            self._decoder.set_event(columns, row, item)
            if item.reservation is not None:
                reservations[row] = item.reservation
            if item.unknown:
                unknown[row] = item.unknown
        if batch.own_check is not None:
            self._check_own(batch, batch.own_check, columns, rejections)
        mine, elsewhere = self._usage.route(columns, batch.partition, batch.partitions)
        marks = bytearray(mine)
        for row in (*reservations, *unknown):
            if marks[row]:
                marks[row] = _MARKED
        return CompiledDecoded(batch, columns, bytes(marks), elsewhere, rejections, reservations, unknown)

    def _check_own(
        self, batch: UsageBatch, check: OwnCheck, columns: EventColumns, rejections: dict[int, Refusal]
    ) -> None:
        """Reject the rows with an own source that fail the check."""
        sources = self._decoder.sources
        for number in range(len(self._own_sources), len(sources)):
            own = sources[number].startswith(_OWN_SOURCES)
            self._own_sources.append(own)
            self._knows_own_source |= own
        rows = columns.rows_from(self._own_sources) if self._knows_own_source else []
        for row in sorted([*rows, *(row for row, refused in rejections.items() if is_own(refused.source))]):
            record = batch.records[row]
            fault = check(record)
            if fault is not None:
                item = rejections.get(row) or self._reread(record, note_unknown=batch.note_unknown)
                rejections[row] = forged(fault, item.source, item.id, item.account)
                columns.refuse(row)

    def missing_accounts(self, decoded: CompiledDecoded) -> list[str]:
        return self._usage.missing_accounts(decoded.columns, decoded.mine)

    def missing_hours(self, decoded: CompiledDecoded) -> list[int]:
        return sorted(self._memory.missing_hours(decoded.columns, decoded.mine, decoded.batch.log_time_us))

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        self._memory.put_hour(hour_us, [part.payload for part in stored])

    def hours_held(self) -> list[tuple[int, int]]:
        return self._memory.hours_held()

    def drop_hour(self, hour_us: int) -> None:
        self._memory.drop_hour(hour_us)

    def has_unnumbered(self, decoded: CompiledDecoded) -> bool:
        return self._memory.has_unnumbered(decoded.columns, decoded.mine)

    def missing_parts(self, decoded: CompiledDecoded) -> list[LogPart]:
        found = self._memory.missing_parts(decoded.columns, decoded.mine, decoded.batch.log_time_us)
        return [LogPart(*one) for one in found]

    def put_part(self, part: LogPart, payloads: list[bytes]) -> None:
        self._memory.put_part(part.log_hour_us, part.first_commit, part.last_commit, payloads)

    def parts_held(self) -> list[PartHeld]:
        return [PartHeld(LogPart(*one[:3]), *one[3:]) for one in self._memory.parts_held()]

    def shrink_part(self, part: LogPart) -> None:
        self._memory.shrink_part(part.log_hour_us, part.first_commit)

    def drop_part(self, part: LogPart) -> None:
        self._memory.drop_part(part.log_hour_us, part.first_commit)

    def account_ids(self) -> list[str]:
        names = self._decoder.accounts
        return sorted(names[number].decode() for number in range(len(names)) if self._store.has(number))

    def holds(self, account_id: str) -> bool:
        number = self._decoder.accounts.known(account_id.encode())
        return number >= 0 and self._store.has(number)

    def account(self, account_id: str) -> Account | None:
        return self._store.get(account_id)

    def put_account(self, account: Account, *, stored: bool, at_least: int = SAME_ROW) -> None:
        plan_of = self._rare.plan
        buckets = sorted(account.buckets, key=lambda bucket: deduction_order(bucket, plan_of))
        rules: list[int] = []
        floors: list[int] = []
        for bucket in buckets:
            rules.append(self._rule(plan_of(bucket.plan_key), bucket.bucket_no))
            floors.append(self._floor(bucket))
        self._store.put(account, buckets, rules, floors, stored, at_least)

    def put_stored(self, accounts: Sequence[Account]) -> None:
        if isinstance(accounts, StoredAccounts):
            self._store.put_rows(accounts.account_rows, accounts.bucket_rows, self._terms, deduction_key)
            return
        for account in accounts:
            self.put_account(account, stored=True)

    def _rule(self, plan: Plan, bucket_no: int) -> int:
        """Return the core's number of a bucket of a plan."""
        rule = self._store.rule(plan, bucket_no)
        if rule == len(self._rules):
            self._rules.append(plan.buckets[bucket_no - 1])
        return rule

    def _terms_of(self, key: BucketKey) -> BucketTerms:
        """Return what the core must know of a bucket beside its row."""
        name, version, bucket_no, amount, alerts_fired = key
        plan = self._rare.plan(PlanKey(name, version))
        floor_micro = alert_floor_micro(int(amount), alerts_fired, plan.alerts_micro)
        return self._rule(plan, bucket_no), floor_micro, plan.buckets[bucket_no - 1]

    def _floor(self, bucket: Bucket) -> int:
        alerts_micro = self._rare.plan(bucket.plan_key).alerts_micro
        return alert_floor_micro(bucket.amount_micro, bucket.alerts_fired, alerts_micro)

    def apply(self, decoded: CompiledDecoded) -> UsageOutcome:
        batch, usage = decoded.batch, self._usage
        limits = None if batch.limits is None else (batch.limits.future_us, batch.limits.past_us)
        outcome = UsageOutcome(forwarded=list(decoded.elsewhere))
        self._rare.dedupe.decide_by(identity_rules(batch.limits), batch.commit_no)
        usage.start(batch.log_time_us)
        closed: list[tuple[int, str]] = []  # (row, reservation) of rows decided by the plain calculator
        row = 0
        while True:
            row, need = usage.run(decoded.columns, decoded.mine, row, limits)
            if need == _ALL_DONE:
                break
            if need == _NEEDS_SCOPE:
                self._look_up_scope(usage.wanted_rule, usage.wanted_combination)
            elif need in (_NEEDS_PLAIN, _NEEDS_PART):
                outcome.log_time_us = usage.log_time_us
                self._decide_plainly(decoded, row, outcome, usage.part_of() if need == _NEEDS_PART else None)
                if outcome.reservations:
                    closed.append((row, outcome.reservations.pop()[1]))
                row += 1
            else:
                self._prices.look_up(need)
        outcome.log_time_us = usage.log_time_us
        marked = usage.marked_and_rated()
        closed += ((row, decoded.reservations[row]) for row in marked if row in decoded.reservations)
        outcome.unknown += ((row, decoded.unknown[row]) for row in marked if row in decoded.unknown)
        outcome.unknown.sort()
        for row, reservation in sorted(closed):
            outcome.reservations.append((self._account_of(decoded.columns, row), reservation))
        outcome.rated += usage.rated
        outcome.duplicate += usage.duplicate
        return outcome

    def _decide_plainly(
        self, decoded: CompiledDecoded, row: int, outcome: UsageOutcome, part: list[int] | None
    ) -> None:
        refused = decoded.rejections.get(row)
        dedupe = self._rare.dedupe
        if refused is None:
            dedupe.columns, dedupe.row = decoded.columns, row
            batch = decoded.batch
            record = batch.records[row]
            event = self._reread(record, note_unknown=batch.note_unknown)
            refused, changed, lines = self._rare.decide(event, row, record.offset, batch.limits, outcome, part)
            for account in changed:
                if part is None:
                    self.put_account(account, stored=False)
                else:
                    self._store.put_part(account, part, [self._floor(bucket) for bucket in account.buckets])
            for line in lines:
                self._usage.add_line(line)
        if refused is not None:
            dedupe.refused(refused)
            outcome.rejected.append((row, refused))

    def _account_of(self, columns: EventColumns, row: int) -> str:
        return self._decoder.accounts[columns.as_tuple(row)[4]].decode()

    def _reread(self, record: Record, *, note_unknown: bool) -> UsageEvent:
        """Parse the record of an event again, for the fields that have no column, such as member and reservation."""
        event = self._rare.parse(record, note_unknown=note_unknown)
        if isinstance(event, Refusal):
            raise BrokenInvariant(f"offset {record.offset}: the core read an event that is {event.code}")
        return event

    def _look_up_scope(self, rule: int, number: int) -> None:
        dimensions = dict(zip(TEXT_DIMENSIONS, self._decoder.combination(number), strict=False))
        self._usage.set_scope(rule, number, scope_matches(self._rules[rule].scope, dimensions))

    def take_effects(self, stamp: Stamp) -> Effects:
        postings, rollups, book_times = self._rare.take()
        self._add_sums(postings, rollups, book_times)
        key = str(stamp.partition).encode()
        for number in range(self._usage.number_described(), len(self._decoder.combinations)):
            self._usage.describe(dump_json(described_combination(self._decoder.combination(number)))[1:-1])
        rated_records, rated_frames = self._usage.take_frames(key, _rated_pieces(stamp), RATED_PER_RECORD)
        balance_records, balance_frames, *rows = self._store.take(_balance_pieces(stamp))
        taken = self._memory.take_hours()
        change = DedupeChange(hours=[HashHour(hour_us, packed, log_hour_us) for hour_us, log_hour_us, packed in taken])
        for source, numbered, runs, refused, highest, packed in self._memory.take_sources():
            change.sources.append(SourceState(source, numbered, runs, refused))
            if packed:
                change.recent.append(RecentNumbers(source, highest, packed))
        return Effects(
            changes=AccountChanges(*rows),
            rated_records=rated_records,
            rated_frames=rated_frames,
            balance_records=balance_records,
            balance_frames=balance_frames,
            postings=list(postings.lines()),
            rollups=[RollupRow(*key, *sums) for key, sums in sorted(rollups.items())],  # type: ignore[arg-type]
            dedupe=change,
            book_times=dict(sorted(book_times.items())),
        )

    def _add_sums(
        self, postings: Postings, rollups: dict[tuple[object, ...], list[int]], book_times: dict[str, int]
    ) -> None:
        """Add the sums of the compiled loop to those of the events decided in plain Python."""
        summed: defaultdict[tuple[object, ...], list[int]] = defaultdict(lambda: [0] * len(ROLLUP_SUMS))
        for hour_us, version, number, sums in self._usage.take_sums():
            book = self._prices.book(version)
            dimensions = self._decoder.combination(number)[: len(DIMENSIONS)]
            into = summed[(hour_us, book.label, book.currency, *dimensions)]
            for place, value in enumerate(sums):
                into[place] += value
        for key, values in summed.items():
            known = rollups.get(key, [0] * len(ROLLUP_SUMS))
            rollups[key] = [old + new for old, new in zip(known, values, strict=True)]
        for currency, plan, version, amount_pico, net_pico in self._usage.take_earned():
            if plan is not None:
                postings.post(currency, (CONTRACT_LIABILITY, plan, amount_pico), (REVENUE_USAGE, plan, -amount_pico))
            else:
                label = self._prices.book(version).label
                postings.post(
                    currency,
                    (CUSTOMER_DEPOSITS, "", amount_pico),
                    (REVENUE_USAGE, label, -net_pico),
                    (OUTPUT_VAT, label, net_pico - amount_pico),
                )
        for book_name, latest_us in self._usage.take_book_times().items():
            book_times[book_name] = max(latest_us, book_times.get(book_name, latest_us))


def _rated_pieces(stamp: Stamp) -> list[bytes]:
    """Return a ``usage.rated.v1`` event without sequence and lines: the bytes before, between and after them."""
    data = rated_data([_MARK_DATA])
    event = output_event("usage.rated.v1", stamp, _MARK_NUMBER, str(stamp.partition), data)
    return _split(event, str(_MARK_NUMBER).encode(), _MARK_DATA)


def _balance_pieces(stamp: Stamp) -> list[bytes]:
    """Return a ``package.balance.v1`` event without sequence, subject and data: the bytes around them.

    What its data say of empty extras follows.
    """
    event = output_event("package.balance.v1", stamp, _MARK_NUMBER, _MARK_SUBJECT, _MARK_DATA)
    return [*_split(event, str(_MARK_NUMBER).encode(), dump_json(_MARK_SUBJECT), _MARK_DATA), TOLD_OF_NO_EXTRAS]


def _split(event: bytes, *marks: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    for mark in marks:
        piece, _, event = event.partition(mark)
        pieces.append(piece)
    return [*pieces, event]
