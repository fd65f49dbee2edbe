"""The compiled path of ``tokenbill rate``, a door to ``cython_ext``: it equals :class:`BookRater`, and holds no rule.

Lines that the core cannot read or price go, one by one and in their place, through :class:`BookRater`. Does no I/O.
"""

from billing.calculator.core_prices import MARK_NUMBER, CorePrices, refusal_pieces
from billing.catalog.model import Catalog
from billing.pricing.lines import BookRater, encode_line
from cython_ext.decode import Decoder
from cython_ext.rater import LineRater

_NEEDS_PLAIN, _ALL_DONE = 4, 5  # cython_ext.rater
_MOST_COMBINATIONS = 65_536


class CompiledRater:
    """Prices lines of JSON events by one book of a catalogue, a buffer of lines at a time.

    What it remembers is bounded: a stream may be of any size.
    """

    def __init__(self, catalog: Catalog, name: str) -> None:
        self._plain = BookRater(catalog, name)
        self._versions = [book for book in catalog.price_books if book.name == name]
        self._rated_before = self._rejected_before = 0
        self._start()

    def _start(self) -> None:
        decoder = Decoder()
        self._prices = CorePrices(decoder, lambda _: 0, refuses=True)  # one book; nobody asks for a currency's number
        self._prices.set_books(self._versions)
        self._prices.tables.set_outside(
            *refusal_pieces("no_price_book", self._plain.none_in_force(MARK_NUMBER), MARK_NUMBER)
        )
        self._lines = LineRater(decoder, self._prices.tables)

    @property
    def rated(self) -> int:
        """Events priced so far."""
        return self._rated_before + self._lines.rated + self._plain.rated

    @property
    def rejected(self) -> int:
        """Lines refused so far."""
        return self._rejected_before + self._lines.rejected + self._plain.rejected

    def rate(self, text: bytearray, size: int, *, ended: bool) -> tuple[int, memoryview | bytes]:
        """Price the whole lines of the first ``size`` bytes; ``text`` is at least one byte longer, and stays as it is.

        With ``ended`` what follows the last newline is a line too; else it is left for the next call.

        Returns:
            How many bytes were priced, and what to write for them: read it before the next call.
        """
        if len(self._lines.decoder.combinations) > _MOST_COMBINATIONS:
            self._rated_before += self._lines.rated
            self._rejected_before += self._lines.rejected
            self._start()
        lines = self._lines
        lines.clear()
        at = 0
        while True:
            at, need = lines.run(text, at, size, ended)
            if need == _ALL_DONE:
                return at, lines.output()
            if need == _NEEDS_PLAIN:
                lines.put(encode_line(self._plain.line(bytes(text[at : lines.next_at]))))
                at = lines.next_at
            else:
                self._prices.look_up(need)
