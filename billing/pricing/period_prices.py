"""Period rules applied to an event: its units are split over tiers, blocks and a commitment, and counted.

Pure: the counters of the account go in, the parts and the counters after the event come out. Everything is exact: units
are whole, and a unit belongs to the tier (or to the commitment) in which it begins. The caller provides the price of a
unit.

An event is counted in the period of its own time, in the order in which events are decided. Its meters are counted one
after the other, in the order of its counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple, Protocol

from billing.accounts.extras import NOT_DUE_US, Counter
from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.period_calendar import Period, period_of
from billing.catalog.period_rules import (
    BLOCKS,
    BLOCKS_LINE,
    COMMITMENT,
    ONE_PICO,
    STANDARD_TOKENS,
    USAGE_OUT,
    VOLUME,
    PeriodRule,
)
from schemas.times import HOUR_US
from schemas.units import MILLION, divide_half_even

COMMITMENT_GRACE_US = 24 * HOUR_US
"""Log time between the end of a period and the charge for the unused part of its commitment.

Late usage draws on the commitment until then.
"""

Counters = Mapping[str, Counter]
"""Counters of an account by their key (:meth:`~billing.catalog.period_rules.PeriodRule.counter`)."""
NOTHING_COUNTED: Counters = {}


class Clock(NamedTuple):
    """Log time of a decision, and the limit for late usage.

    A period that ended at or before ``oldest_us`` is no longer counted (None: there is no limit).
    """

    now_us: int
    oldest_us: int | None = None


class Part(NamedTuple):
    """Units of one meter that cost the same.

    ``tier`` is the number of the tier from 0, None without one. ``committed`` is True if the units draw on a
    commitment, False if they are above it, None without one. For blocks the meter is ``blocks``. ``in_block`` is True
    for units that a block covers, which cost nothing themselves.
    """

    meter: str
    quantity: int
    price_pico: int
    coefficient_micro: int
    tier: int | None = None
    committed: bool | None = None
    in_block: bool = False


@dataclass(frozen=True, slots=True)
class Outside:
    """Price of an event by a commitment that included usage does not draw.

    ``within_pico`` is its price within the commitment, ``above_pico`` its price above it, ``room_pico`` what is left of
    the commitment. Only the share of the event that no bucket pays draws the commitment. It is priced in money, not in
    units, because a share need not be whole units.
    """

    within_pico: int
    above_pico: int
    room_pico: int

    def drawn_pico(self, share: Fraction) -> int:
        """Return what a share of the event draws, half even to 1e-12."""
        return min(self._share_pico(share), self.room_pico)

    def surcharge_pico(self, share: Fraction) -> int:
        """Return what a share of the event costs beyond its price within the commitment, half even to 1e-12."""
        beyond_pico = self._share_pico(share) - self.room_pico
        if beyond_pico <= 0 or not self.within_pico:
            return 0
        return divide_half_even(beyond_pico * (self.above_pico - self.within_pico), self.within_pico)

    def _share_pico(self, share: Fraction) -> int:
        return divide_half_even(self.within_pico * share.numerator, share.denominator)


@dataclass(frozen=True, slots=True)
class Counted:
    """Effect of an event on one counter. ``after`` is None if the commitment of the period was settled before.

    ``outside`` is the price by a commitment that included usage does not draw; ``after`` is then as if no bucket paid.
    """

    rule: PeriodRule
    period: Period
    before: Counter
    after: Counter | None
    outside: Outside | None = None

    def for_share(self, share: Fraction) -> "Counted":
        """Return the effect if buckets pay all but a share of the event."""
        if self.outside is None or self.after is None:
            return self
        return replace(self, after=self.before._replace(used=self.before.used + self.outside.drawn_pico(share)))

    @property
    def key(self) -> str:
        """Key of the counter."""
        return self.rule.counter(self.period.first_day)


class PriceOf(Protocol):
    """Price of one unit of each meter: (pico per unit, micro standard tokens per unit), adjustments included."""

    def __call__(self, tier: int | None, factor_pico: int) -> Mapping[str, tuple[int, int]]:
        """Return the prices in a tier of the counting rule (None: the row's prices), times a commitment's factor."""

    def block(self, factor_pico: int) -> int:
        """Return the price of a block, in pico."""


def rules_of(book: PriceBook, row: PriceRow) -> tuple[PeriodRule | None, PeriodRule | None]:
    """Return the rule that counts usage and the commitment of a row, each None if the row has none."""
    rules = [book.periods[name] for name in row.periods]
    counting = next((rule for rule in rules if rule.kind != COMMITMENT), None)
    return counting, next((rule for rule in rules if rule.kind == COMMITMENT), None)


def new_counter(rule: PeriodRule, period: Period) -> Counter:
    """Return the counter of a rule at the beginning of a period."""
    due_us = period.until_us + COMMITMENT_GRACE_US if rule.kind == COMMITMENT else NOT_DUE_US
    return Counter(0, period.until_us, due_us)


def without_past(counters: Counters, oldest_us: int) -> dict[str, Counter]:
    """Return the counters without those of periods that are no longer counted.

    Commitments stay until they are settled.
    """
    return {key: counter for key, counter in counters.items() if counter.due_us or counter.until_us > oldest_us}


@dataclass(frozen=True, slots=True)
class _Run:
    """Units of a meter in a tier, before a commitment. ``free`` is True for units that a block covers."""

    meter: str
    quantity: int
    tier: int | None
    free: bool = False


def split(
    counts: Sequence[tuple[str, int]],
    time_us: int,
    row: PriceRow,
    rules: tuple[PeriodRule | None, PeriodRule | None],
    price_of: PriceOf,
    counters: Counters,
    clock: Clock,
) -> tuple[list[Part], list[Counted]] | Period:
    """Split the counts of an event into parts, and return them with the counters before and after.

    Every meter of the event must have a price. Returns the period instead if the counting rule no longer counts it.
    """
    counting, commitment = rules
    counted: list[Counted] = []
    runs = [_Run(meter, quantity, None) for meter, quantity in counts]
    if counting is not None:
        period = period_of(counting, time_us)
        if clock.oldest_us is not None and period.until_us <= clock.oldest_us:
            return period
        before = counters.get(counting.counter(period.first_day), new_counter(counting, period))
        base = price_of(None, ONE_PICO)
        weights = {meter: _weight(counting, row, meter, base[meter][1]) for meter, _ in counts}
        runs, used = _count(counting, counts, weights, before.used)
        counted.append(Counted(counting, period, before, before._replace(used=used)))
    if commitment is None:
        return [_part(run, price_of, ONE_PICO, None) for run in runs], counted
    period = period_of(commitment, time_us)
    before = counters.get(commitment.counter(period.first_day), new_counter(commitment, period))
    settled = before.due_us <= clock.now_us
    if commitment.included_usage == USAGE_OUT:
        parts, outside = _priced_outside(commitment, runs, price_of, commitment.amount_pico if settled else before.used)
        whole = Counted(commitment, period, before, None if settled else before, outside)
        return parts, [*counted, whole.for_share(Fraction(1))]
    parts, drawn = _draw(commitment, runs, price_of, commitment.amount_pico if settled else before.used)
    counted.append(Counted(commitment, period, before, None if settled else before._replace(used=drawn)))
    return parts, counted


def is_counted(rule: PeriodRule, row: PriceRow, meter: str) -> bool:
    """Return True if a rule counts a meter of a row. Reasoning that is charged as output counts as output."""
    if rule.count == (STANDARD_TOKENS,) or meter in rule.count:
        return True
    return meter == "reasoning" and "reasoning" not in row.price_pico and "output" in rule.count


def _weight(rule: PeriodRule, row: PriceRow, meter: str, coefficient_micro: int) -> int:
    """Return the micro units by which one unit of a meter raises the counter; 0 if the meter is not counted."""
    if not is_counted(rule, row, meter):
        return 0
    return coefficient_micro if rule.count == (STANDARD_TOKENS,) else MILLION


def _count(
    rule: PeriodRule, counts: Iterable[tuple[str, int]], weights: Mapping[str, int], used: int
) -> tuple[list[_Run], int]:
    """Return the runs of an event, and the counter after it."""
    if rule.kind == BLOCKS:
        return _count_blocks(rule, counts, weights, used)
    runs: list[_Run] = []
    of_event = tier_at(rule, used)
    for meter, quantity in counts:
        weight = weights[meter]
        if weight == 0:
            runs.append(_Run(meter, quantity, None))
        elif rule.kind == VOLUME:
            runs.append(_Run(meter, quantity, of_event))
            used += quantity * weight
        else:
            left = quantity
            while left:
                tier = tier_at(rule, used)
                up_to = rule.tiers[tier].up_to
                fits = left if up_to is None else min(left, -((used - up_to * MILLION) // weight))
                runs.append(_Run(meter, fits, tier))
                left -= fits
                used += fits * weight
    return runs, used


def tier_at(rule: PeriodRule, used: int) -> int:
    """Return the number of the tier in which a counter stands."""
    return next(n for n, tier in enumerate(rule.tiers) if tier.up_to is None or used < tier.up_to * MILLION)


def _count_blocks(
    rule: PeriodRule, counts: Iterable[tuple[str, int]], weights: Mapping[str, int], left: int
) -> tuple[list[_Run], int]:
    """Return the runs of an event and the counter after it, for blocks.

    Counted units are free. The last run is the number of blocks that the event begins, if any.
    """
    runs: list[_Run] = []
    needed = -left
    for meter, quantity in counts:
        runs.append(_Run(meter, quantity, None, free=weights[meter] > 0))
        needed += quantity * weights[meter]
    size = rule.block_units * MILLION
    blocks = max(0, -(-needed // size))
    if blocks:
        runs.append(_Run(BLOCKS_LINE, blocks, None))
    return runs, blocks * size - needed


def _part(run: _Run, price_of: PriceOf, factor_pico: int, committed: bool | None) -> Part:
    if run.meter == BLOCKS_LINE:
        return Part(run.meter, run.quantity, price_of.block(factor_pico), 0, None, committed)
    price_pico, coefficient_micro = price_of(run.tier, factor_pico)[run.meter]
    if run.free:
        return Part(run.meter, run.quantity, 0, coefficient_micro, None, None, True)
    return Part(run.meter, run.quantity, price_pico, coefficient_micro, run.tier, committed)


def _draw(rule: PeriodRule, runs: Iterable[_Run], price_of: PriceOf, drawn: int) -> tuple[list[Part], int]:
    """Return the parts within and above a commitment, and the amount drawn from it afterwards."""
    parts: list[Part] = []
    for run in runs:
        within = _part(run, price_of, rule.multiply_pico, True)
        if run.free or drawn < rule.amount_pico:
            fits = run.quantity
            if within.price_pico:
                fits = min(fits, -((drawn - rule.amount_pico) // within.price_pico))
            parts.append(_part(_Run(run.meter, fits, run.tier, run.free), price_of, rule.multiply_pico, True))
            drawn += fits * within.price_pico
            if fits == run.quantity:
                continue
            run = _Run(run.meter, run.quantity - fits, run.tier)
        parts.append(_part(run, price_of, rule.overflow_pico, False))
    return parts, drawn


def _priced_outside(
    rule: PeriodRule, runs: Sequence[_Run], price_of: PriceOf, drawn: int
) -> tuple[list[Part], Outside]:
    """Return all parts as within a commitment that included usage does not draw, and the price of a share of them."""
    within = [_part(run, price_of, rule.multiply_pico, True) for run in runs]
    above = [_part(run, price_of, rule.overflow_pico, False) for run in runs]
    within_pico, above_pico = (sum(part.quantity * part.price_pico for part in parts) for parts in (within, above))
    return within, Outside(within_pico, above_pico, max(0, rule.amount_pico - drawn))


def prices_in_tiers(rule: PeriodRule, parts: Iterable[Part], price_of: PriceOf) -> tuple[int, ...]:
    """Return the price of an event, in pico, if all of its counted units were in each tier of a volume rule."""
    parts = list(parts)
    return tuple(
        sum(
            part.quantity * (part.price_pico if part.tier is None else price_of(tier, ONE_PICO)[part.meter][0])
            for part in parts
        )
        for tier in range(len(rule.tiers))
    )
