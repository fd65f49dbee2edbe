"""Checks before a catalogue is published, beyond those of reading each entry (docs/reference/price-books.md, "Winning
row" and "Versions").

Errors stop publication; warnings are for a person to review. :mod:`billing.catalog.unsupported` lists the features that
this version does not support; :mod:`billing.catalog.check_rows` checks the rows of a book.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise

from billing.catalog.check_periods import check_going_on, check_periods
from billing.catalog.check_plan import check_plan
from billing.catalog.check_rows import check_rows
from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import STACKING, Agreement, Catalog, Holidays, Plan, PriceBook, PriceRow
from billing.catalog.patterns import ANY, pattern_matches
from billing.catalog.source import MAX_BALANCE
from billing.catalog.unsupported import unsupported
from schemas.times import format_time_us
from schemas.units import PICO_DIGITS, format_pico

_ONE_PICO = 10**PICO_DIGITS
_GREATEST_PRICE = f"{format_pico(MAX_BALANCE)} per unit"


def check(catalog: Catalog) -> list[CatalogFinding]:
    """Check a catalogue and return every finding, sorted by file and line."""
    findings = [
        *_same_version(catalog.price_books),
        *_same_version(catalog.plans),
        *_same_version(catalog.holidays),
        *_same_version(catalog.agreements),
        *_versions_in_force(catalog.price_books),
        *unsupported(catalog),
    ]
    for book in catalog.price_books:
        undefined = [*_bands(catalog, book)]
        findings += undefined
        findings += _prices(book)
        findings += _adjustments(book)
        findings += check_periods(book)
        if not undefined:
            findings += check_rows(book)
    for plan in catalog.plans:
        findings += check_plan(plan, catalog.price_books)
    return sorted(findings)


def _same_version(entries: Sequence[PriceBook | Plan | Holidays | Agreement]) -> Iterator[CatalogFinding]:
    """Find entries with the same name and version, to which references would be ambiguous."""
    first: dict[tuple[str, int], PriceBook | Plan | Holidays | Agreement] = {}
    for entry in entries:
        before = first.setdefault((entry.name, entry.version), entry)
        if before is not entry:
            yield CatalogFinding(
                entry.file,
                entry.line,
                "version",
                f"{entry.name} {entry.version} is also in {before.file}:{before.line}; "
                "a version never changes: give the new one the next number",
            )


def _versions_in_force(books: Sequence[PriceBook]) -> Iterator[CatalogFinding]:
    by_name: dict[str, list[PriceBook]] = defaultdict(list)
    for book in books:
        by_name[book.name].append(book)
    for versions in by_name.values():
        for before, book in pairwise(sorted(versions, key=lambda book: (book.effective_from_us, book.version))):
            begins = format_time_us(book.effective_from_us)
            if before.version == book.version:
                continue
            if before.effective_from_us == book.effective_from_us:
                yield CatalogFinding(
                    book.file,
                    book.line,
                    "effective_from",
                    f"{book.label} and {before.label} ({before.file}:{before.line}) both begin at {begins}, "
                    "so two would be in force at once; change one",
                )
            elif before.version > book.version:
                yield CatalogFinding(
                    before.file,
                    before.line,
                    "effective_from",
                    f"{before.label} begins before {book.label}, which replaces it at {begins}; "
                    "check that the dates are meant so",
                    WARNING,
                )
            yield from check_going_on(before, book)
            if before.currency != book.currency:
                yield CatalogFinding(
                    book.file,
                    book.line,
                    "currency",
                    f"is {book.currency}, but {before.label} is in {before.currency} and accounts are bound to the "
                    "book; give a book in another currency another name",
                )


def _bands(catalog: Catalog, book: PriceBook) -> Iterator[CatalogFinding]:
    for band in book.time_bands.values():
        if band.excepts is not None and catalog.holidays_named(band.excepts) is None:
            yield CatalogFinding(
                book.file,
                band.line,
                f"time_bands.{band.name}.except",
                f"is {band.excepts!r}, but there are no holidays of that name; add an entry of kind holidays",
            )
    for row in book.rows:
        if row.time_band is not None and row.time_band not in book.time_bands:
            yield CatalogFinding(
                book.file,
                row.line,
                f"rows[{row.index}].time_band",
                f"is {row.time_band!r}; write one of {', '.join(book.time_bands) or 'time_bands, which has none'}",
            )
    for index, adjustment in enumerate(book.adjustments):
        for name in adjustment.time_bands:
            if name not in book.time_bands:
                yield CatalogFinding(
                    book.file,
                    adjustment.line,
                    f"adjustments[{index}].time_band",
                    f"is {name!r}; write one of {', '.join(book.time_bands) or 'time_bands, which has none'}",
                )


def _prices(book: PriceBook) -> Iterator[CatalogFinding]:
    """Find prices that factors may raise beyond all bounds, and coefficients that do not fit the prices."""
    factor, digits = 1, 0
    raising = [a.multiply_pico for a in book.adjustments if a.multiply_pico > _ONE_PICO]
    counted = raising if book.stacking == STACKING[0] else sorted(raising)[-1:]
    for multiply_pico in [*counted, *_period_factors(book)]:
        factor, digits = factor * multiply_pico, digits + PICO_DIGITS
    greatest = MAX_BALANCE * 10**digits // factor
    for name, rule in book.periods.items():
        if (
            max([rule.block_price_pico, *(price for tier in rule.tiers for price in tier.price_pico.values())])
            > greatest
        ):
            yield CatalogFinding(
                book.file,
                rule.line,
                f"periods.{name}",
                f"may exceed {_GREATEST_PRICE} after the adjustments; lower the price or the factors",
            )
    for row in book.rows:
        prices, coefficients = row.price_pico, row.coefficient_micro
        if max(prices.values()) > greatest:
            yield CatalogFinding(
                book.file,
                row.line,
                f"rows[{row.index}].per_million",
                f"may exceed {_GREATEST_PRICE} after the adjustments; lower the price or the factors",
            )
        useless = [m for m in coefficients if m not in prices and not (m == "reasoning" and "output" in prices)]
        if useless:
            yield CatalogFinding(
                book.file,
                row.line,
                f"rows[{row.index}].standard_tokens",
                f"has {', '.join(useless)}, which the row does not price, so such an event is rejected; price it",
                WARNING,
            )
        yield from _increments(book, row)
        if book.currency in row.units:
            yield CatalogFinding(
                book.file,
                row.line,
                f"rows[{row.index}].units.{book.currency}",
                "is the book's currency: a bucket of it burns the price; remove it here",
            )
        missing = [meter for meter in prices if meter not in coefficients]
        if missing and any(coefficients.values()):
            yield CatalogFinding(
                book.file,
                row.line,
                f"rows[{row.index}].standard_tokens",
                f'lacks {", ".join(missing)}: priced, but it uses up no standard tokens; write a number, or "0"',
                WARNING,
            )


def _increments(book: PriceBook, row: PriceRow) -> Iterator[CatalogFinding]:
    """Find increments of meters that the row does not price, and minimums that the step raises again."""
    priced = {*row.price_pico, *(("reasoning",) if "output" in row.price_pico else ())}
    for meter, (minimum, step) in row.increments.items():
        where = f"rows[{row.index}].increments.{meter}"
        if meter not in priced:
            message = "is of a meter that the row does not price, so such an event is rejected; price it"
            yield CatalogFinding(book.file, row.line, where, message, WARNING)
        if minimum % step:
            message = (
                f"has a minimum of {minimum} that is no whole number of steps: the least that is billed is "
                f"{-(-minimum // step) * step}; write that as the minimum"
            )
            yield CatalogFinding(book.file, row.line, where, message, WARNING)


def _period_factors(book: PriceBook) -> list[int]:
    """Return the greatest factor of a tier and the greatest of a commitment, each only if it raises a price."""
    tiers = [tier.multiply_pico for rule in book.periods.values() for tier in rule.tiers]
    commitments = [max(rule.multiply_pico, rule.overflow_pico) for rule in book.periods.values()]
    return [max(factors) for factors in (tiers, commitments) if factors and max(factors) > _ONE_PICO]


def _adjustments(book: PriceBook) -> Iterator[CatalogFinding]:
    """Find adjustments of models that no row prices, probably misspelled."""
    models = {row.model for row in book.rows}
    for index, adjustment in enumerate(book.adjustments):
        wanted = adjustment.scope.get("model", ())
        useless = [pattern for pattern in wanted if not any(_meet(pattern, model) for model in models)]
        if useless:
            yield CatalogFinding(
                book.file,
                adjustment.line,
                f"adjustments[{index}].model",
                f"has {', '.join(useless)}, which no row prices; correct or remove it",
                WARNING,
            )


def _meet(one: str, two: str) -> bool:
    """Return True if some text matches both patterns."""
    return pattern_matches(one, two.rstrip(ANY)) or pattern_matches(two, one.rstrip(ANY))
