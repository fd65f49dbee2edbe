"""Prices for the core's price tables, looked up with the plain rules of :mod:`billing.pricing`, once for each case.

The tables request a price once per combination and version if the combination alone decides it. If context or time
decide it, they request it once per segment between edges of context and output length and per set of time bands in
force together.
The compiled calculator and the compiled rater share this module.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.timebands import band_intervals
from billing.pricing.adjust import PricingMoment
from billing.pricing.match import Combination, RowIndex, context_edges, first_fitting, output_edges
from billing.pricing.rate import fixed_prices, moment_prices, no_meter_detail, no_row_detail, rejection_as_json
from billing.pricing.row_prices import UnitPrices
from cython_ext.decode import Decoder
from cython_ext.prices import PriceTables
from schemas.json_text import dump_json
from schemas.meters import METERS
from schemas.refusals import record_refusal
from schemas.times import DAY_US, MINUTE_US
from schemas.units import MILLION, format_pico

_NEEDS_PRICE, _NEEDS_MOMENT, _NEEDS_BANDS = 2, 6, 7  # cython_ext.prices
_PLAIN_PRICE, _MOMENTARY_PRICE = -1, -3
_MIXED_BANDS = -1
_SLOT_US = 15 * MINUTE_US
_SLOTS_A_DAY = 96
_MAX_EDGES = 250
_OUTPUT_SEGMENT = 256  # cython_ext.prices
MARK_NUMBER, _MARK_METER = "987654321012345678", "the meter"
_MARK_OUTPUT = "876543210123456789"


class _Version(NamedTuple):
    """A price book version with its index, and the lengths of requests at which its prices may change."""

    book: PriceBook
    rows: RowIndex
    edges: tuple[int, ...]
    output_edges: tuple[int, ...]


class CorePrices:
    """The price books of a catalogue, loaded into the core's price tables.

    ``word`` maps names of books and currencies to the numbers that the user of the tables gives them. With ``refuses``
    the tables also hold the texts of ``no_price`` rejections; otherwise the plain rule writes them.
    """

    def __init__(self, decoder: Decoder, word: Callable[[str], int], *, refuses: bool = False) -> None:
        self.tables = PriceTables()
        self._decoder = decoder
        self._word = word
        self._refuses = refuses
        self._versions: list[_Version] = []
        self._numbers: dict[tuple[object, ...], int] = {}
        self._no_rows: dict[tuple[int, int], int] = {}
        self._bands: dict[tuple[str, ...], int] = {}

    def set_books(self, books: Iterable[PriceBook]) -> None:
        """Replace the price book versions."""
        self.tables.clear()
        for book in sorted(books, key=lambda book: (book.effective_from_us, book.version)):
            head = b'","currency":' + dump_json(book.currency) + b',"amount":"'
            label = b'","price_book":' + dump_json(book.label) + b',"lines":['
            version = _Version(book, RowIndex(book), context_edges(book), output_edges(book))
            few = version.edges[:_MAX_EDGES], version.output_edges[:_MAX_EDGES]
            self.tables.add_version(self._word(book.name), self._word(book.currency), book, head, label, *few)
            self._versions.append(version)

    def book(self, version: int) -> PriceBook:
        """Return the price book version that has this number in the tables."""
        return self._versions[version].book

    def look_up(self, need: int) -> None:
        """Look up what the tables need: a price, a price at a moment, or the time bands of a day.

        Raises:
            ValueError: ``need`` is none of these.
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
        """Set the unit prices of a combination in a version, or mark them as dependent on context and time."""
        book, index, *edges = self._versions[version]
        combination = Combination.from_texts(self._decoder.combination(number))
        prices = fixed_prices(book, combination, index)
        if prices is not None:
            self.tables.set_price(version, number, self._price_number(prices, book, index.candidates(combination)[0]))
        else:
            few = max(map(len, edges)) <= _MAX_EDGES
            self.tables.set_price(version, number, _MOMENTARY_PRICE if few else _PLAIN_PRICE)

    def _look_up_bands(self, version: int, slot: int) -> None:
        """Set the time bands of each quarter-hour of the day that contains ``slot``.

        A quarter-hour that is only partly inside a band is marked as mixed. A whole day is set at once, because the
        edges of a band within one day are found together.
        """
        first = slot - slot % _SLOTS_A_DAY
        from_us = first * _SLOT_US
        inside: list[list[str]] = [[] for _ in range(_SLOTS_A_DAY)]
        mixed: set[int] = set()
        for band in self.book(version).time_bands.values():
            for begin_us, end_us in band_intervals(band, from_us, from_us + DAY_US):
                begin, begin_rest = divmod(begin_us - from_us, _SLOT_US)
                end, end_rest = divmod(end_us - from_us, _SLOT_US)
                mixed |= {begin} if begin_rest else set()
                mixed |= {end} if end_rest else set()
                for place in range(begin, end):
                    inside[place].append(band.name)
        for place, names in enumerate(inside):
            number = _MIXED_BANDS if place in mixed else self._bands.setdefault(tuple(names), len(self._bands))
            self.tables.set_bands(version, first + place, number)

    def _look_up_moment(self, version: int, number: int, segment: int, bands: int, slot: int) -> None:
        """Set the unit prices of a combination between edges, in the set of time bands of a slot."""
        book, index, *edges = self._versions[version]
        output_segment, context_segment = divmod(segment, _OUTPUT_SEGMENT)
        places = zip(edges, (context_segment, output_segment), strict=True)
        lengths = (of_kind[place - 1] if place else 0 for of_kind, place in places)
        moment = PricingMoment(slot * _SLOT_US, *lengths)
        combination = Combination.from_texts(self._decoder.combination(number))
        row = first_fitting(book, index.candidates(combination), *moment)
        prices = moment_prices(book, combination, moment, index)
        price = _PLAIN_PRICE
        if prices is not None and row is not None:
            price = self._price_number(prices, book, row)
        elif row is None and self._refuses:
            price = self._no_row_number(version, number, combination)
        self.tables.set_price_at(version, number, segment, bands, price)

    def _no_row_number(self, version: int, number: int, combination: Combination) -> int:
        """Return the table number that stands for a combination without a matching row; it carries the rejection."""
        known = self._no_rows.get((version, number))
        if known is None:
            book = self.book(version)
            if book.has_output_bands:
                detail = no_row_detail(book, combination, int(MARK_NUMBER), int(_MARK_OUTPUT))
                head, between, tail = refusal_pieces("no_price", detail, MARK_NUMBER, _MARK_OUTPUT)
                known = self.tables.add_no_row(head, tail, between)
            else:
                detail = no_row_detail(book, combination, int(MARK_NUMBER))
                known = self.tables.add_no_row(*refusal_pieces("no_price", detail, MARK_NUMBER))
            self._no_rows[version, number] = known
        return known

    def _price_number(self, prices: UnitPrices, book: PriceBook, row: PriceRow) -> int:
        """Return the table number of unit prices, adding them if they are new.

        With ``refuses`` the number belongs to one row, because the rejection of a meter without a price names the row.
        """
        key: tuple[object, ...] = tuple((meter, *price) for meter, price in prices.items())
        refusal: list[bytes] = []
        if self._refuses:
            key = (book.label, row.index, *key)
        number = self._numbers.get(key)
        if number is None:
            if self._refuses:
                detail = no_meter_detail(book, row, _MARK_METER, int(MARK_NUMBER))
                refusal = refusal_pieces("no_price", detail, repr(_MARK_METER), MARK_NUMBER)
            by_meter = {
                METERS.index(meter): (price_pico, coefficient_micro, _line_piece(price_pico))
                for meter, (price_pico, coefficient_micro) in prices.items()
                if meter in METERS
            }
            number = self._numbers[key] = self.tables.add_price(by_meter, refusal)
        return number


def refusal_pieces(reason: str, detail: str, *marks: str) -> list[bytes]:
    """Return the output line of a rejected event after its id, split at the last occurrence of each mark."""
    line = dump_json(rejection_as_json(record_refusal(reason, detail, "", ""))) + b"\n"
    _, _, rest = line.partition(b'"id":"')
    pieces: list[bytes] = []
    for mark in reversed(marks):
        rest, _, tail = rest.rpartition(dump_json(mark)[1:-1])
        pieces.insert(0, tail)
    return [rest, *pieces]


def _line_piece(price_pico: int) -> bytes:
    """Return the JSON between the quantity and the amount of one meter of a rated line."""
    return b',"per_million":"' + format_pico(price_pico * MILLION).encode() + b'","amount":"'
