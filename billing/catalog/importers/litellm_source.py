"""Reader of LiteLLM's price map into exact values: prices by field, with the service tier and prompt size of a field.

Field names are those of LiteLLM 1.109.1, ``model_prices_and_context_window_backup.json``. Does not depend on price
books.
"""

import json
import re
from collections.abc import Iterator, Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any

from billing.catalog.importers.values import ROUNDED_AT_MOST, LeftOut, RoundedPrice

TIER_SUFFIXES = ("_ultrafast", "_balanced", "_priority", "_flex")
"""Suffixes of a price field that name a service tier."""
BATCH_SUFFIX = "_batches"
_MARKS = ("cost", "price", "pricing", "uplift", "multiplier", "_free_")
_SPECIFIC = "provider_specific_entry"


_SHORT = Context(prec=4)
NO_END = 2**63 - 1
"""Upper end of a range of prompt sizes that has none."""


class SourceError(ValueError):
    """Raised for a file that is not a price map."""


def read_price_map(text: str) -> dict[str, dict[str, Any]]:
    """Parse a price map with numbers as exact decimals, exponents included.

    Raises:
        SourceError: not JSON, a key given twice, NaN or infinity, nested too deeply, or not an object of objects.
    """
    try:
        document = json.loads(
            text, parse_float=Decimal, parse_int=Decimal, parse_constant=_no_constant, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        raise SourceError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise SourceError("it is nested too deeply") from error
    if not isinstance(document, dict):
        raise SourceError("it is not an object of models")
    for key, entry in document.items():
        if not isinstance(entry, dict):
            raise SourceError(f"{key!r} is not an object of fields")
    return document


def _no_constant(name: str) -> Decimal:
    raise SourceError(f"it holds {name}, which is no price")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise SourceError(f"{twice!r} is given twice in one object")
    return found


def as_price(value: object) -> Decimal | None:
    """Return a price from a number or its text, as LiteLLM accepts it; None for anything else."""
    if isinstance(value, Decimal):
        return value if value.is_finite() and value >= 0 else None
    if isinstance(value, str):
        try:
            return as_price(Decimal(value))
        except InvalidOperation:
            return None
    return None


def range_of(tier: object) -> tuple[int, int] | None:
    """Return the prompt sizes of a tier: above the first, up to the second; None if it names none.

    An end that is null or absent is open.
    """
    ends = tier.get("range") if isinstance(tier, Mapping) else None
    if not isinstance(ends, list) or not 1 <= len(ends) <= 2:
        return None
    low, high = ends[0], ends[1] if len(ends) == 2 else None
    first, last = as_price(low), as_price(high)
    if (first is None and low is not None) or (last is None and high is not None):
        return None
    return int(first or 0), NO_END if last is None else int(last)


def is_price_field(name: str, value: object) -> bool:
    """Return True if a field concerns money. Only these fields are imported or reported."""
    if name == _SPECIFIC:
        return isinstance(value, Mapping) and any(isinstance(item, Decimal) for item in value.values())
    return any(mark in name for mark in _MARKS) and not isinstance(value, bool)


class Entry:
    """One key of the map. It records which price fields were read, so that none is dropped silently."""

    def __init__(self, key: str, fields: Mapping[str, Any], rounded_at_most: Decimal = ROUNDED_AT_MOST) -> None:
        self.key = key
        self.rounded_at_most = rounded_at_most
        self.provider = str(fields.get("litellm_provider", ""))
        self.mode = str(fields.get("mode", ""))
        self.fields = fields
        self.prices = {name: price for name, value in fields.items() if (price := as_price(value)) is not None}
        self.left_out: list[LeftOut] = []
        self.rounded: list[RoundedPrice] = []
        self._used: set[str] = set()

    def price(self, name: str) -> Decimal | None:
        """Return the price of a field; None if it is absent or not a number."""
        price = self.prices.get(name)
        if price is not None:
            self._used.add(name)
        return price

    def price_or_base(self, name: str, suffix: str) -> Decimal | None:
        """Return the price of a field for a service tier, else the field's own: LiteLLM's ``get_cost_per_unit``."""
        price = self.price(name + suffix)
        return price if price is not None else self.price(name)

    def raw(self, name: str) -> Any:
        """Return a field that is not a price, as it was parsed; None if it is absent."""
        if name in self.fields:
            self._used.add(name)
        return self.fields.get(name)

    def leave_out(self, name: str, reason: str, detail: str = "") -> None:
        """Record that a field is not expressed, and the reason."""
        self._used.add(name)
        self.left_out.append(LeftOut(self.key, name, reason, detail))

    def note_rounded(self, name: str, price: Decimal, per_million: str, error: Decimal) -> None:
        """Record once that a field is expressed rounded."""
        note = RoundedPrice(self.key, name, price, Decimal(per_million).scaleb(-6), _SHORT.plus(error))
        if note not in self.rounded:
            self.rounded.append(note)

    def price_fields(self) -> list[str]:
        """Return the names of all fields that concern money."""
        return [name for name, value in self.fields.items() if is_price_field(name, value)]

    def unread(self) -> list[str]:
        """Return the price fields that were not read."""
        return [name for name in self.price_fields() if name not in self._used]

    def was_read(self, name: str) -> bool:
        """Return True if a field was read or left out."""
        return name in self._used

    def thresholds(self, pattern: re.Pattern[str]) -> Iterator[tuple[str, int]]:
        """Yield the prompt sizes in the names of matching fields, as written and in tokens, ascending.

        The group ``size`` of the pattern is the size.
        """
        seen: dict[str, int] = {}
        for name in self.prices:
            match = pattern.fullmatch(name)
            if match is not None:
                written = match.group("size")
                seen[written] = int(written.removesuffix("k")) * (1000 if written.endswith("k") else 1)
        yield from sorted(seen.items(), key=lambda item: item[1])
