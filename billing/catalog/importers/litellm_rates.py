"""Price of one token of each kind as LiteLLM 1.109.1 bills it, with all its fallbacks, as exact decimals.

Follows ``generic_cost_per_token`` and ``batch_cost_calculator``, in which a token without its own price takes the price
of another. Two differences are intended. A missing price is None here and stays unpriced, where LiteLLM bills 0. And a
price in the map counts here even if one provider's calculator ignores it.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from billing.catalog.importers.litellm_source import (
    BATCH_SUFFIX,
    NO_END,
    TIER_SUFFIXES,
    Entry,
    as_price,
    range_of,
)
from billing.catalog.importers.values import halved, times

INPUT, OUTPUT = "input_cost_per_token", "output_cost_per_token"
CACHE_READ, CACHE_WRITE = "cache_read_input_token_cost", "cache_creation_input_token_cost"
WRITE_FOR = {"cache_write_1h": f"{CACHE_WRITE}_above_1hr", "cache_write_12h": f"{CACHE_WRITE}_above_12hr"}
REASONING = "output_cost_per_reasoning_token"
AUDIO_CACHE_READ = "cache_read_input_audio_token_cost"
EXPLICIT_READ = "explicit_cache_read_input_token_cost"
MEDIA_INPUT = {
    "audio_input": "input_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "video_input": "input_cost_per_video_token",
}
TIER_FIELDS = (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, *WRITE_FOR.values(), REASONING, EXPLICIT_READ)
"""Prices that are read of a tier."""
OFF_PEAK_FIELDS = (INPUT, OUTPUT, CACHE_READ, CACHE_WRITE, REASONING, EXPLICIT_READ)
"""Prices that are read of off-peak hours."""
MEDIA_OUTPUT = {
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
    "video_output": "output_cost_per_video_token",
}
OWN_ONLY = {"cache_write_audio": "cache_creation_input_audio_token_cost", "citation_tokens": "citation_cost_per_token"}
"""Meters that exist only if the map prices them."""

_SIZED = rf"({INPUT}|{OUTPUT}|{CACHE_READ}|{CACHE_WRITE}(_above_1hr|_above_12hr)?)_above_(?P<size>\d+k?)_tokens"
_STANDARD_SIZE = re.compile(_SIZED)
_TIER_SIZE = {suffix: re.compile(f"{_SIZED}({suffix})?") for suffix in TIER_SUFFIXES}
_BATCH_SIZE = re.compile(_SIZED + BATCH_SUFFIX)
_INCLUSIVE = frozenset({"xai"})
_HALF_CACHE_READ = frozenset({"fireworks_ai"})
Rates = dict[str, Decimal | None]


def sizes(entry: Entry) -> tuple[int, ...]:
    """Return every number of prompt tokens at which a price of this entry may change, ascending."""
    first = 0 if entry.provider in _INCLUSIVE else 1
    patterns = (_STANDARD_SIZE, _BATCH_SIZE, *_TIER_SIZE.values())
    found = {size + first for pattern in patterns for _, size in entry.thresholds(pattern)}
    for low, high, _ in _tiers(entry):
        found |= {low + 1} if high == NO_END else {low + 1, high + 1}
    return tuple(sorted(found - {0, 1}))


def standard_rates(entry: Entry, suffix: str, tokens: int, off_peak: Mapping[str, Any]) -> Rates:
    """Return the price of a token by meter.

    ``suffix`` is that of a service tier, or "". ``tokens`` is the prompt size. ``off_peak`` is the off-peak block that
    applies, or empty.
    """
    tier = _tier_at(entry, tokens)
    rates = _tiered(entry, tier) if tier is not None else _flat(entry, suffix, tokens)
    base = {
        "input": _or(as_price(off_peak.get(INPUT)), rates["input"]),
        "output": _or(as_price(off_peak.get(OUTPUT)), rates["output"]),
    }
    base["cache_read"] = _or(as_price(off_peak.get(CACHE_READ)), _or(rates["cache_read"], base["input"]))
    base["cache_write"] = _or(as_price(off_peak.get(CACHE_WRITE)), _or(rates["cache_write"], base["input"]))
    for meter in WRITE_FOR:
        base[meter] = _or(rates[meter], base["cache_write"])
    if not _has(entry, WRITE_FOR["cache_write_12h"]):
        del base["cache_write_12h"]
    base["reasoning"] = _or(as_price(off_peak.get(REASONING)), _reasoning(entry, suffix, tier, base["output"]))
    for meter, name in MEDIA_INPUT.items():
        base[meter] = _or(entry.price_or_base(name, suffix), base["input"])
    base["audio_cache_read"] = _or(entry.price_or_base(AUDIO_CACHE_READ, suffix), base["cache_read"])
    base["image_cache_read"] = _or(entry.price("cache_read_input_image_token_cost"), base["cache_read"])
    for meter, name in MEDIA_OUTPUT.items():
        base[meter] = _or(entry.price(name), base["output"])
    explicit = _explicit_read(entry, suffix, tier, off_peak, base["cache_read"])
    if explicit is not None:
        base["cache_read_explicit"] = explicit
    return base | _own_only(entry)


def batch_rates(entry: Entry, tokens: int) -> Rates | None:
    """Return the price of a token in a batch by meter.

    It is the batch price, else half the standard price. The result is None if there is neither.
    """
    batch_input = _batch_price(entry, INPUT, tokens)
    rates = _half_input(entry) if batch_input is None else _batch_input(entry, batch_input, tokens)
    output = _or(_batch_price(entry, OUTPUT, tokens), halved(entry.price(OUTPUT)))
    rates |= dict.fromkeys(("output", "reasoning", *MEDIA_OUTPUT), output)
    image = MEDIA_OUTPUT["image_output"]
    rates["image_output"] = _or(entry.price(image + BATCH_SUFFIX), _or(halved(entry.price(image)), output))
    if not any(rates.values()):
        return None
    if not _has(entry, WRITE_FOR["cache_write_12h"]):
        del rates["cache_write_12h"]
    return rates | _own_only(entry)


def _or(price: Decimal | None, otherwise: Decimal | None) -> Decimal | None:
    return otherwise if price is None else price


def _has(entry: Entry, name: str) -> bool:
    return any(field.startswith(name) for field in entry.prices)


def _own_only(entry: Entry) -> Rates:
    return {meter: price for meter, name in OWN_ONLY.items() if (price := entry.price(name)) is not None}


def _flat(entry: Entry, suffix: str, tokens: int) -> Rates:
    rates: Rates = {
        "input": entry.price_or_base(INPUT, suffix),
        "output": entry.price_or_base(OUTPUT, suffix),
        "cache_read": _cache_read(entry, suffix),
        "cache_write": entry.price_or_base(CACHE_WRITE, suffix),
    }
    if not rates["output"]:
        rates["output"] = _or(entry.price(MEDIA_OUTPUT["image_output"]), rates["output"])
    for meter, name in WRITE_FOR.items():
        rates[meter] = entry.price_or_base(name, suffix)
    names = {"input": INPUT, "output": OUTPUT, "cache_read": CACHE_READ, "cache_write": CACHE_WRITE} | WRITE_FOR
    for written, size in entry.thresholds(_TIER_SIZE.get(suffix, _STANDARD_SIZE)):
        if tokens > size or (tokens == size and entry.provider in _INCLUSIVE):
            for meter, name in names.items():
                above = f"{name}_above_{written}_tokens"
                own = entry.price(above + suffix) if meter in WRITE_FOR else entry.price_or_base(above, suffix)
                rates[meter] = _or(own, rates[meter])
    return rates


def _cache_read(entry: Entry, suffix: str) -> Decimal | None:
    price = entry.price_or_base(CACHE_READ, suffix)
    alias = entry.price("input_cost_per_token_cache_hit")
    if price is None:
        price = alias
    if price is None and entry.provider in _HALF_CACHE_READ:
        price = halved(entry.price(INPUT))
    return price


def _tiers(entry: Entry) -> list[tuple[int, int, Mapping[str, Any]]]:
    """Return the tiers that name a range of prompt sizes, sorted by start, like LiteLLM's ``select_tier_for_input``."""
    table = entry.fields.get("tiered_pricing")
    found: list[tuple[int, int, Mapping[str, Any]]] = []
    for tier in table if isinstance(table, list) else ():
        ends = range_of(tier)
        if ends is not None:
            found.append((*ends, tier))
    return sorted(found, key=lambda item: item[0])


def _tier_at(entry: Entry, tokens: int) -> Mapping[str, Any] | None:
    """Return the tier of a prompt size, the last tier outside all ranges; None if it has no input price."""
    tiers = _tiers(entry)
    if not tiers:
        return None
    entry.raw("tiered_pricing")
    tier = next((tier for low, high, tier in tiers if low < tokens <= high), tiers[-1][2])
    return tier if INPUT in tier else None


def _tiered(entry: Entry, tier: Mapping[str, Any]) -> Rates:
    base = as_price(tier.get(INPUT))
    rates: Rates = {
        "input": base,
        "output": as_price(tier.get(OUTPUT)) if OUTPUT in tier else entry.price(OUTPUT),
        "cache_read": _or(as_price(tier.get(CACHE_READ)), base),
        "cache_write": _or(as_price(tier.get(CACHE_WRITE)), base),
    }
    return rates | {meter: as_price(tier.get(name)) for meter, name in WRITE_FOR.items()}


def _reasoning(entry: Entry, suffix: str, tier: Mapping[str, Any] | None, output: Decimal | None) -> Decimal | None:
    own = entry.price(REASONING)
    if tier is not None and (REASONING in tier or OUTPUT in tier):
        return _or(as_price(tier.get(REASONING)), as_price(tier.get(OUTPUT)))
    if suffix:
        of_tier = entry.price(REASONING + suffix)
        if of_tier is not None:
            return of_tier
        if entry.price(OUTPUT + suffix) is not None:
            return output
    return _or(own, output)


def _explicit_read(
    entry: Entry, suffix: str, tier: Mapping[str, Any] | None, off_peak: Mapping[str, Any], read: Decimal | None
) -> Decimal | None:
    """Return the price of reading an explicitly created cache; None if the map has no such price."""
    own = entry.price_or_base(EXPLICIT_READ, suffix)
    of_tier = as_price(tier.get(EXPLICIT_READ)) if tier is not None else None
    of_hour = as_price(off_peak.get(EXPLICIT_READ))
    if own is None and of_tier is None and of_hour is None:
        return None
    standard = of_tier if of_tier is not None else (read if tier is not None else _or(own, read))
    return _or(of_hour, _or(as_price(off_peak.get(CACHE_READ)), standard))


def _batch_price(entry: Entry, name: str, tokens: int) -> Decimal | None:
    """Return the batch price of a field for the greatest size exceeded, like LiteLLM's ``get_batch_cost_rates``."""
    flat = entry.price(name + BATCH_SUFFIX)
    own = re.compile(rf"{name}_above_(?P<size>\d+k?)_tokens{BATCH_SUFFIX}")
    for written, size in reversed(list(entry.thresholds(own))):
        if tokens > size or (tokens == size and entry.provider in _INCLUSIVE):
            return _or(entry.price(f"{name}_above_{written}_tokens{BATCH_SUFFIX}"), flat)
    return flat


def _batch_input(entry: Entry, base: Decimal, tokens: int) -> Rates:
    rates: Rates = {"input": base}
    for meter, name in MEDIA_INPUT.items():
        rates[meter] = _or(entry.price(name + BATCH_SUFFIX), base)
    read = _batch_price(entry, CACHE_READ, tokens)
    rates["cache_read"] = rates["image_cache_read"] = _or(read, base)
    audio_read = entry.price(AUDIO_CACHE_READ + BATCH_SUFFIX)
    rates["audio_cache_read"] = _or(audio_read, read) if read is not None else base
    write = _or(_batch_price(entry, CACHE_WRITE, tokens), base)
    rates["cache_write"] = write
    for meter, name in WRITE_FOR.items():
        rates[meter] = _or(_batch_price(entry, name, tokens), write)
    return rates


def _half_input(entry: Entry) -> Rates:
    base = entry.price(INPUT)
    rates: Rates = dict.fromkeys(("input", *MEDIA_INPUT), halved(base))
    reads = ("cache_read", "audio_cache_read", "image_cache_read")
    rates |= dict.fromkeys(reads, halved(_or(entry.price(CACHE_READ), base)))
    rates |= dict.fromkeys(("cache_write", *WRITE_FOR), halved(_or(entry.price(CACHE_WRITE), base)))
    return rates


def multiplied(rates: Rates, factor: Decimal) -> Rates:
    """Return every price times a factor, exactly."""
    return {meter: None if price is None else times(price, factor) for meter, price in rates.items()}
