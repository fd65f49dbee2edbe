"""What the core's price tables ask for, answered by the plain rules of :mod:`billing.pricing`, once for each case.

A combination whose price only the combination decides is asked for once a version; where context or time decide, once
for each stretch between two context edges and each set of time bands that hold together. Shared by the calculator and
the rater of the core.
"""

from collections.abc import Callable, Iterable

from billing.catalog.model import PriceBook
from billing.catalog.timebands import band_intervals
from billing.documents import dump_json
from billing.pricing.adjust import Moment
from billing.pricing.match import Combination, RowIndex, context_edges
from billing.pricing.rate import UnitPrices, fixed_prices, moment_prices
from cython_ext.decode import Decoder
from cython_ext.prices import PriceTables
from schemas.meters import METERS
from schemas.times import MINUTE_US
from schemas.units import MILLION, format_pico

_NEEDS_PRICE, _NEEDS_MOMENT, _NEEDS_BANDS = 2, 6, 7  # cython_ext.prices
_PLAIN_PRICE, _MOMENTARY_PRICE = -1, -3
_MIXED_BANDS = -1
_SLOT_US = 15 * MINUTE_US
_MOST_EDGES = 250


class CorePrices:
    """The price books of a catalogue in the core's tables.

    ``word`` gives names of books and currencies the numbers by which the user of the tables knows them.
    """

    def __init__(self, decoder: Decoder, word: Callable[[str], int]) -> None:
        self.tables = PriceTables()
        self._decoder = decoder
        self._word = word
        self._versions: list[tuple[PriceBook, RowIndex, tuple[int, ...]]] = []
        self._numbers: dict[tuple[tuple[str, int, int], ...], int] = {}
        self._bands: dict[tuple[str, ...], int] = {}

    def set_books(self, books: Iterable[PriceBook]) -> None:
        """Price by these versions from now on."""
        self.tables.clear()
        for book in sorted(books, key=lambda book: (book.effective_from_us, book.version)):
            head = b'","currency":' + dump_json(book.currency) + b',"amount":"'
            label = b'","price_book":' + dump_json(book.label) + b',"lines":['
            edges = context_edges(book)
            self.tables.add_version(
                self._word(book.name), self._word(book.currency), book, head, label, edges[:_MOST_EDGES]
            )
            self._versions.append((book, RowIndex(book), edges))

    def book(self, version: int) -> PriceBook:
        """The price book version of a number of the tables."""
        return self._versions[version][0]

    def look_up(self, need: int) -> None:
        """Answer what the tables ask for.

        Raises:
            ValueError: it is no question of prices.
        """
        if need == _NEEDS_PRICE:
            self._look_up_price(*self.tables.wanted_price)
        elif need == _NEEDS_BANDS:
            self._look_up_bands(*self.tables.wanted_bands)
        elif need == _NEEDS_MOMENT:
            self._look_up_moment(*self.tables.wanted_moment)
        else:
            raise ValueError(f"the price tables do not ask for {need}")

    def _look_up_price(self, version: int, number: int) -> None:
        """Resolve what a combination costs in a version, or say that context and time decide."""
        book, index, edges = self._versions[version]
        prices = fixed_prices(book, Combination(*self._decoder.combination(number)), index)
        if prices is not None:
            self.tables.set_price(version, number, self._price_number(prices))
        else:
            self.tables.set_price(version, number, _MOMENTARY_PRICE if len(edges) <= _MOST_EDGES else _PLAIN_PRICE)

    def _look_up_bands(self, version: int, slot: int) -> None:
        """Resolve which time bands a quarter of an hour lies in, where it lies in each wholly or not at all."""
        book, from_us, until_us = self._versions[version][0], slot * _SLOT_US, (slot + 1) * _SLOT_US
        inside: list[str] = []
        for band in book.time_bands.values():
            intervals = band_intervals(band, from_us, until_us)
            if intervals not in ((), ((from_us, until_us),)):
                self.tables.set_bands(version, slot, _MIXED_BANDS)
                return
            if intervals:
                inside.append(band.name)
        self.tables.set_bands(version, slot, self._bands.setdefault(tuple(inside), len(self._bands)))

    def _look_up_moment(self, version: int, number: int, segment: int, bands: int, slot: int) -> None:
        """Resolve what a combination costs between two context edges in a set of time bands: that of a slot."""
        book, index, edges = self._versions[version]
        moment = Moment(slot * _SLOT_US, edges[segment - 1] if segment else 0)
        prices = moment_prices(book, Combination(*self._decoder.combination(number)), moment, index)
        price = _PLAIN_PRICE if prices is None else self._price_number(prices)
        self.tables.set_price_at(version, number, segment, bands, price)

    def _price_number(self, prices: UnitPrices) -> int:
        key = tuple((meter, *price) for meter, price in prices.items())
        number = self._numbers.get(key)
        if number is None:
            by_meter = {
                METERS.index(meter): (price_pico, coefficient_micro, _line_piece(price_pico))
                for meter, (price_pico, coefficient_micro) in prices.items()
                if meter in METERS
            }
            number = self._numbers[key] = self.tables.add_price(by_meter)
        return number


def _line_piece(price_pico: int) -> bytes:
    """The JSON of a rated line's meter between its quantity and its amount."""
    return b',"per_million":"' + format_pico(price_pico * MILLION).encode() + b'","amount":"'
