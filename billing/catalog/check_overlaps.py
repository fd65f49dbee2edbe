"""Check for rows of one model that cross: an event fits both, each fixes a dimension that the other leaves open.

``{hardware_tier: "ascend-*", site: a}`` and ``{service_tier: batch}`` cross: a batch request on Ascend at ``a`` is
priced by the first row, which does not mention batch. The author may not expect that. The winner is defined
(docs/reference/price-books.md, "Winning row"), so a crossing is a warning, and there is none if a row that beats both
prices the common events. Rows of different model patterns are not compared: there the model decides, as everyone
expects. The work and the number of warnings per book are bounded.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import TEXT_DIMENSIONS, PriceBook, PriceRow
from billing.catalog.patterns import ANY, row_rank

_MAX_PAIRS = 300_000
_MAX_FINDINGS = 50

ContextRange = tuple[int, int | None]
Meet = tuple[tuple[str, ...], str | None, ContextRange, ContextRange]
"""Intersection of two rows: patterns, time band, context, output length."""
_BANDS = ("context", "output_context")


def check_overlaps(book: PriceBook, sets: Sequence[frozenset[str]]) -> Iterator[CatalogFinding]:
    """Find rows that cross. ``sets`` are the sets of time bands that apply together at some instant."""
    by_model: dict[str, list[PriceRow]] = defaultdict(list)
    for row in book.rows:
        by_model[row.model].append(row)
    together = {frozenset(pair) for found in sets for pair in combinations(sorted(found), 2)}
    pairs = found = 0
    for rows in by_model.values():
        for first, second in combinations(rows, 2):
            pairs += 1
            if pairs > _MAX_PAIRS or found >= _MAX_FINDINGS:
                yield _rest(book, second, found)
                return
            meet = _crossing(first, second, together)
            if meet is not None and not _decided(meet, first, second, rows):
                found += 1
                yield _finding(book, first, second, meet)


def _crossing(first: PriceRow, second: PriceRow, together: set[frozenset[str]]) -> Meet | None:
    """Return the intersection of two rows if each is narrower than the other in some dimension, else None."""
    if first.patterns == second.patterns and not _bands_cross(first, second):
        return None
    narrower = [False, False]
    texts: list[str] = []
    for one, two in zip(first.patterns, second.patterns, strict=True):
        if one == two:
            texts.append(one)
        elif _contains(two, one):
            narrower[0] = True
            texts.append(one)
        elif _contains(one, two):
            narrower[1] = True
            texts.append(two)
        else:
            return None
    if not set(first.outcome) & set(second.outcome):
        return None
    band = first.time_band or second.time_band
    if first.time_band != second.time_band:
        if first.time_band and second.time_band:
            if frozenset((first.time_band, second.time_band)) not in together:
                return None
        else:
            narrower[0 if first.time_band else 1] = True
    lengths: list[ContextRange] = []
    for key in _BANDS:
        one, two = getattr(first, key), getattr(second, key)
        common = _common(one or (0, None), two or (0, None))
        if common is None:
            return None
        if (one is None) != (two is None):
            narrower[0 if one else 1] = True
        lengths.append(common)
    return (tuple(texts), band, lengths[0], lengths[1]) if all(narrower) else None


def _bands_cross(first: PriceRow, second: PriceRow) -> bool:
    """Return True if each of two rows has a band of a kind that the other lacks."""
    kinds = [(getattr(first, key) is not None, getattr(second, key) is not None) for key in ("time_band", *_BANDS)]
    return (True, False) in kinds and (False, True) in kinds


def _contains(wide: str, narrow: str) -> bool:
    """Return True if ``wide`` matches every text that ``narrow`` matches."""
    return wide == narrow or (wide.endswith(ANY) and narrow.startswith(wide[:-1]))


def _common(one: ContextRange, two: ContextRange) -> ContextRange | None:
    low = max(one[0], two[0])
    ends = [end for end in (one[1], two[1]) if end is not None]
    high = min(ends) if ends else None
    return None if high is not None and high <= low else (low, high)


def _decided(meet: Meet, first: PriceRow, second: PriceRow, rows: Sequence[PriceRow]) -> bool:
    """Return True if one row that beats both prices every event that both fit."""
    texts, band, *lengths = meet
    both = max(row_rank(first), row_rank(second))
    outcomes = set(first.outcome) & set(second.outcome)
    for row in rows:
        if (
            all(_spans(getattr(row, key), length) for key, length in zip(_BANDS, lengths, strict=True))
            and row.time_band in (None, band)
            and outcomes <= set(row.outcome)
            and all(map(_contains, row.patterns, texts))
            and row_rank(row) > both
        ):
            return True
    return False


def _spans(band: ContextRange | None, length: ContextRange) -> bool:
    """Return True if a band contains a range."""
    (start, end), (low, high) = band or (0, None), length
    return start <= low and (end is None or (high is not None and high <= end))


def _finding(book: PriceBook, first: PriceRow, second: PriceRow, meet: Meet) -> CatalogFinding:
    winner, loser = (first, second) if row_rank(first) > row_rank(second) else (second, first)
    texts, band, *lengths = meet
    common = [
        f"{name} {text}" for name, text in zip((*TEXT_DIMENSIONS, *book.dimensions), texts, strict=True) if text != ANY
    ]
    common += [f"time_band {band}"] if band else []
    for key, (low, high) in zip(_BANDS, lengths, strict=True):
        common += [f"{key} [{low}, {'null' if high is None else high}]"] if (low, high) != (0, None) else []
    return CatalogFinding(
        book.file,
        loser.line,
        f"rows[{loser.index}]",
        f"overlaps rows[{winner.index}] in line {winner.line}, which wins for {', '.join(common)}; "
        "if that is not meant, add a row for just that",
        WARNING,
    )


def _rest(book: PriceBook, row: PriceRow, found: int) -> CatalogFinding:
    return CatalogFinding(
        book.file,
        row.line,
        f"rows[{row.index}]",
        f"from here on overlaps were not looked for, after {found} of them; put those right, or split the book",
        WARNING,
    )
