"""Check for prices that change too much from one version of a book to the next, for review before publication.

It compares the charge per unit after adjustments, not how rows are written. For every row of either version it prices
one event that the row fits, at an instant of its time band and at the low ends of its bands of tokens.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from billing.catalog import Catalog, CatalogFinding, PriceBook, PriceRow
from billing.catalog.model import TEXT_DIMENSIONS
from billing.catalog.patterns import ANY
from billing.catalog.timebands import band_intervals
from billing.pricing.adjust import PricingMoment
from billing.pricing.match import Combination, RowIndex, first_fitting
from billing.pricing.rate import unit_prices
from schemas.times import DAY_US, format_time_us
from schemas.units import MICRO_DIGITS, MILLION, format_scaled

_SEARCH_DAYS = 16
"""Days within which a band of weekly hours applies at least once, even after holidays of more than a week."""


def price_changes(catalog: Catalog, most_micro: int) -> list[CatalogFinding]:
    """Find prices that rise or fall by more than a factor (1e-6) from one version of a book to the next in force."""
    findings: list[CatalogFinding] = []
    for name in catalog.books:
        versions = sorted(
            (book for book in catalog.price_books if book.name == name),
            key=lambda book: (book.effective_from_us, book.version),
        )
        for before, book in pairwise(versions):
            if before.currency == book.currency:
                findings += _between(before, book, most_micro)
    return sorted(findings)


def _between(before: PriceBook, book: PriceBook, most_micro: int) -> Iterator[CatalogFinding]:
    was, now = RowIndex(before), RowIndex(book)
    same_rules = all(
        getattr(before, name) == getattr(book, name) for name in ("adjustments", "stacking", "time_bands", "dimensions")
    )
    seen: set[tuple[Combination, PricingMoment]] = set()
    told: set[tuple[int, str]] = set()
    for of in (book, before):
        moments = {name: _moment_us(of, name, book.effective_from_us) for name in of.time_bands}
        for row in of.rows:
            texts = list(map(_sample, row.patterns[: len(TEXT_DIMENSIONS)]))
            attributes = dict(zip(of.dimensions.values(), map(_sample, row.declared), strict=True))
            combination = Combination._make([*texts, row.outcome[0], tuple(sorted(attributes.items()))])
            time_us = moments.get(row.time_band or "", book.effective_from_us)
            low, output_low = (band[0] if band else 0 for band in (row.context, row.output_context))
            moment = PricingMoment(time_us, low, output_low)
            if (combination, moment) in seen:
                continue
            seen.add((combination, moment))
            old_row = first_fitting(before, was.candidates(combination), *moment)
            new_row = first_fitting(book, now.candidates(combination), *moment)
            if old_row is None or new_row is None or (same_rules and old_row.price_pico == new_row.price_pico):
                continue
            old = unit_prices(before, old_row, combination, moment)
            for meter, (price_pico, _) in unit_prices(book, new_row, combination, moment).items():
                old_pico = old.get(meter, (price_pico, 0))[0]
                if (new_row.index, meter) not in told and _too_much(old_pico, price_pico, most_micro):
                    told.add((new_row.index, meter))
                    yield _finding(before, book, (old_row, old_pico), (new_row, price_pico), meter, most_micro)


def _sample(pattern: str) -> str:
    """Return a text that a pattern matches and that no other pattern of a book is likely to match."""
    return f"{pattern[:-1]}~" if pattern.endswith(ANY) else pattern


def _moment_us(book: PriceBook, name: str, from_us: int) -> int:
    """Return an instant of a time band soon after another instant, or that instant itself if there is none."""
    band = book.time_bands[name]
    found: Sequence[tuple[int, int]] = band_intervals(band, from_us, from_us + _SEARCH_DAYS * DAY_US)
    return found[0][0] if found else from_us


def _too_much(old: int, new: int, most_micro: int) -> bool:
    low, high = sorted((old, new))
    return high * MILLION > low * most_micro


def _finding(
    before: PriceBook,
    book: PriceBook,
    was: tuple[PriceRow, int],
    now: tuple[PriceRow, int],
    meter: str,
    most_micro: int,
) -> CatalogFinding:
    (old_row, old_pico), (row, price_pico) = was, now
    where = f"{before.label} ({before.file}:{old_row.line})"
    return CatalogFinding(
        book.file,
        row.line,
        f"rows[{row.index}].per_million.{meter}",
        f"comes to {format_scaled(price_pico, MICRO_DIGITS)} after adjustments, from "
        f"{format_time_us(book.effective_from_us)} on; in {where} it was "
        f"{format_scaled(old_pico, MICRO_DIGITS)}: that is more than a factor of "
        f"{format_scaled(most_micro, MICRO_DIGITS)}; correct it, or allow more with --max-price-change",
    )
