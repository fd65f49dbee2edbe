"""What an event costs and how many standard tokens it uses: the pricing rule of CONTRACT §3, exact, in plain Python.

The only roundings are the adjusted unit price and the tax, both half even to 1e-12 (:func:`divide_half_even`).
"""

from dataclasses import dataclass

from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.patterns import scope_matches
from billing.catalog.source import INT64_MAX
from billing.pricing.match import Combination, RowIndex, combination_of, first_fitting, winning_row
from schemas.meters import context_tokens
from schemas.rejections import Rejection
from schemas.units import (
    MILLION,
    PICO_DIGITS,
    divide_half_even,
    format_micro,
    format_pico,
    format_scaled,
)
from schemas.usage import UsageEvent

UnitPrices = dict[str, tuple[int, int]]
"""Meter → (pico of the currency per unit after adjustments, micro standard tokens per unit)."""


@dataclass(frozen=True, slots=True)
class RatedLine:
    """One meter of a rated event. ``price_pico`` is per unit, after adjustments."""

    meter: str
    quantity: int
    price_pico: int
    amount_pico: int
    standard_micro: int


@dataclass(frozen=True, slots=True)
class Rated:
    """A priced event. ``amount_pico`` includes the tax, ``net_pico`` does not; both and the sum of standard tokens fit
    64 bits. ``price_book`` is ``name@version``; lines are in the order of the event's counts.
    """

    price_book: str
    currency: str
    amount_pico: int
    net_pico: int
    standard_micro: int
    lines: tuple[RatedLine, ...]


def net_of_tax(amount_pico: int, tax_rate_micro: int) -> int:
    """The part of an amount that is not tax, half even to 1e-12."""
    return divide_half_even(amount_pico * MILLION, MILLION + tax_rate_micro)


def unit_prices(book: PriceBook, row: PriceRow, combination: Combination) -> UnitPrices:
    """What a unit of each meter costs in a row for a combination: adjusted prices and coefficients.

    A row that prices ``output`` and not ``reasoning`` gives ``reasoning`` output's price, and its coefficient unless
    the row states one of its own.
    """
    dimensions = combination._asdict()
    factor, digits = 1, 0
    for adjustment in book.adjustments:
        if scope_matches(adjustment.scope, dimensions):
            factor *= adjustment.multiply_pico
            digits += PICO_DIGITS
    divisor = 10**digits
    coefficients = row.coefficient_micro
    prices = {
        meter: (divide_half_even(price * factor, divisor), coefficients.get(meter, 0))
        for meter, price in row.price_pico.items()
    }
    if "reasoning" not in prices and "output" in prices:
        price, coefficient = prices["output"]
        prices["reasoning"] = (price, coefficients.get("reasoning", coefficient))
    return prices


def rate(event: UsageEvent, book: PriceBook) -> Rated | Rejection:
    """Price an event by a book: ``no_price`` where no row or no meter price applies, ``overflow`` beyond 64 bits."""
    combination = combination_of(event)
    row = winning_row(book, combination, event.time_us, context_tokens(event.counts))
    if row is None:
        return no_row(event, book)
    return apply_prices(event, book, unit_prices(book, row, combination), row)


def no_row(event: UsageEvent, book: PriceBook) -> Rejection:
    """The rejection of an event that no row matches."""
    dimensions = ", ".join(f"{name} {value!r}" for name, value in combination_of(event)._asdict().items())
    return _reject(
        event,
        "no_price",
        f"no row of {book.label} matches {dimensions}, context {context_tokens(event.counts)}; add a row that does",
    )


def apply_prices(event: UsageEvent, book: PriceBook, prices: UnitPrices, row: PriceRow) -> Rated | Rejection:
    """Price an event by the unit prices of the row that won."""
    lines: list[RatedLine] = []
    amount_pico = standard_micro = 0
    for meter, quantity in event.counts:
        found = prices.get(meter)
        if found is None:
            return _reject(
                event,
                "no_price",
                f"row {row.index} of {book.label} has no price for the meter {meter!r}, counted {quantity}; "
                f"it prices {', '.join(row.price_pico)}",
            )
        price_pico, coefficient_micro = found
        line = RatedLine(meter, quantity, price_pico, quantity * price_pico, quantity * coefficient_micro)
        lines.append(line)
        amount_pico += line.amount_pico
        standard_micro += line.standard_micro
    if amount_pico > INT64_MAX:
        return _reject(event, "overflow", f"costs {format_pico(amount_pico)}, more than {format_pico(INT64_MAX)}")
    if standard_micro > INT64_MAX:
        return _reject(
            event,
            "overflow",
            f"uses {format_micro(standard_micro)} standard tokens, more than {format_micro(INT64_MAX)}",
        )
    net_pico = net_of_tax(amount_pico, book.tax_rate_micro)
    return Rated(book.label, book.currency, amount_pico, net_pico, standard_micro, tuple(lines))


def _reject(event: UsageEvent, reason: str, detail: str) -> Rejection:
    return Rejection(reason, detail, event.source, event.id, event.sequence, event.account)


class Rater:
    """:func:`rate` for many events of one book: what a combination needs is looked up once."""

    __slots__ = ("_index", "_known", "book")

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._index = RowIndex(book)
        self._known: dict[Combination, tuple[tuple[PriceRow, UnitPrices], ...]] = {}

    def rate(self, event: UsageEvent) -> Rated | Rejection:
        """The same answer as :func:`rate`."""
        combination = combination_of(event)
        known = self._known.get(combination)
        if known is None:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            rows = self._index.candidates(combination)
            known = tuple((row, unit_prices(self.book, row, combination)) for row in rows)
            self._known[combination] = known
        row = first_fitting(self.book, (row for row, _ in known), event.time_us, context_tokens(event.counts))
        if row is None:
            return no_row(event, self.book)
        prices = next(prices for candidate, prices in known if candidate is row)
        return apply_prices(event, self.book, prices, row)


_KNOWN_MAX = 65_536  # a worker that invents site names must not fill the memory


def rated_as_json(event: UsageEvent, rated: Rated | Rejection) -> dict[str, object]:
    """The line of ``tokenbill rate`` for an event (CONTRACT §5)."""
    if isinstance(rated, Rejection):
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
                "per_million": format_scaled(line.price_pico, PICO_DIGITS - 6),
                "amount": format_pico(line.amount_pico),
                "standard_tokens": format_micro(line.standard_micro),
            }
            for line in rated.lines
        ],
    }


def rejection_as_json(rejection: Rejection) -> dict[str, object]:
    """The line of ``tokenbill rate`` for an event that is not priced."""
    return {
        "source": rejection.source,
        "id": rejection.id,
        "rejected": {"reason": rejection.reason, "detail": rejection.detail},
    }
