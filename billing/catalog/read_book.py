"""Reader of the YAML of ``kind: price_book`` into a :class:`PriceBook`."""

import re
from functools import lru_cache

from billing.catalog.model import (
    ABOVE_COMMITMENT,
    ALL_DAY_MINUTES,
    DAYS,
    MINIMUM_CHARGE,
    REQUEST,
    STACKING,
    STD_TOKEN,
    TEXT_DIMENSIONS,
    Adjustment,
    PriceBook,
    PriceRow,
    TimeBand,
)
from billing.catalog.nodes import Items, Node, is_null
from billing.catalog.patterns import ANY
from billing.catalog.period_rules import BLOCKS_LINE
from billing.catalog.read_common import (
    check_pattern,
    is_meter_name,
    read_currency,
    read_name,
    read_scope,
    read_timezone,
)
from billing.catalog.read_periods import read_periods
from billing.catalog.source import MAX_BALANCE, MAX_INT64, Fields
from schemas.fields import MAX_TEXT_BYTES
from schemas.meters import METERS
from schemas.units import MICRO_DIGITS, MILLION, PICO_DIGITS, InexactError, divide_half_even, parse_micro
from schemas.usage import OUTCOMES

BOOK_REQUIRED = ("kind", "name", "version", "currency", "effective_from", "rows")
BOOK_OPTIONAL = (
    "tax_rate",
    "standard_token_price",
    "time_bands",
    "stacking",
    "adjustments",
    "periods",
    "meters",
    "dimensions",
)
_ROW_OPTIONAL = (
    *TEXT_DIMENSIONS,
    "time_band",
    "context",
    "output_context",
    "outcome",
    "standard_tokens",
    "units",
    MINIMUM_CHARGE,
    "increments",
    "periods",
    "unmetered",
)
_ADJUSTMENT_OPTIONAL = (*TEXT_DIMENSIONS, "time_band", "context", "output_context", "meters")
_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d:[0-5]\d|2[0-3]:[0-5]\d|24:00)", re.ASCII)
_BUILT_IN = frozenset(METERS)
_COMPLETED = OUTCOMES[:1]
_FLAG = ("false", "true")
_PER_UNIT = " per million (1e-12 per unit)"
_LINES = {MINIMUM_CHARGE: "a minimum charge", BLOCKS_LINE: "blocks", ABOVE_COMMITMENT: "what lies above a commitment"}
_DEFAULT_TAX_RATE = {"CNY": "0.06"}
_ATTRIBUTES = "attributes."
MAX_DIMENSIONS = 8
"""Greatest number of dimensions that a book declares."""
MAX_INCREMENT = 10**15
"""Greatest minimum and greatest step of an increment, in units of the meter."""


def read_price_book(fields: Fields) -> PriceBook:
    """Read a price book from fields whose keys were checked.

    Holidays are filled in later, after every file was read.
    """
    currency = read_currency(fields)
    tax_rate_micro = parse_micro(_DEFAULT_TAX_RATE.get(currency, "0"))
    if "tax_rate" in fields:
        tax_rate_micro = read_tax_rate(fields)
    standard_price = None
    if "standard_token_price" in fields:
        standard_price = fields.scaled("standard_token_price", PICO_DIGITS, positive=True, maximum=MAX_BALANCE)
    meters = _read_meters(fields)
    dimensions = _read_dimensions(fields)
    bands = _read_bands(fields)
    known = _BUILT_IN | frozenset(meters)
    periods = read_periods(fields, known, lambda tier, key: _read_prices(tier, key, known))
    rows = tuple(
        _read_row(fields, node, name, index, known, standard_price, tuple(dimensions))
        for index, (node, name) in enumerate(fields.items("rows"))
    )
    if not rows and not fields.failed:
        fields.fail("rows", "is empty; a price book needs at least one row")
    return PriceBook(
        name=read_name(fields),
        version=fields.integer("version", 1),
        currency=currency,
        tax_rate_micro=tax_rate_micro,
        effective_from_us=fields.instant("effective_from"),
        standard_token_price_pico_per_million=standard_price,
        time_bands=bands,
        rows=rows,
        adjustments=tuple(
            _read_adjustment(fields, node, name, known, tuple(dimensions)) for node, name in fields.items("adjustments")
        ),
        meters=meters,
        stacking=fields.choice("stacking", STACKING, STACKING[0]),
        periods=periods,
        dimensions=dimensions,
        file=fields.source.file,
        line=fields.node.line,
    )


def read_tax_rate(fields: Fields) -> int:
    """Read a tax rate such as "0.06" in 1e-6, at most 1."""
    return fields.scaled("tax_rate", MICRO_DIGITS, maximum=MILLION)


def _read_meters(fields: Fields) -> tuple[str, ...]:
    meters: list[str] = []
    for node, name in fields.items("meters"):
        meter = fields.text_of(node, name)
        if meter and not is_meter_name(meter):
            fields.fail_at(node, name, f"is {meter!r}; write small letters, digits and '_'")
        elif meter in _LINES:
            fields.fail_at(node, name, f"is {meter!r}, the name of the line of {_LINES[meter]}; take another name")
        elif meter in _BUILT_IN or meter in meters:
            fields.fail_at(node, name, f"is {meter!r}, which exists already; remove it")
        meters.append(meter)
    return tuple(sorted(meters))


def _read_dimensions(fields: Fields) -> dict[str, str]:
    """Read the declared dimensions: the attribute of each name."""
    if "dimensions" not in fields:
        return {}
    places = fields.mapping("dimensions")
    if len(places) > MAX_DIMENSIONS:
        fields.fail("dimensions", f"has {len(places)} dimensions; declare at most {MAX_DIMENSIONS}")
    dimensions: dict[str, str] = {}
    for name in places:
        place = places.text(name)
        attribute = place.removeprefix(_ATTRIBUTES)
        if not is_meter_name(name):
            places.fail(name, "is not a name of a dimension; write small letters, digits and '_'")
        elif name in (*_ROW_OPTIONAL, *_ADJUSTMENT_OPTIONAL, "per_million", "multiply", "reason"):
            places.fail(name, "is the name of another key of rows or adjustments; take another name")
        elif place and (attribute == place or not attribute or len(attribute.encode()) > MAX_TEXT_BYTES):
            places.fail(name, f"is {place!r}; write {_ATTRIBUTES} and the name of an attribute of the event's data")
        elif attribute in dimensions.values():
            places.fail(name, f"is {place!r}, which another dimension has; declare each attribute once")
        else:
            dimensions[name] = attribute
    return dimensions


def _read_bands(fields: Fields) -> dict[str, TimeBand]:
    if "time_bands" not in fields:
        return {}
    bands = fields.mapping("time_bands")
    return {name: _read_band(bands, name) for name in bands}


def _read_band(bands: Fields, name: str) -> TimeBand:
    fields = bands.mapping(name, ("timezone", "days", "hours"), ("except",))
    if not is_meter_name(name):
        bands.fail(name, "is not a name of a time band; write small letters, digits and '_'")
    days: set[int] = set()
    for node, key in fields.items("days"):
        day = fields.text_of(node, key)
        if day and (day not in DAYS or DAYS.index(day) in days):
            fields.fail_at(node, key, f"is {day!r}; write each of {', '.join(DAYS)} at most once")
        elif day:
            days.add(DAYS.index(day))
    hours = [_read_hours(fields, node, key) for node, key in fields.items("hours")]
    for key, values in (("days", days), ("hours", hours)):
        if key in fields and not values and not fields.failed:
            fields.fail(key, "is empty; without one the band never applies")
    return TimeBand(
        name=name,
        timezone=read_timezone(fields),
        days=tuple(sorted(days)),
        hours=tuple(sorted(hours)),
        excepts=fields.text("except") or None,
        line=fields.node.line,
    )


def _read_hours(fields: Fields, node: Node, key: str) -> tuple[int, int]:
    text = fields.text_of(node, key)
    match = _HOURS.fullmatch(text)
    if match is None:
        if text:
            fields.fail_at(node, key, f'is {text!r}; write local times such as "09:00-12:00"')
        return (0, ALL_DAY_MINUTES)
    end_hour, end_minute = match.group(3).split(":")
    start, end = int(match.group(1)) * 60 + int(match.group(2)), int(end_hour) * 60 + int(end_minute)
    if start == end:
        fields.fail_at(node, key, f'is {text!r}, which may mean nothing or a whole day; write "00:00-24:00" for a day')
    return (start, end)


def _read_row(
    book: Fields,
    node: Node,
    path: str,
    index: int,
    known: frozenset[str],
    standard_price: int | None,
    dimensions: tuple[str, ...],
) -> PriceRow:
    fields = Fields(book.source, node, path, ("per_million",), (*_ROW_OPTIONAL, *dimensions))
    prices = _read_prices(fields, "per_million", known)
    coefficients = _read_by_meter(fields, "standard_tokens", known)
    if "per_million" in fields and not prices and not fields.failed:
        fields.fail("per_million", 'prices no meter; write at least one, "0" where it is free')
    stated = None
    if standard_price:
        stated = frozenset(coefficients)
        for meter, price in prices.items():
            if meter not in coefficients:
                coefficients[meter] = divide_half_even(price * MILLION * MILLION, standard_price)
    patterns = {
        key: check_pattern(fields, key, fields.text(key, ANY)) if key in fields else ANY
        for key in (*TEXT_DIMENSIONS, *dimensions)
    }
    declared = tuple(patterns.pop(name) for name in dimensions)
    time_band = fields.text("time_band", ANY)
    return PriceRow(
        index=index,
        **patterns,
        outcome=_read_outcomes(fields),
        time_band=None if time_band == ANY else time_band,
        context=_read_band_of_tokens(fields, "context"),
        output_context=_read_band_of_tokens(fields, "output_context"),
        price_pico=prices,
        coefficient_micro=coefficients,
        units=_read_units(fields, known),
        minimum_charge_pico=fields.scaled(MINIMUM_CHARGE, PICO_DIGITS, maximum=MAX_BALANCE),
        increments=_read_increments(fields, known),
        periods=fields.texts("periods"),
        unmetered=fields.choice("unmetered", _FLAG, _FLAG[0]) == "true",
        stated=stated,
        declared=declared,
        line=node.line,
    )


def _read_prices(fields: Fields, key: str, known: frozenset[str]) -> dict[str, int]:
    """Read prices per million by meter, as pico per unit."""
    return _read_by_meter(fields, key, known, MAX_BALANCE, " per million (1e-12 per unit)")


def _read_by_meter(
    fields: Fields, key: str, known: frozenset[str], maximum: int = MAX_INT64, unit: str = ""
) -> dict[str, int]:
    """Read decimals with six places by meter: prices per million as pico per unit, or coefficients in micro."""
    if key not in fields:
        return {}
    by_meter = fields.mapping(key)
    values: dict[str, int] = {}
    for meter in by_meter:
        if meter not in known:
            by_meter.fail(meter, "is not a meter; declare it in 'meters' of the book, or correct the name")
        value = _plain_micro(getattr(by_meter.where(meter), "value", None))
        if value is None or value > maximum:
            value = by_meter.scaled(meter, MICRO_DIGITS, unit=unit, maximum=maximum)
        values[meter] = value
    return values


@lru_cache(maxsize=65_536)
def _plain_micro(text: str | None) -> int | None:
    """Return a well-formed number in micro, cached because prices repeat.

    None for any other text: the slower :meth:`Fields.scaled` reads it and reports the error.
    """
    try:
        value = parse_micro(text or "")
    except InexactError:
        return None
    return value if value >= 0 else None


def _read_outcomes(fields: Fields) -> tuple[str, ...]:
    if "outcome" not in fields:
        return _COMPLETED
    outcomes = fields.texts("outcome")
    for outcome in outcomes:
        if outcome and outcome not in OUTCOMES:
            fields.fail("outcome", f"is {outcome!r}; write one or a list of {', '.join(OUTCOMES)}")
    return tuple(outcome for outcome in OUTCOMES if outcome in outcomes)


def _read_band_of_tokens(fields: Fields, key: str) -> tuple[int, int | None] | None:
    if key not in fields or getattr(fields.where(key), "value", None) == ANY:
        return None
    ends = fields.items(key)
    if len(ends) != 2:
        if isinstance(fields.where(key), Items):
            fields.fail(key, "is not two numbers; write [from, to] with the end excluded, null for open")
        return None
    (low_node, low_name), (high_node, high_name) = ends
    low = fields.integer_of(low_node, low_name, 0)
    if is_null(high_node):
        return (low, None)
    return (low, fields.integer_of(high_node, high_name, low + 1))


def _read_increments(fields: Fields, known: frozenset[str]) -> dict[str, tuple[int, int]]:
    """Read the minimum and the step of meters; a minimum that is left out is 0, a step 1."""
    if "increments" not in fields:
        return {}
    by_meter = fields.mapping("increments")
    increments: dict[str, tuple[int, int]] = {}
    for meter in by_meter:
        if meter not in known:
            by_meter.fail(meter, "is not a meter; declare it in 'meters' of the book, or correct the name")
        increment = by_meter.mapping(meter, (), ("minimum", "step"))
        if not len(increment) and not increment.failed:
            by_meter.fail(meter, "is empty; write minimum, step or both")
        increments[meter] = (
            increment.integer("minimum", 1, 0, MAX_INCREMENT),
            increment.integer("step", 1, 1, MAX_INCREMENT),
        )
    return increments


def _read_units(fields: Fields, known: frozenset[str]) -> dict[str, dict[str, int]]:
    if "units" not in fields:
        return {}
    units = fields.mapping("units")
    for unit in units:
        if unit in (STD_TOKEN, REQUEST):
            units.fail(unit, "is a unit with a rule of its own; remove it here")
    return {unit: _read_by_meter(units, unit, known) for unit in units}


def _read_adjustment(
    book: Fields, node: Node, path: str, known: frozenset[str], dimensions: tuple[str, ...]
) -> Adjustment:
    fields = Fields(book.source, node, path, ("multiply", "reason"), (*_ADJUSTMENT_OPTIONAL, *dimensions))
    time_bands = fields.texts("time_band")
    meters = fields.texts("meters")
    for meter in meters:
        if meter and meter not in known:
            fields.fail("meters", f"has {meter!r}, not a meter; declare it in 'meters' of the book, or correct it")
    return Adjustment(
        scope=read_scope(fields, (*TEXT_DIMENSIONS, *dimensions)),
        multiply_pico=fields.scaled("multiply", PICO_DIGITS),
        reason=fields.text("reason"),
        time_bands=() if time_bands == (ANY,) else time_bands,
        context=_read_band_of_tokens(fields, "context"),
        output_context=_read_band_of_tokens(fields, "output_context"),
        meters=meters,
        line=node.line,
    )
