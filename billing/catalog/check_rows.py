"""Check that exactly one row of a price book prices each event: ties, holes in bands of tokens, rows that never win.

Rows can tie only if their patterns are equal in every text dimension: at equal rank, two patterns of a dimension are
both exact or both prefixes of one length, and then they match a common text only if they are the same. So rows are
grouped by their patterns. Within a group a finite number of cases is left: outcomes, the sets of time bands that occur
together, the strips between the ends of output bands, and in each strip the stretches between the ends of context
bands. The work grows with the number of rows, not of pairs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from billing.catalog.check_overlaps import check_overlaps
from billing.catalog.findings import ERROR, WARNING, CatalogFinding
from billing.catalog.model import PriceBook, PriceRow
from billing.catalog.patterns import ANY, row_rank
from billing.catalog.timebands import band_sets
from schemas.usage import OUTCOMES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_USUAL_YEARS = (2026, 2027)  # two years contain every case of weekly hours; holidays add years
_FIRST_YEAR, _LAST_YEAR = 1971, 2199

Group = tuple[PriceRow, ...]
Stretch = tuple[int, int | None]
Area = tuple[Stretch, Stretch]
"""A stretch of contexts and a strip of output lengths."""
_EVERYTHING: Stretch = (0, None)


@dataclass(slots=True)
class _Verdict:
    """Ties, holes and winners found in one group."""

    ties: dict[int, tuple[PriceRow, PriceRow, Area, frozenset[str]]]
    holes: dict[Area, tuple[frozenset[str], bool]]
    """The time bands in which a hole was found, and whether it lies beyond all bands of the group."""
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
    banded = {row.model for row in book.rows if row.is_banded}
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
                # A wider row wins only if it has a band.
                stronger = [row for row in others if row.is_banded]
                areas: list[Area] = []
                for strip in _strips([*fit, *others]):
                    holes = _sweep(_in_strip([*fit, *stronger], strip), strip, ranks, bands, verdict)
                    areas += [(hole, strip) for hole in _uncovered(holes, _in_strip(others, strip))]
                _note_holes(fit, bands, _merged(areas), verdict)
    yield from _findings(book, rows, verdict)


def _strips(rows: Sequence[PriceRow]) -> list[Stretch]:
    """Return the strips of output lengths between the ends of the rows' output bands."""
    points = {0, *(end for row in rows for end in row.output_context or () if end is not None)}
    rising = sorted(points)
    return list(zip(rising, [*rising[1:], None], strict=True))


def _in_strip(rows: Sequence[PriceRow], strip: Stretch) -> list[PriceRow]:
    """Return the rows whose output band contains a strip."""
    found: list[PriceRow] = []
    for row in rows:
        low, high = row.output_context or _EVERYTHING
        if low <= strip[0] and (high is None or (strip[1] is not None and strip[1] <= high)):
            found.append(row)
    return found


def _merged(areas: Sequence[Area]) -> list[Area]:
    """Join areas of one stretch of contexts whose strips of output lengths meet."""
    merged: list[Area] = []
    for stretch, strip in areas:
        before = next((n for n, area in enumerate(merged) if area[0] == stretch and area[1][1] == strip[0]), None)
        if before is None:
            merged.append((stretch, strip))
        else:
            merged[before] = (stretch, (merged[before][1][0], strip[1]))
    return merged


def _sweep(
    fit: Sequence[PriceRow],
    strip: Stretch,
    ranks: Mapping[int, tuple[int, ...]],
    bands: frozenset[str],
    verdict: _Verdict,
) -> list[Stretch]:
    """Walk over the contexts in a strip: record winners and ties, and return the stretches that no row fits."""
    begins: dict[int, list[PriceRow]] = defaultdict(list)
    ends: dict[int, list[PriceRow]] = defaultdict(list)
    for row in fit:
        low, high = row.context or _EVERYTHING
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
            verdict.ties.setdefault(pair[1].index, (pair[0], pair[1], ((point, following), strip), bands))
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
        low, high = row.context or _EVERYTHING
        left: list[Stretch] = []
        for start, end in holes:
            if start < low:
                left.append((start, low if end is None else min(end, low)))
            if high is not None and (end is None or high < end):
                left.append((max(start, high), end))
        holes = left
    return holes


def _note_holes(fit: Sequence[PriceRow], bands: frozenset[str], holes: list[Area], verdict: _Verdict) -> None:
    if not fit:
        if holes:
            verdict.untimed.add(bands)
        return
    for hole in holes:
        (context, output), contexts, outputs = hole, [r.context for r in fit], [r.output_context for r in fit]
        verdict.holes.setdefault(hole, (bands, _is_beyond(context, contexts) or _is_beyond(output, outputs)))


def _is_beyond(stretch: Stretch, bands: Sequence[Stretch | None]) -> bool:
    """Return True if a stretch is open and begins where the last of the bands has ended."""
    start, end = stretch
    return end is None and all(band is not None and band[1] is not None and band[1] <= start for band in bands)


def _findings(book: PriceBook, rows: Group, verdict: _Verdict) -> Iterator[CatalogFinding]:
    for first, second, area, bands in verdict.ties.values():
        yield CatalogFinding(
            book.file,
            second.line,
            f"rows[{second.index}]",
            f"ties with rows[{first.index}] in line {first.line}: both match {_tokens(area)}{_when(bands)}, and "
            "neither is more specific; remove one or fix one more dimension",
        )
    for area, (bands, beyond) in verdict.holes.items():
        yield _hole(book, rows, area, bands, beyond)
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


def _hole(book: PriceBook, rows: Group, area: Area, bands: frozenset[str], beyond: bool) -> CatalogFinding:
    context, output = area
    of_output = context == _EVERYTHING
    key, (start, end) = ("output_context", output) if of_output else ("context", context)
    row = _row_before(rows, key, start)
    where = f"rows[{row.index}].{key}"
    if beyond and _EVERYTHING in area and end is None:
        longer = "answers of" if of_output else "requests for"
        return CatalogFinding(
            book.file,
            row.line,
            where,
            f"ends at {start}: longer {longer} {row.model!r} have no price{_when(bands)}; "
            "end the last band with null unless they are meant to be rejected",
            WARNING,
        )
    kind = "output" if of_output else "context"
    remedy = (
        "end the last band with null unless they are meant to be rejected"
        if beyond
        else "let the bands meet, each beginning where the one before ends, from 0 on"
    )
    return CatalogFinding(
        book.file,
        row.line,
        where,
        f"leaves a hole in the {kind} bands of {row.model!r}: {_tokens(area)} have no row{_when(bands)}; {remedy}",
        WARNING if beyond else ERROR,
    )


def _row_before(rows: Group, key: str, start: int) -> PriceRow:
    """Return the row whose band ends where a hole begins, or the first row with such a band, or with any."""
    banded = [row for row in rows if getattr(row, key) is not None] or [row for row in rows if row.is_banded]
    return next((row for row in banded if (getattr(row, key) or _EVERYTHING)[1] == start), banded[0])


def _tokens(area: Area) -> str:
    context, output = area
    if output == _EVERYTHING:
        return _stretch("context", context)
    if context == _EVERYTHING:
        return _stretch("output", output)
    return f"{_stretch('context', context)} with {_stretch('output', output)}"


def _stretch(noun: str, stretch: Stretch) -> str:
    start, end = stretch
    if end is None:
        return f"every {noun}" if start == 0 else f"{noun}s from {start} tokens"
    return f"{noun}s of {start} to {end - 1} tokens"


def _when(bands: frozenset[str]) -> str:
    return f", in time band {' and '.join(sorted(bands))}" if bands else ""
