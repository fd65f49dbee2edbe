"""Importer of LiteLLM's price map as one price book ``litellm`` in US dollars, with a list of the fields left out.

Pure: text in, values out. A key becomes rows of ``model: KEY``: one for any service tier, and one for each tier,
off-peak band and prompt size with different prices. Every price field of every key is either in a row or in the list,
and the list also names the fields that the importer does not know, whatever table they are in.

Meaning of "0": a key whose prices are all 0 is not imported. A 0 for tokens beside a price for something else (a rerank
model priced per query) is not a price either. A 0 beside a price of its own kind is one: the output of an embedding, a
cache that is free to read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from billing.catalog.importers.litellm_hours import HoursError, off_peak_bands
from billing.catalog.importers.litellm_rates import Rates, batch_rates, multiplied, sizes, standard_rates
from billing.catalog.importers.litellm_source import TIER_SUFFIXES, Entry, as_price, read_price_map
from billing.catalog.importers.litellm_tables import note_tiers, unknown_fields
from billing.catalog.importers.litellm_units import Units, batch_unit_prices, unit_prices
from billing.catalog.importers.values import (
    ROUNDED_AT_MOST,
    BandText,
    BookText,
    LeftOut,
    RoundedPrice,
    RowText,
    halved,
    nearest_price,
)
from billing.catalog.patterns import ANY
from schemas.fields import show
from schemas.meters import METERS

BOOK = "litellm"
LITELLM_CURRENCY = "USD"
DEFAULT_EFFECTIVE_FROM = "1970-01-01T00:00:00Z"

TEMPLATE = "a template or a rule, not a model"
NO_PRICE = "the key has no price"
ALL_ZERO = "every price of the key is 0, which means unknown, not free"
ZERO = "0 beside a price of another kind means unknown, not free"
TOO_FINE = "finer than 1e-12 per unit, and rounding would change it by more than is allowed"
NOT_EXACT = "the key is not the exact name of one model"
NO_DIMENSION = "depends on what no usage event tells"
OTHER_UNIT = "in a unit of account that is not money"
BAD_HOURS = "off-peak hours that no time band expresses"
NOT_A_PRICE = "not a number of at least 0"
UNKNOWN = "a price field that this importer does not know"
UNKNOWN_FIELD = "a field that this importer does not know"
_TEMPLATES = ("sample_spec", "fallback_generalizations")
_UNTOLD = {
    "regional_": "the region of the provider's host",
    "provider_specific_entry": "the region or the options of the request",
    "search_free_requests": "a free allowance shared by a group of models",
    "input_cost_per_video_per_second_above_": "the interval between frames",
    "tiered_pricing": "the number of results asked for",
    "computer_use_": "the tool that used the tokens",
}
_RANK = {meter: rank for rank, meter in enumerate(METERS)}
_FAST = "fast"
_NO_BLOCK: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Imported:
    """Result of an import: the book, the fields left out, and how much of the source was imported.

    ``keys`` counts all keys of the source. ``imported_fields`` counts the price fields expressed by rows.
    """

    book: BookText | None
    left_out: tuple[LeftOut, ...]
    rounded: tuple[RoundedPrice, ...]
    keys: int
    imported_keys: int
    imported_fields: int


@dataclass(slots=True)
class _Bands:
    """Time bands of the book, numbered in the order in which they are found."""

    names: dict[BandText, str] = field(default_factory=dict)

    def name(self, band: BandText) -> str:
        return self.names.setdefault(band, f"off_peak_{len(self.names) + 1}")


def import_price_map(
    text: str,
    effective_from: str = DEFAULT_EFFECTIVE_FROM,
    version: int = 1,
    rounded_at_most: Decimal = ROUNDED_AT_MOST,
) -> Imported:
    """Import a price map as one version of the book. Prices are rounded by at most ``rounded_at_most`` of themselves.

    Raises:
        SourceError: the text is not a price map.
    """
    source = read_price_map(text)
    bands = _Bands()
    rows: list[RowText] = []
    left_out: list[LeftOut] = []
    rounded: list[RoundedPrice] = []
    imported_keys = imported_fields = 0
    for key, fields in source.items():
        entry = Entry(key, fields, rounded_at_most)
        found = _rows(entry, bands)
        names = entry.price_fields()
        if found:
            imported_keys += 1
            missing = {out.field.partition(".")[0] for out in entry.left_out}
            imported_fields += sum(name not in missing for name in names)
            rounded += entry.rounded
        rows += found
        left_out += entry.left_out
    meters = {meter for row in rows for meter, _ in row.per_million} - set(METERS)
    book = BookText(
        name=BOOK,
        version=version,
        currency=LITELLM_CURRENCY,
        effective_from=effective_from,
        rows=tuple(rows),
        meters=tuple(sorted(meters)),
        time_bands={name: band for band, name in bands.names.items()},
        comments=(
            "Made by 'tokenbill catalog import-litellm' from LiteLLM's price map, by the rules of LiteLLM 1.109.1.",
            "US dollars per million units, without tax. What could not be expressed is in litellm-left-out.txt.",
        ),
    )
    return Imported(
        book if rows else None, tuple(left_out), tuple(rounded), len(source), imported_keys, imported_fields
    )


def _rows(entry: Entry, bands: _Bands) -> list[RowText]:
    """Return the rows of a key, and record in the entry the fields left out."""
    names = entry.price_fields()
    if entry.key in _TEMPLATES:
        entry.leave_out("*", TEMPLATE)
        return []
    if not names:
        entry.leave_out("*", NO_PRICE)
        return []
    if ANY in entry.key or entry.key != entry.key.strip() or not entry.key.isprintable() or not entry.key:
        entry.leave_out("*", NOT_EXACT, ", ".join(names))
        return []
    _note_untold(entry)
    note_tiers(entry)
    units, batch_units = unit_prices(entry), batch_unit_prices(entry)
    sets = _token_sets(entry, bands)
    tokens = any(price for rates_by_size in sets.values() for _, rates in rates_by_size for price in rates.values())
    others = any(price for _, price in (*units.values(), *batch_units.values()))
    _note_unread(entry, bool(tokens or others))
    if not tokens and not others:
        known = [name for name in names if name not in {out.field for out in entry.left_out}]
        if known:
            entry.leave_out(", ".join(known), ALL_ZERO)
        return []
    if not tokens:
        sets = {_ANY_TIER: [(0, {})]}
        for name in _zero_fields(entry, units):
            entry.leave_out(name, ZERO)
    if batch_units and _BATCH not in sets:
        sets[_BATCH] = sets[_ANY_TIER]
    return _write(entry, sets, _without_zero(entry, units), _without_zero(entry, batch_units))


@dataclass(frozen=True, slots=True)
class _Kind:
    """Events that a set of prices applies to: a service tier or any, and a time band or any time."""

    service_tier: str = ANY
    time_band: str = ""


_ANY_TIER = _Kind()
_BATCH = _Kind("batch")
_Sizes = list[tuple[int, Rates]]
"""Prices by the prompt size at which they begin, ascending from 0."""


def _token_sets(entry: Entry, bands: _Bands) -> dict[_Kind, _Sizes]:
    """Return the token prices of each kind of event that has its own prices."""
    starts = (0, *sizes(entry))
    suffixes = {ANY: ""}
    for suffix in TIER_SUFFIXES:
        if any(name.endswith(suffix) for name in entry.prices):
            suffixes[suffix[1:]] = suffix
    if "priority" in suffixes:
        suffixes[_FAST] = suffixes["priority"]
    fast = _fast_factor(entry)
    block = entry.raw("off_peak_pricing")
    hours: tuple[str, ...] = ()
    if isinstance(block, Mapping):
        try:
            hours = tuple(bands.name(band) for band in off_peak_bands(block))
        except HoursError as error:
            entry.leave_out("off_peak_pricing", BAD_HOURS, str(error))
    sets: dict[_Kind, _Sizes] = {}
    for tier, suffix in suffixes.items():
        sets[_Kind(tier)] = [(low, standard_rates(entry, suffix, low or 1, _NO_BLOCK)) for low in starts]
        for band in hours:
            sets[_Kind(tier, band)] = [(low, standard_rates(entry, suffix, low or 1, block)) for low in starts]
    if fast is not None:
        sets[_Kind(_FAST)] = [(low, multiplied(rates, fast)) for low, rates in sets[_ANY_TIER]]
    batch = [(low, batch_rates(entry, low or 1)) for low in starts]
    kept = [(low, rates) for low, rates in batch if rates is not None]
    for band in ("", *hours) if kept else ():  # batch prices have no off-peak hours
        sets[_Kind(_BATCH.service_tier, band)] = kept
    return {kind: sets[kind] for kind in sets if not _same_as_wider(kind, sets)}


def _same_as_wider(kind: _Kind, sets: Mapping[_Kind, _Sizes]) -> bool:
    """Return True if the prices of a service tier are those of any tier at every hour, so that its rows add nothing."""
    if kind.service_tier == ANY:
        return False
    tier = {other.time_band: prices for other, prices in sets.items() if other.service_tier == kind.service_tier}
    wide = {other.time_band: prices for other, prices in sets.items() if other.service_tier == ANY}
    return tier == wide


def _fast_factor(entry: Entry) -> Decimal | None:
    """Return Anthropic's factor for ``speed: fast``, which is the service tier ``fast`` of an event."""
    specific = entry.fields.get("provider_specific_entry")
    if entry.provider != "anthropic" or not isinstance(specific, Mapping):
        return None
    return as_price(specific.get(_FAST))


def _write(entry: Entry, sets: Mapping[_Kind, _Sizes], units: Units, batch_units: Units) -> list[RowText]:
    """Return the rows of a key.

    If any kind of event has context bands, every kind gets them, so that no row wins only by fixing one more dimension.
    """
    merged = {kind: _merge(prices) for kind, prices in sets.items()}
    sized = any(len(prices) > 1 for prices in merged.values())
    reported: set[str] = set()
    rows: list[RowText] = []
    for kind, prices in merged.items():
        others = units | batch_units if kind.service_tier == _BATCH.service_tier else units
        ends = [low for low, _ in prices[1:]] + [None]
        for (low, rates), high in zip(prices, ends, strict=True):
            by_meter = _texts(entry, rates, others, reported)
            if not by_meter:  # without this row a wider one would price its events wrongly
                entry.leave_out("*", TOO_FINE, f"no price of the service tier {kind.service_tier!r} is left")
                return []
            dimensions = [("model", entry.key)]
            if kind.service_tier != ANY:
                dimensions.append(("service_tier", kind.service_tier))
            if kind.time_band:
                dimensions.append(("time_band", kind.time_band))
            rows.append(RowText(tuple(dimensions), by_meter, (low, high) if sized else None))
    return rows


def _merge(prices: _Sizes) -> _Sizes:
    """Join neighbouring sizes with the same prices."""
    return [(low, rates) for i, (low, rates) in enumerate(prices) if i == 0 or rates != prices[i - 1][1]]


def _texts(entry: Entry, rates: Rates, units: Units, reported: set[str]) -> tuple[tuple[str, str], ...]:
    """Return the prices of a row as text. A price that is too fine is reported once and left out."""
    texts: dict[str, str] = {}
    fine: list[str] = []
    for meter, price in rates.items():
        if price is None:
            continue
        found = nearest_price(price, entry.rounded_at_most)
        if found is None:
            fine.append(meter)
            continue
        texts[meter] = found[0]
        if found[1]:
            for name in _fields_of(entry, price):
                entry.note_rounded(name, price, *found)
    if "reasoning" in fine:
        texts.pop("output", None)  # else reasoning would be charged as output
    elif texts.get("reasoning") == texts.get("output"):
        texts.pop("reasoning", None)
    for price in sorted({price for meter in fine if (price := rates[meter]) is not None}):
        for name in _fields_of(entry, price):
            _report(entry, name, str(price), reported)
    for meter, (name, price) in units.items():
        found = nearest_price(price, entry.rounded_at_most)
        if found is None:
            _report(entry, name, f"{price} per unit of {meter}", reported)
            continue
        texts[meter] = found[0]
        if found[1]:
            entry.note_rounded(name, price, *found)
    return tuple(sorted(texts.items(), key=lambda item: (_RANK.get(item[0], len(METERS)), item[0])))


def _fields_of(entry: Entry, price: Decimal) -> list[str]:
    """Return the fields that a token price comes from: its own, or those of which it is half in a batch."""
    whole = [name for name, value in entry.prices.items() if value == price]
    halves = [name for name, value in entry.prices.items() if halved(value) == price]
    return whole or [f"half of {name} in a batch" for name in halves] or ["tokens"]


def _report(entry: Entry, name: str, detail: str, reported: set[str]) -> None:
    if name not in reported:
        reported.add(name)
        entry.leave_out(name, TOO_FINE, detail)


def _note_untold(entry: Entry) -> None:
    """Record the fields that depend on data that no usage event carries."""
    for name in entry.price_fields():
        for start, detail in _UNTOLD.items():
            if name.startswith(start) and not (name == "tiered_pricing" and _has_ranges(entry)):
                entry.leave_out(name, NO_DIMENSION, detail)
        if name.endswith("_decisions"):
            entry.leave_out(name, NO_DIMENSION, "the endpoint that was called")
        elif "_dbu_" in name:
            entry.leave_out(name, OTHER_UNIT, "Databricks units")


def _has_ranges(entry: Entry) -> bool:
    table = entry.fields.get("tiered_pricing")
    return isinstance(table, list) and any(isinstance(tier, Mapping) and "range" in tier for tier in table)


def _note_unread(entry: Entry, priced: bool) -> None:
    """Record every price field that was not read, so that none is dropped silently."""
    for name in entry.unread():
        value = entry.fields[name]
        if name in entry.prices:
            if priced or entry.prices[name]:
                entry.leave_out(name, UNKNOWN, str(value))
        elif isinstance(value, Mapping | list):
            entry.leave_out(name, UNKNOWN, "a table")
        else:
            entry.leave_out(name, NOT_A_PRICE, show(value))
    for name, value in unknown_fields(entry):
        entry.leave_out(name, UNKNOWN_FIELD, value)


def _zero_fields(entry: Entry, units: Units) -> Iterable[str]:
    """Return the token fields with a price of 0 in a key whose tokens have no price."""
    of_units = {name for name, _ in units.values()}
    listed = {out.field for out in entry.left_out}
    return [
        name
        for name, price in entry.prices.items()
        if not price
        and "_token" in name
        and name not in of_units
        and name not in listed
        and name in entry.price_fields()
    ]


def _without_zero(entry: Entry, units: Units) -> Units:
    """Return the prices that are not zero, and record the others."""
    for name, price in units.values():
        if not price:
            entry.leave_out(name, ZERO)
    return {meter: (name, price) for meter, (name, price) in units.items() if price}
