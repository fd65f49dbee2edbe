"""Rule for the row of a price book that prices an event (docs/reference/price-books.md, "Winning row"), in plain code.

It is the specification of the compiled lookup. It never computes an amount.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.patterns import ANY, pattern_matches, row_rank
from billing.catalog.timebands import band_contains
from schemas.usage import UsageEvent


class Combination(NamedTuple):
    """Dimensions of an event that do not change from one request to the next: all but time and context.

    The first six are :data:`billing.catalog.model.TEXT_DIMENSIONS`, in that order.
    """

    model: str
    hardware_tier: str = "unknown"
    energy_source: str = "unknown"
    site: str = "unknown"
    channel: str = "cloud"
    service_tier: str = "standard"
    outcome: str = "completed"


_COMBINATION_FIELDS = attrgetter(*Combination._fields)


def combination_of(event: UsageEvent) -> Combination:
    """Return the combination of an event."""
    return Combination._make(_COMBINATION_FIELDS(event))


def text_fits(row: PriceRow, combination: Combination) -> bool:
    """Return True if a row's patterns and outcomes match a combination."""
    return combination.outcome in row.outcome and all(
        pattern_matches(pattern, value) for pattern, value in zip(row.patterns, combination[:6], strict=True)
    )


def context_fits(row: PriceRow, context_tokens: int) -> bool:
    """Return True if a number of context tokens lies in a row's context band."""
    return in_context(row.context, context_tokens)


def in_context(context: tuple[int, int | None] | None, context_tokens: int) -> bool:
    """Return True if a number of context tokens lies in a context band, or if there is no band."""
    if context is None:
        return True
    low, high = context
    return low <= context_tokens and (high is None or context_tokens < high)


def time_fits(book: PriceBook, row: PriceRow, time_us: int) -> bool:
    """Return True if an instant lies in a row's time band, or if the row has none."""
    return row.time_band is None or band_contains(book.time_bands[row.time_band], time_us)


def candidates(book: PriceBook, combination: Combination) -> tuple[PriceRow, ...]:
    """Return the rows that match a combination, best first. The first whose context and time band fit wins.

    Rows of equal rank keep the order of the book. A published book has no two such rows for one event.
    """
    return _best_first(row for row in book.rows if text_fits(row, combination))


def first_fitting(book: PriceBook, rows: Iterable[PriceRow], time_us: int, context_tokens: int) -> PriceRow | None:
    """Return the first row whose context band and time band fit, or None."""
    return next((r for r in rows if context_fits(r, context_tokens) and time_fits(book, r, time_us)), None)


def context_edges(book: PriceBook) -> tuple[int, ...]:
    """Return the contexts, ascending, at which an event's row or adjustments may change.

    Between two nothing changes.
    """
    contexts = [row.context for row in book.rows] + [adjustment.context for adjustment in book.adjustments]
    return tuple(sorted({edge for context in contexts if context is not None for edge in context if edge}))


def winning_row(book: PriceBook, combination: Combination, time_us: int, context_tokens: int) -> PriceRow | None:
    """Return the row that prices an event of a combination at a time and a number of context tokens, or None."""
    return first_fitting(book, candidates(book, combination), time_us, context_tokens)


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
        for shape, rows_by_texts in self._shapes.items():
            rows = rows_by_texts.get(tuple([combination[place][:length] for place, length in shape]))
            if rows is not None:
                found += rows
        found.sort(key=lambda row: row.index)
        return _best_first(row for row in found if text_fits(row, combination))


_Shape = tuple[tuple[int, int | None], ...]
"""Positions of the dimensions that a row fixes, each with the length of its prefix, None for an exact text."""
