"""Rule for the row of a price book that prices an event (docs/reference/price-books.md, "Winning row"), in plain code.

It is the specification of the compiled lookup. It never computes an amount.
"""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from billing.catalog.model import TEXT_DIMENSIONS, PriceBook, PriceRow
from billing.catalog.patterns import ANY, pattern_matches, row_rank
from billing.catalog.timebands import band_contains
from schemas.usage import UsageEvent


class Combination(NamedTuple):
    """Dimensions of an event that do not change from one request to the next: all but time and lengths.

    The first six are :data:`billing.catalog.model.TEXT_DIMENSIONS`, in that order. ``attributes`` are (name, value) of
    the attributes that books declare as dimensions, sorted by name.
    """

    model: str
    hardware_tier: str = "unknown"
    energy_source: str = "unknown"
    site: str = "unknown"
    channel: str = "cloud"
    service_tier: str = "standard"
    outcome: str = "completed"
    attributes: tuple[tuple[str, str], ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """Values of the text dimensions."""
        return (self.model, self.hardware_tier, self.energy_source, self.site, self.channel, self.service_tier)

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> "Combination":
        """Return the combination of the core's texts: seven dimensions, then names and values of attributes."""
        fixed, pairs = texts[:_FIXED], texts[_FIXED:]
        return cls._make((*fixed, tuple(zip(pairs[::2], pairs[1::2], strict=True))))


NO_ATTRIBUTE = "unknown"
"""Value of a declared dimension whose attribute an event lacks."""
_FIXED = len(Combination._fields) - 1
_COMBINATION_FIELDS = attrgetter(*Combination._fields)


def combination_of(event: UsageEvent) -> Combination:
    """Return the combination of an event."""
    return Combination._make(_COMBINATION_FIELDS(event))


def values_of(book: PriceBook, combination: Combination) -> tuple[str, ...]:
    """Return the values of the text dimensions of a combination, then of the dimensions that a book declares."""
    if not book.dimensions:
        return combination.texts
    given = dict(combination.attributes)
    return combination.texts + tuple(given.get(attribute, NO_ATTRIBUTE) for attribute in book.dimensions.values())


def dimensions_of(book: PriceBook, combination: Combination) -> dict[str, str]:
    """Return the values that scopes match, by name: text dimensions, declared dimensions and the outcome."""
    values = dict(zip((*TEXT_DIMENSIONS, *book.dimensions), values_of(book, combination), strict=True))
    return values | {"outcome": combination.outcome}


def text_fits(row: PriceRow, combination: Combination, values: Sequence[str] | None = None) -> bool:
    """Return True if a row's patterns and outcomes match a combination.

    ``values`` are those of :func:`values_of`; a book without declared dimensions needs none.
    """
    texts = combination.texts if values is None else values
    return combination.outcome in row.outcome and all(
        pattern_matches(pattern, text) for pattern, text in zip(row.patterns, texts, strict=True)
    )


def context_fits(row: PriceRow, context_tokens: int) -> bool:
    """Return True if a number of context tokens lies in a row's context band."""
    return in_context(row.context, context_tokens)


def output_fits(row: PriceRow, output_tokens: int) -> bool:
    """Return True if a number of output tokens lies in a row's output band."""
    return in_context(row.output_context, output_tokens)


def in_context(context: tuple[int, int | None] | None, tokens: int) -> bool:
    """Return True if a number of tokens lies in a band of tokens, or if there is no band."""
    if context is None:
        return True
    low, high = context
    return low <= tokens and (high is None or tokens < high)


def time_fits(book: PriceBook, row: PriceRow, time_us: int) -> bool:
    """Return True if an instant lies in a row's time band, or if the row has none."""
    return row.time_band is None or band_contains(book.time_bands[row.time_band], time_us)


def candidates(book: PriceBook, combination: Combination) -> tuple[PriceRow, ...]:
    """Return the rows that match a combination, best first. The first whose bands fit wins.

    Rows of equal rank keep the order of the book. A published book has no two such rows for one event.
    """
    values = values_of(book, combination)
    return _best_first(row for row in book.rows if text_fits(row, combination, values))


def first_fitting(
    book: PriceBook, rows: Iterable[PriceRow], time_us: int, context_tokens: int, output_tokens: int
) -> PriceRow | None:
    """Return the first row whose bands of context, output length and time fit, or None."""
    return next(
        (
            row
            for row in rows
            if context_fits(row, context_tokens) and output_fits(row, output_tokens) and time_fits(book, row, time_us)
        ),
        None,
    )


def context_edges(book: PriceBook) -> tuple[int, ...]:
    """Return the contexts, ascending, at which an event's row or adjustments may change.

    Between two nothing changes.
    """
    return _edges([row.context for row in book.rows] + [adjustment.context for adjustment in book.adjustments])


def output_edges(book: PriceBook) -> tuple[int, ...]:
    """Return the output lengths, ascending, at which an event's row or adjustments may change."""
    return _edges([row.output_context for row in book.rows] + [one.output_context for one in book.adjustments])


def _edges(bands: Iterable[tuple[int, int | None] | None]) -> tuple[int, ...]:
    return tuple(sorted({edge for band in bands if band is not None for edge in band if edge}))


def winning_row(
    book: PriceBook, combination: Combination, time_us: int, context_tokens: int, output_tokens: int = 0
) -> PriceRow | None:
    """Return the row that prices an event of a combination at a time and two numbers of tokens, or None."""
    return first_fitting(book, candidates(book, combination), time_us, context_tokens, output_tokens)


def _best_first(rows: Iterable[PriceRow]) -> tuple[PriceRow, ...]:
    return tuple(sorted(rows, key=row_rank, reverse=True))


class RowIndex:
    """Index of a book's rows by the dimensions that their patterns fix, so that a search need not look at every row.

    Rows that fix the same dimensions, with prefixes of the same lengths, differ only in texts. They are found by the
    texts of a combination, cut to those lengths. A book has few such shapes, however many rows it has.
    """

    __slots__ = ("_models", "_shapes", "book")

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        self._shapes: dict[_Shape, dict[tuple[str, ...], list[PriceRow]]] = {}
        self._models: dict[str, list[PriceRow]] = {}
        for row in book.rows:
            self._models.setdefault(row.model, []).append(row)
            shape: list[tuple[int, int | None]] = []
            texts: list[str] = []
            for place, pattern in enumerate(row.patterns):
                if pattern != ANY:
                    length = len(pattern) - 1 if pattern.endswith(ANY) else None
                    shape.append((place, length))
                    texts.append(pattern[:length])
            self._shapes.setdefault(tuple(shape), {}).setdefault(tuple(texts), []).append(row)

    def of_model(self, model: str) -> tuple[PriceRow, ...]:
        """Return the rows whose model pattern matches, best first: all that a person would expect to be considered."""
        patterns = dict.fromkeys([model, *(model[:length] + ANY for length in range(len(model) + 1))])
        found = [row for pattern in patterns for row in self._models.get(pattern, ())]
        return _best_first(sorted(found, key=lambda row: row.index))

    def candidates(self, combination: Combination) -> tuple[PriceRow, ...]:
        """Return the same rows in the same order as :func:`candidates`."""
        found: list[PriceRow] = []
        values = values_of(self.book, combination)
        for shape, rows_by_texts in self._shapes.items():
            rows = rows_by_texts.get(tuple([values[place][:length] for place, length in shape]))
            if rows is not None:
                found += rows
        found.sort(key=lambda row: row.index)
        return _best_first(row for row in found if text_fits(row, combination, values))


_Shape = tuple[tuple[int, int | None], ...]
"""Positions of the dimensions that a row fixes, each with the length of its prefix, None for an exact text."""
