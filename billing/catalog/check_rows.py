"""Check that exactly one row of a price book prices each event: ties, holes in context bands, rows that never win.

Rows can tie only if their patterns are equal in every text dimension: at equal rank, two patterns of a dimension are
both exact or both prefixes of one length, and then they match a common text only if they are the same. So rows are
grouped by their patterns. Within a group a finite number of cases is left: outcomes, the sets of time bands that occur
together, and the stretches between the ends of context bands. The work grows with the number of rows, not of pairs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from billing.catalog.check_overlaps import check_overlaps
from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.patterns import ANY, row_rank
from billing.catalog.timebands import band_sets
from schemas.usage import OUTCOMES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_USUAL_YEARS = (2026, 2027)  # two years contain every case of weekly hours; holidays add years
_FIRST_YEAR, _LAST_YEAR = 1971, 2199

Group = tuple[PriceRow, ...]
Stretch = tuple[int, int | None]


@dataclass(slots=True)
class _Verdict:
    """Ties, holes and winners found in one group."""

    ties: dict[int, tuple[PriceRow, PriceRow, Stretch, frozenset[str]]]
    holes: dict[Stretch, frozenset[str]]
    untimed: set[frozenset[str]]
    winners: set[int]


def check_rows(book: PriceBook) -> Iterator[CatalogFinding]:
    """Find ties and holes (errors), and probable mistakes (warnings)."""
    groups: dict[tuple[str, ...], list[PriceRow]] = defaultdict(list)
    for row in book.rows:
        groups[row.patterns].append(row)
    by_model: dict[str, list[PriceRow]] = defaultdict(list)
    for row in book.rows:
        by_model[row.model].append(row)
    sets = occurring_band_sets(book)
    banded = {row.model for row in book.rows if row.time_band is not None or row.context is not None}
    for rows in groups.values():
        if len(rows) > 1 or rows[0].model in banded:
            yield from _check_group(book, tuple(rows), sets, by_model[rows[0].model])
    yield from check_overlaps(book, sets)


def occurring_band_sets(book: PriceBook) -> tuple[frozenset[str], ...]:
    """Return the sets of time bands that apply together at some instant, searched in years that contain every case."""
    used = sorted({row.time_band for row in book.rows if row.time_band is not None})
    bands = [book.time_bands[name] for name in used]
    if not bands:
        return (frozenset(),)
    start = (_EPOCH + timedelta(microseconds=book.effective_from_us)).year
    years = {*_USUAL_YEARS, start, start + 1}
    for band in bands:
        years |= {date.fromordinal(day).year for day in band.off | band.work}
    spans = [(_year_us(year), _year_us(year + 1)) for year in sorted(years) if _FIRST_YEAR <= year <= _LAST_YEAR]
    return tuple(sorted(band_sets(tuple(bands), tuple(spans)), key=lambda found: (len(found), sorted(found))))


def _year_us(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _check_group(
    book: PriceBook, rows: Group, sets: Sequence[frozenset[str]], of_model: Sequence[PriceRow]
) -> Iterator[CatalogFinding]:
    """Check one group. ``of_model`` are the rows of its model, some of which price events that the group matches."""
    verdict = _Verdict({}, {}, set(), set())
    wider = [row for row in of_model if _covers(row, rows[0])]
    ranks = {row.index: row_rank(row) for row in (*rows, *wider)}
    for outcome in OUTCOMES:
        priced = [row for row in rows if outcome in row.outcome]
        if priced:
            for bands in sets:
                fit = [row for row in priced if row.time_band is None or row.time_band in bands]
                others = [r for r in wider if outcome in r.outcome and (r.time_band is None or r.time_band in bands)]
                # A wider row wins only if it has a time band or a context band.
                stronger = [row for row in others if row.time_band is not None or row.context is not None]
                holes = _sweep([*fit, *stronger], ranks, bands, verdict)
                if holes:
                    _note_holes(fit, bands, _uncovered(holes, others), verdict)
    yield from _findings(book, rows, verdict)


def _sweep(
    fit: Sequence[PriceRow], ranks: Mapping[int, tuple[int, ...]], bands: frozenset[str], verdict: _Verdict
) -> list[Stretch]:
    """Walk over the context sizes: record winners and ties, and return the stretches that no row fits."""
    begins: dict[int, list[PriceRow]] = defaultdict(list)
    ends: dict[int, list[PriceRow]] = defaultdict(list)
    for row in fit:
        low, high = row.context or (0, None)
        begins[low].append(row)
        if high is not None:
            ends[high].append(row)
    points = sorted({0, *begins, *ends})
    active: dict[int, PriceRow] = {}
    holes: list[Stretch] = []
    for point, following in zip(points, [*points[1:], None], strict=True):
        for row in ends.get(point, ()):
            del active[row.index]
        for row in begins.get(point, ()):
            active[row.index] = row
        if not active:
            holes.append((point, following))
            continue
        best = max(ranks[index] for index in active)
        first, *others = (row for index, row in active.items() if ranks[index] == best)
        verdict.winners.update((first.index, *(row.index for row in others)))
        for row in others:
            pair = sorted((first, row), key=lambda r: r.index)
            verdict.ties.setdefault(pair[1].index, (pair[0], pair[1], (point, following), bands))
    return holes


def _covers(wide: PriceRow, narrow: PriceRow) -> bool:
    """Return True if ``wide`` has other patterns and matches every text that the patterns of ``narrow`` match."""
    return wide.patterns != narrow.patterns and all(
        general == specific or (general.endswith(ANY) and specific.startswith(general[:-1]))
        for general, specific in zip(wide.patterns, narrow.patterns, strict=True)
    )


def _uncovered(holes: list[Stretch], rows: Sequence[PriceRow]) -> list[Stretch]:
    """Return the parts of stretches that lie outside the context bands of all rows."""
    for row in rows:
        low, high = row.context or (0, None)
        left: list[Stretch] = []
        for start, end in holes:
            if start < low:
                left.append((start, low if end is None else min(end, low)))
            if high is not None and (end is None or high < end):
                left.append((max(start, high), end))
        holes = left
    return holes


def _note_holes(fit: Sequence[PriceRow], bands: frozenset[str], holes: list[Stretch], verdict: _Verdict) -> None:
    if not fit:
        if holes:
            verdict.untimed.add(bands)
        return
    for hole in holes:
        verdict.holes.setdefault(hole, bands)


def _findings(book: PriceBook, rows: Group, verdict: _Verdict) -> Iterator[CatalogFinding]:
    for first, second, stretch, bands in verdict.ties.values():
        yield CatalogFinding(
            book.file,
            second.line,
            f"rows[{second.index}]",
            f"ties with rows[{first.index}] in line {first.line}: both match {_tokens(stretch)}{_when(bands)}, and "
            "neither is more specific; remove one or fix one more dimension",
        )
    for (start, end), bands in verdict.holes.items():
        row = _row_before(rows, start)
        where = f"rows[{row.index}].context"
        if end is None:
            yield CatalogFinding(
                book.file,
                row.line,
                where,
                f"ends at {start}: longer requests for {row.model!r} have no price{_when(bands)}; "
                "end the last band with null unless they are meant to be rejected",
                WARNING,
            )
        else:
            yield CatalogFinding(
                book.file,
                row.line,
                where,
                f"leaves a hole in the context bands of {row.model!r}: {_tokens((start, end))} have no row"
                f"{_when(bands)}; let the bands meet, each beginning where the one before ends, from 0 on",
            )
    if verdict.untimed:
        bands = min(verdict.untimed, key=lambda found: (len(found), sorted(found)))
        row = next(row for row in rows if row.time_band is not None)
        yield CatalogFinding(
            book.file,
            row.line,
            f"rows[{row.index}].time_band",
            f"leaves {row.model!r} without a row {'outside all time bands' if not bands else _when(bands)[2:]}; "
            "add a row without time_band",
            WARNING,
        )
    for row in rows:
        if row.index not in verdict.winners:
            message = "never wins: rows that are more specific cover it, or its time band never applies; remove it"
            yield CatalogFinding(book.file, row.line, f"rows[{row.index}]", message, WARNING)


def _row_before(rows: Group, start: int) -> PriceRow:
    """Return the row whose context band ends where a hole begins, or the first row with a context band."""
    banded = [row for row in rows if row.context is not None]
    return next((row for row in banded if row.context is not None and row.context[1] == start), banded[0])


def _tokens(stretch: Stretch) -> str:
    start, end = stretch
    if end is None:
        return "every context" if start == 0 else f"contexts from {start} tokens"
    return f"contexts of {start} to {end - 1} tokens"


def _when(bands: frozenset[str]) -> str:
    return f", in time band {' and '.join(sorted(bands))}" if bands else ""
