"""Importer of a finance office's price sheet as versions of one price book.

Pure: cells in, values out. The first row holds headers, in English or Chinese. A sheet has either one price per row
(columns meter and price) or one column per meter; ``examples/price-lists`` shows both. Every date on which a price
begins makes a version of the book, and a version holds every price in force then: a price that begins later replaces
the earlier one of the same model, dimensions, context band and meter. Nothing is rounded, converted or guessed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal

from billing.catalog.importers import sheet_columns as columns
from billing.catalog.importers.sheet_cells import BadCell, Sheet, SheetError, SheetProblem
from billing.catalog.importers.sheet_columns import SheetColumn, Unit
from billing.catalog.importers.values import BookText, RowText, plain, times
from billing.catalog.model import TEXT_DIMENSIONS
from billing.catalog.timebands import zone_of
from schemas.meters import METERS
from schemas.times import parse_time_us
from schemas.units import MICRO_DIGITS, MILLION

_NUMBER = re.compile(r"(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", re.ASCII)
_COUNT = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_DATE = re.compile(r"([0-9]{4})[-/年]([0-9]{1,2})[-/月]([0-9]{1,2})日?", re.ASCII)
_RANK = {meter: rank for rank, meter in enumerate(METERS)}
Dimensions = tuple[tuple[str, str], ...]
SheetContext = tuple[int, int | None] | None


@dataclass(frozen=True, slots=True)
class SheetOptions:
    """Settings that a sheet does not contain.

    Dates in the sheet begin at midnight in ``timezone``; ``effective_from`` applies to rows without a date.
    """

    name: str
    version: int = 1
    currency: str = ""
    effective_from: str = ""
    timezone: str = "Asia/Shanghai"
    tax_rate: str = ""


@dataclass(frozen=True, slots=True)
class _Price:
    """One price and the row it is from."""

    dimensions: Dimensions
    context: SheetContext
    meter: str
    per_million: str
    effective_from: str
    source: str
    row: int


@dataclass(slots=True)
class _Reader:
    """Sheet being read, and the errors and currencies found in it."""

    sheet: Sheet
    options: SheetOptions
    errors: list[SheetError] = field(default_factory=list)
    currencies: set[str] = field(default_factory=set)

    def fail(self, row: int, column: int | None, message: str) -> None:
        self.errors.append(SheetError(self.sheet.name, row, column, message))


def import_sheet(sheet: Sheet, options: SheetOptions) -> tuple[BookText, ...]:
    """Return the versions of a book, oldest first.

    Raises:
        SheetProblem: with every error, by row and column.
    """
    reader = _Reader(sheet, options)
    prices: list[_Price] = []
    if not sheet.rows:
        reader.fail(1, None, "the sheet is empty; the first row holds the headers")
    else:
        known = _headers(reader)
        if not reader.errors:
            for number, cells in sheet.rows[1:]:
                texts = _texts(reader, number, cells, known)
                prices += _row_prices(reader, number, texts, known)
            if not prices and not reader.errors:
                reader.fail(sheet.rows[0][0], None, "there is no price below the headers")
    _check_twice(reader, prices)
    currency = _currency(reader)
    if reader.errors:
        raise SheetProblem(sorted(reader.errors, key=lambda error: (error.row, error.column or 0)))
    return tuple(_versions(options, currency, prices))


def _headers(reader: _Reader) -> tuple[SheetColumn, ...]:
    """Return the columns by their headers, and record every error."""
    number, cells = reader.sheet.rows[0]
    found: list[SheetColumn] = []
    for index, cell in enumerate(cells):
        if isinstance(cell, BadCell):
            reader.fail(number, index, cell.problem)
        elif cell:
            column = columns.read_header(index, cell)
            if isinstance(column, str):
                reader.fail(number, index, column)
            elif any((c.role, c.meter) == (column.role, column.meter) and c.role != columns.SOURCE for c in found):
                reader.fail(number, index, f"the header {cell!r} means the same as one before; keep one")
            else:
                found.append(column)
    if not reader.errors:
        _check_columns(reader, number, found)
    return tuple(found)


def _check_columns(reader: _Reader, number: int, found: list[SheetColumn]) -> None:
    """Record missing and contradictory columns."""
    roles = {column.role for column in found}
    meters = [column for column in found if column.meter]
    if "model" not in roles:
        reader.fail(number, None, "there is no column 'model' (模型)")
    if {columns.METER, columns.PRICE} & roles and meters:
        reader.fail(
            number, meters[0].index, "prices are in a column of their own and in columns by meter; keep one way"
        )
    elif not meters and not {columns.METER, columns.PRICE} <= roles:
        reader.fail(number, None, "there are no prices: add columns 'meter' and 'price', or one column for each meter")
    price = next((column for column in found if column.role == columns.PRICE), None)
    if price is not None and (price.unit is None) != (columns.UNIT in roles):
        given = "in the header and in a column 'unit'" if price.unit else "nowhere"
        reader.fail(number, price.index, f"the unit of the price is said {given}; say once {columns.UNIT_HELP}")


def _texts(
    reader: _Reader, number: int, cells: tuple[str | BadCell, ...], known: tuple[SheetColumn, ...]
) -> dict[int, str]:
    """Return the text of each known column of a row. Content in any other cell is an error."""
    texts: dict[int, str] = {}
    indexes = {column.index for column in known}
    for index, cell in enumerate(cells):
        if isinstance(cell, BadCell):
            reader.fail(number, index, cell.problem)
        elif index in indexes:
            texts[index] = cell
        elif cell:
            reader.fail(number, index, f"is {cell!r}, but the column has no header")
    return texts


def _row_prices(
    reader: _Reader, number: int, texts: Mapping[int, str], known: tuple[SheetColumn, ...]
) -> Iterator[_Price]:
    """Yield the prices of a row."""
    by_role = {column.role: column for column in known if column.role}

    def text(role: str) -> str:
        return texts.get(by_role[role].index, "") if role in by_role else ""

    if not text("model"):
        message = "has no model; write it in every row (merged cells hold it only in the first), or * for any"
        reader.fail(number, by_role["model"].index, message)
        return
    if text(columns.CURRENCY):
        reader.currencies.add(columns.read_currency(text(columns.CURRENCY)))
    dimensions = tuple((name, text(name)) for name in TEXT_DIMENSIONS if text(name))
    context = _context(reader, number, by_role, text(columns.CONTEXT_FROM), text(columns.CONTEXT_TO))
    begins = _effective_from(reader, number, by_role, text(columns.EFFECTIVE_FROM))
    sources = [texts.get(c.index, "") for c in known if c.role == columns.SOURCE]
    source = "; ".join(" ".join(filter(str.isprintable, s.split())) for s in sources if s)
    if columns.METER in by_role:
        meter = columns.read_meter(text(columns.METER))
        if meter is None:
            shown = text(columns.METER)
            reader.fail(number, by_role[columns.METER].index, f"is {shown!r}; write a meter such as input or 输入")
            return
        priced = [(by_role[columns.PRICE], meter, _unit(reader, number, by_role, text(columns.UNIT)))]
    else:
        priced = [(column, column.meter, column.unit) for column in known if column.meter]
    for column, meter, unit in priced:
        written = texts.get(column.index, "")
        if not written and column.meter:
            continue  # the model does not have this meter
        price = _per_million(reader, number, column, meter, written, unit)
        if price is not None:
            yield _Price(dimensions, context, meter, price, begins, source, number)


def _unit(reader: _Reader, number: int, by_role: Mapping[str, SheetColumn], text: str) -> Unit | None:
    in_header = by_role[columns.PRICE].unit
    if in_header is not None:
        return in_header
    unit = columns.read_unit(text)
    if unit is None:
        reader.fail(number, by_role[columns.UNIT].index, f"is {text!r}; write {columns.UNIT_HELP}")
    return unit


def _per_million(
    reader: _Reader, number: int, column: SheetColumn, meter: str, written: str, unit: Unit | None
) -> str | None:
    """Return a price in currency per million units; None, with an error recorded, if it is wrong."""
    if unit is None:
        return None
    if not _NUMBER.fullmatch(written):
        message = f"is {written!r}; write a number alone, such as 2.5, without separators or currency signs"
        reader.fail(number, column.index, message)
        return None
    if not unit.fits(meter):
        reader.fail(number, column.index, f"is a price per second, which {meter} does not count")
        return None
    reader.currencies.add(unit.currency)
    price = plain(times(Decimal(written), MILLION // unit.units))
    if len(price.partition(".")[2]) > MICRO_DIGITS:
        reader.fail(number, column.index, f"is {written!r}, finer than 1e-12 of the currency per unit")
        return None
    return price


def _context(
    reader: _Reader, number: int, by_role: Mapping[str, SheetColumn], low: str, high: str
) -> tuple[int, int | None] | None:
    """Return the context band of a row: from (included) to (excluded), open if "to" is empty."""
    if not low and not high:
        return None
    for role, text in ((columns.CONTEXT_FROM, low), (columns.CONTEXT_TO, high)):
        if text and not _COUNT.fullmatch(text):
            reader.fail(number, by_role[role].index, f"is {text!r}; write a number of tokens such as 32001")
            return None
    first, end = int(low or "0"), int(high) if high else None
    if end is not None and end <= first:
        reader.fail(number, by_role[columns.CONTEXT_TO].index, f"is {high}, not more than where the band begins")
    return (first, end)


def _effective_from(reader: _Reader, number: int, by_role: Mapping[str, SheetColumn], text: str) -> str:
    """Return the beginning of a row as RFC 3339. A date begins at midnight in the time zone of the sheet."""
    column = by_role[columns.EFFECTIVE_FROM].index if columns.EFFECTIVE_FROM in by_role else None
    if not text:
        if not reader.options.effective_from:
            reader.fail(number, column, "does not say when it begins; write a date, or give --effective-from")
        return reader.options.effective_from
    match = _DATE.fullmatch(text)
    try:
        if match is None:
            parse_time_us(text)
            return text
        day = date(*(int(part) for part in match.groups()))
    except ValueError:
        reader.fail(number, column, f"is {text!r}; write a date such as 2026-11-01 or a time with offset")
        return ""
    return datetime(day.year, day.month, day.day, tzinfo=zone_of(reader.options.timezone)).isoformat()


def _check_twice(reader: _Reader, prices: list[_Price]) -> None:
    first: dict[tuple[object, ...], int] = {}
    for price in prices:
        if not price.effective_from:
            continue
        key = (price.dimensions, price.context, price.meter, parse_time_us(price.effective_from))
        before = first.setdefault(key, price.row)
        if before != price.row:
            reader.fail(price.row, None, f"prices {price.meter} again for what row {before} prices from the same time")


def _currency(reader: _Reader) -> str:
    """Return the one currency of the sheet and the options."""
    found = reader.currencies | ({reader.options.currency} if reader.options.currency else set())
    if len(found) > 1:
        message = f"there are prices in {' and '.join(sorted(found))}; a book has one currency, so split the sheet"
        reader.fail(reader.sheet.rows[0][0] if reader.sheet.rows else 1, None, message)
    return next(iter(sorted(found)), "")


def _versions(options: SheetOptions, currency: str, prices: list[_Price]) -> Iterator[BookText]:
    """Yield a version for each time at which a price begins, with every price in force then."""
    begins = {parse_time_us(price.effective_from): price.effective_from for price in prices}
    for number, time_us in enumerate(sorted(begins)):
        rows: dict[tuple[Dimensions, SheetContext], dict[str, _Price]] = {}
        in_force = [price for price in prices if parse_time_us(price.effective_from) <= time_us]
        for price in sorted(in_force, key=lambda price: parse_time_us(price.effective_from)):
            rows.setdefault((price.dimensions, price.context), {})[price.meter] = price
        yield BookText(
            name=options.name,
            version=options.version + number,
            currency=currency,
            effective_from=begins[time_us],
            rows=tuple(_row(dimensions, context, found) for (dimensions, context), found in rows.items()),
            tax_rate=options.tax_rate,
            comments=("Made by 'tokenbill catalog import-sheet'.",) if number == 0 else (),
        )


def _row(dimensions: Dimensions, context: SheetContext, prices: Mapping[str, _Price]) -> RowText:
    by_meter = sorted(prices.values(), key=lambda price: _RANK[price.meter])
    comments = dict.fromkeys(price.source for price in by_meter if price.source)
    texts = tuple((price.meter, price.per_million) for price in by_meter)
    return RowText(dimensions, texts, context, comment="; ".join(comments))
