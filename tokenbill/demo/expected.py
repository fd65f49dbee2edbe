"""Expected price of the usage that was sent: counts times unit prices, from the price list alone.

The price is linear, so no single event is needed: for each shape and minute, the number of events and the unit prices
in force at that minute are enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from billing.catalog import Catalog, PriceBook, PriceRow
from billing.pricing import Combination, UnitPrices, candidates, unit_prices
from billing.pricing.match import first_fitting
from schemas.meters import TOKEN_METERS, context_tokens, output_tokens
from schemas.times import MINUTE_US
from tokenbill.demo.traffic import TRAFFIC_KINDS, Shape, make_shapes
from tokenbill.user_errors import UserError


class NoPrice(Exception):
    """Raised if the catalogue has no price for a usage at a time."""


@dataclass(slots=True)
class Expected:
    """Totals over events: tokens of the token meters, money in pico, standard tokens in micro."""

    events: int = 0
    tokens: int = 0
    amount_pico: int = 0
    standard_micro: int = 0


class PriceList:
    """The versions of one price book, with a cache of rows and unit prices."""

    def __init__(self, catalog: Catalog, book: str) -> None:
        self._catalog = catalog
        self._book = book
        self._rows: dict[tuple[str, Combination], tuple[PriceRow, ...]] = {}
        self._prices: dict[tuple[str, int, Combination], UnitPrices] = {}

    def prices(self, shape: Shape, time_us: int) -> UnitPrices:
        """Return the unit prices for a shape at a time.

        Raises:
            NoPrice: no version is in force, no row matches, or a meter of the shape has no price.
        """
        book = self._catalog.price_book_at(self._book, time_us)
        if book is None:
            raise NoPrice(f"no version of {self._book} is in force")
        lengths = context_tokens(shape.counts), output_tokens(shape.counts)
        row = first_fitting(book, self._candidates(book, shape.combination), time_us, *lengths)
        if row is None:
            raise NoPrice(f"no row of {book.label} fits {shape.combination}")
        key = (book.label, row.index, shape.combination)
        if key not in self._prices:
            self._prices[key] = unit_prices(book, row, shape.combination)
        missing = [meter for meter, _ in shape.counts if meter not in self._prices[key]]
        if missing:
            raise NoPrice(f"row {row.index} of {book.label} has no price for {', '.join(missing)}")
        return self._prices[key]

    def _candidates(self, book: PriceBook, combination: Combination) -> tuple[PriceRow, ...]:
        key = (book.label, combination)
        if key not in self._rows:
            self._rows[key] = candidates(book, combination)
        return self._rows[key]


def total(price_list: PriceList, shapes: Sequence[Shape], usage: Iterable[tuple[int, int, int]]) -> Expected:
    """Add up the price of usage, given as (minute since 1970, shape, events).

    Exact, because time bands and versions begin on whole minutes.
    """
    sums = Expected()
    for minute, number, events in usage:
        shape = shapes[number]
        prices = price_list.prices(shape, minute * MINUTE_US)
        sums.events += events
        for meter, count in shape.counts:
            price_pico, coefficient_micro = prices[meter]
            quantity = events * count
            sums.tokens += quantity if meter in TOKEN_METERS else 0
            sums.amount_pico += quantity * price_pico
            sums.standard_micro += quantity * coefficient_micro
    return sums


def priced_kinds(price_list: PriceList, time_us: int) -> list[int]:
    """Return the indexes in :data:`TRAFFIC_KINDS` of the kinds for which this price list has prices.

    Raises:
        UserError: it has prices for none of them.
    """
    found: list[int] = []
    why = ""
    for place, kind in enumerate(TRAFFIC_KINDS):
        try:
            price_list.prices(make_shapes([(1_000, 1_000)], [kind], 1)[0], time_us)
            found.append(place)
        except NoPrice as error:
            why = str(error)
    if not found:
        models = ", ".join(sorted({kind.combination.model for kind in TRAFFIC_KINDS}))
        raise UserError("the catalogue prices nothing that the demo sends", why, f"Price one of: {models}.")
    return found
