"""The compiled path of ``tokenbill rate``. It equals :class:`BookRater` and holds no rule.

Lines that the core cannot read or price are rated by :class:`BookRater`, one by one and in their place. No I/O.
"""

from billing.calculator.core_prices import MARK_NUMBER, CorePrices, refusal_pieces
from billing.catalog.model import Catalog
from billing.pricing.lines import BookRater, encode_line
from cython_ext.decode import Decoder
from cython_ext.rater import LineRater

_NEEDS_PLAIN, _ALL_DONE = 4, 5  # cython_ext.rater
_MAX_COMBINATIONS = 65_536


class CompiledRater:
    """Rater of JSON lines by one price book, one buffer of lines at a time.

    Its memory is bounded, so a stream may have any length.
    """

    def __init__(self, catalog: Catalog, name: str, *, note_unknown: bool = False) -> None:
        self._plain = BookRater(catalog, name, note_unknown=note_unknown)
        self._versions = [book for book in catalog.price_books if book.name == name]
        self._declared = frozenset(meter for book in self._versions for meter in book.meters)
        self._rated_before = self._rejected_before = 0
        self._start()

    def _start(self) -> None:
        decoder = Decoder()
        decoder.declare_meters(self._declared)
        decoder.declare_attributes(sorted({name for book in self._versions for name in book.dimensions.values()}))
        self._prices = CorePrices(decoder, lambda _: 0, refuses=True)  # one book; currency numbers are not used
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
        """Lines rejected so far."""
        return self._rejected_before + self._lines.rejected + self._plain.rejected

    @property
    def with_unknown(self) -> int:
        """Events with numbers that their dialect does not know, and that were left out."""
        return self._plain.with_unknown

    @property
    def unknown(self) -> list[str]:
        """The first sentence about such a number."""
        return self._plain.unknown

    def rate(self, text: bytearray, size: int, *, ended: bool) -> tuple[int, memoryview | bytes]:
        """Rate the complete lines among the first ``size`` bytes of ``text``.

        ``text`` must be at least one byte longer than ``size``; it is not changed. With ``ended`` the bytes after the
        last newline are a line too; otherwise they are left for the next call.

        Returns:
            The number of bytes rated and the output for them, which is valid until the next call.
        """
        if len(self._lines.decoder.combinations) > _MAX_COMBINATIONS:
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
