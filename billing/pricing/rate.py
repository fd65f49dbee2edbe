"""Price and standard tokens of a usage event: the exact rule (docs/reference/price-books.md, "Price") in plain Python.

The only roundings are the adjusted unit price (:mod:`billing.pricing.adjust`) and the tax, both half even to 1e-12. If
a row has period rules, the price depends on the account's counters too. They go in and come out, and the caller that
accepts the event stores the new ones.

To price many events, :func:`fixed_prices` returns the unit prices of a combination that hold at any time and in any
context. If it returns None, prices differ from event to event, and :class:`Rater` computes them.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

from billing.accounts.extras import Counter
from billing.catalog.model import ABOVE_COMMITMENT, MINIMUM_CHARGE, REQUEST, Adjustment, PriceBook, PriceRow
from billing.catalog.period_calendar import Period
from billing.catalog.period_rules import ONE_PICO, SETTLE_AT_END
from billing.pricing.adjust import PricingMoment, is_momentary, matching_texts, moment_fits
from billing.pricing.increments import UsedQuantities, billed_counts
from billing.pricing.match import Combination, RowIndex, candidates, combination_of, dimensions_of, first_fitting
from billing.pricing.period_prices import NOTHING_COUNTED, Clock, Counted, Counters, Outside, prices_in_tiers, split
from billing.pricing.row_prices import RowPrices, UnitPrices, prices_after
from billing.tax import net_of_tax
from schemas.meters import Counts, canonical_counts, context_tokens, output_tokens
from schemas.refusals import Refusal
from schemas.times import format_time_us
from schemas.units import MILLION, PICO_DIGITS, divide_half_even, format_micro, format_pico, format_scaled
from schemas.usage import UsageEvent

REQUESTS, COMPLETED = "requests", "completed"
MAX_OF_EVENT = 10**34
"""Greatest amount of one event in pico (1e22 of the currency), and greatest quantity in micro standard tokens.

Balances and sums of a commit have columns of 38 digits, which thousands of such events do not fill.
"""


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One meter of a rated event, or its part in one tier. ``price_pico`` is per unit, after adjustments.

    The "meter" of a line can be ``blocks``: the blocks that the event begins. The "meter" of the last lines can be
    ``minimum_charge``, one unit at the price of the amount missing to the minimum, and ``above_commitment``, one unit
    at what usage above a commitment that included usage does not draw costs more than within it. ``quantity`` is what
    is billed. ``used_quantity`` is what was used of it if an increment of the row raised it, else None.
    """

    meter: str
    quantity: int
    price_pico: int
    amount_pico: int
    standard_micro: int
    used_quantity: int | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """Priced event.

    ``amount_pico`` includes the tax, ``net_pico`` does not. Both and ``standard_micro`` are at most
    :data:`MAX_OF_EVENT`. The lines add up to ``amount_pico`` and ``standard_micro``; they are in the order of the
    event's counts, those of blocks and of a minimum charge after them. ``price_book`` is ``name@version``. ``counted``
    is the effect of the event on counters. ``units_micro`` is the need of the event in the row's other units of
    account, in micro of each; it has requests only if the row has an increment of them. ``tiers_pico`` is the price in
    each tier of a volume rule that is settled at the end of its period; empty without one.

    By a commitment that included usage does not draw, the price depends on the share that buckets pay. Before the
    payment, ``amount_pico`` is the price if they pay nothing (:meth:`for_share`).
    """

    price_book: str
    currency: str
    amount_pico: int
    net_pico: int
    standard_micro: int
    lines: tuple[RatedLine, ...]
    counted: tuple[Counted, ...] = ()
    units_micro: Mapping[str, int] = field(default_factory=dict)
    tiers_pico: tuple[int, ...] = ()

    @property
    def counters(self) -> dict[str, Counter]:
        """Counters as the event leaves them, without those of settled commitments."""
        return {counted.key: counted.after for counted in self.counted if counted.after is not None}

    @property
    def outside(self) -> Outside | None:
        """Price by a commitment that included usage does not draw, or None."""
        return next((counted.outside for counted in self.counted if counted.outside is not None), None)

    @property
    def within_pico(self) -> int:
        """Price that buckets pay, tax included: without what usage above a commitment costs more."""
        return self.amount_pico - (0 if self.outside is None else self.outside.surcharge_pico(Fraction(1)))

    def share_pico(self, share: Fraction) -> int:
        """Return the price of the share that no bucket pays, half even to 1e-12."""
        part_pico = divide_half_even(self.within_pico * share.numerator, share.denominator)
        return part_pico if self.outside is None else part_pico + self.outside.surcharge_pico(share)

    def for_share(self, share: Fraction, tax_rate_micro: int) -> "Rated":
        """Return the price after the payment, of which no bucket paid ``share``."""
        if self.outside is None or share == 1:
            return self
        surcharge_pico = self.outside.surcharge_pico(share)
        amount_pico = self.within_pico + surcharge_pico
        lines = tuple(line for line in self.lines if line.meter != ABOVE_COMMITMENT)
        return replace(
            self,
            amount_pico=amount_pico,
            net_pico=net_of_tax(amount_pico, tax_rate_micro),
            lines=lines + _surcharge_lines(surcharge_pico),
            counted=tuple(counted.for_share(share) for counted in self.counted),
        )


def _surcharge_lines(surcharge_pico: int) -> tuple[RatedLine, ...]:
    return (RatedLine(ABOVE_COMMITMENT, 1, surcharge_pico, surcharge_pico, 0),) if surcharge_pico else ()


def unit_prices(
    book: PriceBook, row: PriceRow, combination: Combination, moment: PricingMoment | None = None
) -> UnitPrices:
    """Return the unit prices of a row for a combination at a moment: adjusted prices and coefficients.

    Raises:
        ValueError: no moment is given, but the combination alone does not decide what an event costs by this row.
    """
    matching = matching_texts(book, combination)
    if moment is not None:
        return prices_after(book, row, [a for a in matching if moment_fits(book, a, moment)])
    if not _is_fixed(row, matching):
        raise ValueError(f"row {row.index} of {book.label} has rules that depend on the event: give its moment")
    return prices_after(book, row, matching)


def fixed_prices(book: PriceBook, combination: Combination, index: RowIndex | None = None) -> UnitPrices | None:
    """Return the unit prices of a combination if it alone decides them; None if each event needs :func:`rate`.

    The result is None if no row matches; if the best row has a band of time or tokens, a minimum charge, increments or
    period rules; or if an adjustment that matches the combination has a band. Otherwise an event costs exactly
    Σ count × unit price, and is rejected (``no_price``) for a meter that is not in the result. An index makes
    the search for rows fast.
    """
    rows = candidates(book, combination) if index is None else index.candidates(combination)
    if not rows or not _is_decided(rows[0]):
        return None
    matching = matching_texts(book, combination)
    return prices_after(book, rows[0], matching) if _is_fixed(rows[0], matching) else None


def moment_prices(
    book: PriceBook, combination: Combination, moment: PricingMoment, index: RowIndex | None = None
) -> UnitPrices | None:
    """Return the unit prices of a combination at a moment; None if each event needs :func:`rate`.

    The result is None if no row matches, or if the row has a minimum charge, increments or period rules.
    """
    rows = candidates(book, combination) if index is None else index.candidates(combination)
    row = first_fitting(book, rows, *moment)
    if row is None or not _is_linear(row):
        return None
    return unit_prices(book, row, combination, moment)


def _is_decided(row: PriceRow) -> bool:
    """Return True if the best row of a combination wins at any time and length."""
    return not row.is_banded


def _is_linear(row: PriceRow) -> bool:
    """Return True if an event costs exactly Σ count × unit price by a row."""
    return not row.minimum_charge_pico and not row.periods and not row.increments


def _is_fixed(row: PriceRow, matching: Iterable[Adjustment]) -> bool:
    return _is_linear(row) and not any(map(is_momentary, matching))


def rate(
    event: UsageEvent, book: PriceBook, counters: Counters = NOTHING_COUNTED, clock: Clock | None = None
) -> Rated | Refusal:
    """Price an event by a book.

    Rejects with ``no_price`` if no row or no meter price applies, with ``usage_missing`` if a completed request has no
    counts and the row does not say that it is unmetered, with ``overflow`` beyond :data:`MAX_OF_EVENT`, and with
    ``time_too_old`` if a period rule no longer counts the event's period. ``counters`` are those of the event's
    account. Without a clock the event is decided at its own time.
    """
    combination, moment = combination_of(event), moment_of(event)
    row = first_fitting(book, candidates(book, combination), *moment)
    if row is None:
        return no_row(event, book)
    matching = [a for a in matching_texts(book, combination) if moment_fits(book, a, moment)]
    return apply_prices(event, RowPrices(book, row, matching), counters, clock or Clock(event.time_us))


def moment_of(event: UsageEvent) -> PricingMoment:
    """Return the time and the lengths of an event."""
    return PricingMoment(event.time_us, context_tokens(event.counts), output_tokens(event.counts))


def no_row(event: UsageEvent, book: PriceBook) -> Refusal:
    """Return the rejection of an event that no row matches."""
    output = output_tokens(event.counts) if book.has_output_bands else None
    return event.refuse("no_price", no_row_detail(book, combination_of(event), context_tokens(event.counts), output))


def no_row_detail(book: PriceBook, combination: Combination, context: int, output: int | None = None) -> str:
    """Return the message for a combination and lengths that no row matches; no output length if no band asks for it."""
    dimensions = ", ".join(f"{name} {value!r}" for name, value in dimensions_of(book, combination).items())
    lengths = f"context {context}" if output is None else f"context {context}, output_context {output}"
    return f"no row of {book.label} matches {dimensions}, {lengths}; add a row that does"


def no_meter_detail(book: PriceBook, row: PriceRow, meter: str, quantity: int) -> str:
    """Return the message for a meter that the winning row does not price."""
    return (
        f"row {row.index} of {book.label} has no price for the meter {meter!r}, counted {quantity}; "
        f"it prices {', '.join(row.price_pico)}"
    )


def charged_counts(event: UsageEvent, priced: Container[str]) -> Counts:
    """Return the counts that a row with prices for these meters charges: those of the event, and one request for a
    provider's usage object that does not count them, if the row prices requests."""
    if event.is_one_request and REQUESTS in priced:
        return canonical_counts((*event.counts, (REQUESTS, 1)))
    return event.counts


def is_missing(event: UsageEvent, row: PriceRow) -> bool:
    """Return True if a completed request counts nothing, and the row does not say that it is unmetered."""
    return not event.counts and event.outcome == COMPLETED and not row.unmetered


def apply_prices(
    event: UsageEvent, prices: RowPrices, counters: Counters, clock: Clock, zero_is_known: bool = False
) -> Rated | Refusal:
    """Price an event by the row that won. With ``zero_is_known`` an event without counts used nothing."""
    book, row = prices.book, prices.row
    if not zero_is_known and is_missing(event, row):
        return event.refuse(
            "usage_missing",
            f"data.usage counts nothing, and the request was completed: send the event with its counts, or set "
            f"unmetered: true in row {row.index} of {book.label}",
        )
    base = prices(None, ONE_PICO)
    charged = charged_counts(event, base)
    unpriced = next((count for count in charged if count[0] not in base), None)
    if unpriced is not None:
        return event.refuse("no_price", no_meter_detail(book, row, *unpriced))
    counts = billed_counts(row, charged)
    if not row.periods:
        return _sum_up(event, book, row, [(meter, count, *base[meter]) for meter, count in counts], charged, ())
    found = split(counts, event.time_us, row, prices.rules, prices, counters, clock)
    if isinstance(found, Period):
        return event.refuse(
            "time_too_old",
            f"time: the price depends on what was used from {found.first_day} to {format_time_us(found.until_us)}, and "
            "that is not counted any more",
        )
    parts, counted = found
    rated = _sum_up(event, book, row, [part[:4] for part in parts], charged, counted)
    counting, _ = prices.rules
    if isinstance(rated, Refusal) or counting is None or counting.settle != SETTLE_AT_END:
        return rated
    in_tiers = prices_in_tiers(counting, parts, prices)
    return replace(rated, tiers_pico=tuple(max(pico, row.minimum_charge_pico) for pico in in_tiers))


def _sum_up(
    event: UsageEvent,
    book: PriceBook,
    row: PriceRow,
    parts: Iterable[tuple[str, int, int, int]],
    charged: Counts,
    counted: Iterable[Counted],
) -> Rated | Refusal:
    lines: list[RatedLine] = []
    amount_pico = standard_micro = 0
    used = UsedQuantities(row, charged)
    for meter, quantity, price_pico, coefficient_micro in parts:
        amounts = quantity * price_pico, quantity * coefficient_micro
        line = RatedLine(meter, quantity, price_pico, *amounts, used.of(meter, quantity))
        lines.append(line)
        amount_pico += line.amount_pico
        standard_micro += line.standard_micro
    if amount_pico < row.minimum_charge_pico:
        missing_pico = row.minimum_charge_pico - amount_pico
        lines.append(RatedLine(MINIMUM_CHARGE, 1, missing_pico, missing_pico, 0))
        amount_pico = row.minimum_charge_pico
    counted, most_pico = tuple(counted), amount_pico
    for outside in (one.outside for one in counted if one.outside is not None):
        more = _surcharge_lines(outside.surcharge_pico(Fraction(1)))
        lines += more
        amount_pico += sum(line.amount_pico for line in more)
        most_pico = max(most_pico, amount_pico)
    if most_pico > MAX_OF_EVENT:
        return event.refuse("overflow", f"costs {format_pico(most_pico)}, more than {format_pico(MAX_OF_EVENT)}")
    if standard_micro > MAX_OF_EVENT:
        return event.refuse(
            "overflow",
            f"uses {format_micro(standard_micro)} standard tokens, more than {format_micro(MAX_OF_EVENT)}",
        )
    net_pico = net_of_tax(amount_pico, book.tax_rate_micro)
    counts = billed_counts(row, charged)
    units_micro = {unit: _unit_need(counts, coefficients) for unit, coefficients in row.units.items()}
    if REQUESTS in row.increments:
        units_micro[REQUEST] = dict(counts).get(REQUESTS, 1) * MILLION
    return Rated(book.label, book.currency, amount_pico, net_pico, standard_micro, tuple(lines), counted, units_micro)


def _unit_need(counts: Counts, coefficients: Mapping[str, int]) -> int:
    """Return the need of counts in a unit of account, in micro.

    ``reasoning`` without a coefficient takes that of ``output``.
    """
    fallback = {"reasoning": coefficients.get("output", 0)}
    return sum(count * coefficients.get(meter, fallback.get(meter, 0)) for meter, count in counts)


@dataclass(slots=True)
class _Known:
    """Lookup results for a combination: its rows, the adjustments that may match, and prices by row and adjustments."""

    rows: tuple[PriceRow, ...]
    adjustments: tuple[Adjustment, ...]
    momentary: bool
    prices: dict[tuple[int, int], RowPrices] = field(default_factory=dict)


class Rater:
    """Rater for many events of one book, with the same results as :func:`rate`. Looks up each combination once.

    With ``zero_is_known`` a completed request without counts used nothing: one that was rated before, or a hold.
    """

    __slots__ = ("_known", "_zero_is_known", "book", "index")

    def __init__(self, book: PriceBook, zero_is_known: bool = False) -> None:
        self.book = book
        self.index = RowIndex(book)
        self._zero_is_known = zero_is_known
        self._known: dict[Combination, _Known] = {}

    def fixed(self, combination: Combination) -> UnitPrices | None:
        """Return the same result as :func:`fixed_prices`."""
        known = self._known.get(combination) or self._look_up(combination)
        if not known.rows or not _is_decided(known.rows[0]) or not _is_fixed(known.rows[0], known.adjustments):
            return None
        return self._prices(known, known.rows[0], known.adjustments, 0)(None, ONE_PICO)

    def rate(
        self, event: UsageEvent, counters: Counters = NOTHING_COUNTED, clock: Clock | None = None
    ) -> Rated | Refusal:
        """Return the same result as :func:`rate`."""
        book = self.book
        combination, moment = combination_of(event), moment_of(event)
        known = self._known.get(combination) or self._look_up(combination)
        row = first_fitting(book, known.rows, *moment)
        if row is None:
            return no_row(event, book)
        matching: Sequence[Adjustment] = known.adjustments
        bits = 0
        if known.momentary:
            fits = [moment_fits(book, adjustment, moment) for adjustment in known.adjustments]
            matching = [adjustment for adjustment, fit in zip(known.adjustments, fits, strict=True) if fit]
            bits = sum(fit << place for place, fit in enumerate(fits))
        prices = self._prices(known, row, matching, bits)
        return apply_prices(event, prices, counters, clock or Clock(event.time_us), self._zero_is_known)

    def _prices(self, known: _Known, row: PriceRow, matching: Sequence[Adjustment], bits: int) -> RowPrices:
        prices = known.prices.get((row.index, bits))
        if prices is None:
            prices = known.prices[row.index, bits] = RowPrices(self.book, row, matching)
        return prices

    def _look_up(self, combination: Combination) -> _Known:
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        adjustments = matching_texts(self.book, combination)
        known = _Known(self.index.candidates(combination), adjustments, any(map(is_momentary, adjustments)))
        self._known[combination] = known
        return known


class Raters:
    """Raters of the books of a catalogue, created on first use, so that a large book is not searched for each event."""

    def __init__(self, zero_is_known: bool = False) -> None:
        self._raters: dict[str, Rater] = {}
        self._zero_is_known = zero_is_known

    def __call__(self, book: PriceBook) -> Rater:
        rater = self._raters.get(book.label)
        if rater is None:
            rater = self._raters[book.label] = Rater(book, self._zero_is_known)
        return rater


_MAX_KNOWN = 65_536  # bounds memory if a worker sends ever new site names


def rated_as_json(event: UsageEvent, rated: Rated | Refusal) -> dict[str, object]:
    """Return the output line of ``tokenbill rate`` for an event (docs/reference/command-line.md)."""
    if isinstance(rated, Refusal):
        return rejection_as_json(rated)
    return {
        "source": event.source,
        "id": event.id,
        "account": event.account,
        "currency": rated.currency,
        "amount": format_pico(rated.amount_pico),
        "net": format_pico(rated.net_pico),
        "standard_tokens": format_micro(rated.standard_micro),
        "price_book": rated.price_book,
        "lines": [
            {
                "meter": line.meter,
                "quantity": line.quantity,
                **({} if line.used_quantity is None else {"used": line.used_quantity}),
                "per_million": format_scaled(line.price_pico, PICO_DIGITS - 6),
                "amount": format_pico(line.amount_pico),
                "standard_tokens": format_micro(line.standard_micro),
            }
            for line in rated.lines
        ],
    }


def rejection_as_json(rejection: Refusal) -> dict[str, object]:
    """Return the output line of ``tokenbill rate`` for an event that is not priced."""
    return {
        "source": rejection.source,
        "id": rejection.id,
        "rejected": {"reason": rejection.code, "detail": rejection.detail},
    }
