"""Values that every importer returns: the rows of a book as plain text, and the fields left out with the reason.

Numbers are :class:`decimal.Decimal`, never binary ones. Only :func:`nearest_price` rounds.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, localcontext

from billing.catalog.source import MAX_BALANCE
from schemas.units import PICO_DIGITS

MAX_PRICE = Decimal(MAX_BALANCE).scaleb(-PICO_DIGITS)
"""Greatest price of one unit that a price book can hold."""
_EXACT_DIGITS = 400  # longer than any number of a price list; a longer price is refused, not rounded
ROUNDED_AT_MOST = Decimal("1e-9")
"""Greatest relative change by which an importer rounds a price without being asked to."""
_PICO = Decimal(1).scaleb(-PICO_DIGITS)

Prices = Mapping[str, Decimal]
"""Price of one unit of each meter."""


@dataclass(frozen=True, slots=True)
class BandText:
    """Time band as it is written: a zone, days such as ``mon``, hours such as ``09:00-12:00``."""

    timezone: str
    days: tuple[str, ...]
    hours: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowText:
    """Row as it is written: ``dimensions`` in order, then the price of a million units of each meter."""

    dimensions: tuple[tuple[str, str], ...]
    per_million: tuple[tuple[str, str], ...]
    context: tuple[int, int | None] | None = None
    standard_tokens: tuple[tuple[str, str], ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class BookText:
    """One version of a price book as it is written.

    ``effective_from`` is an RFC 3339 time. ``comments`` are written above the version.
    """

    name: str
    version: int
    currency: str
    effective_from: str
    rows: tuple[RowText, ...]
    tax_rate: str = ""
    meters: tuple[str, ...] = ()
    time_bands: Mapping[str, BandText] = field(default_factory=dict)
    comments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """One field of a source that no row expresses. ``reason`` is one of a short list; ``detail`` is free text."""

    key: str
    field: str
    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.key}\t{self.field}\t{self.reason}" + (f"\t{self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True, order=True)
class RoundedPrice:
    """A price of a source that a row expresses rounded. ``price`` and ``rounded`` are per unit."""

    key: str
    field: str
    price: Decimal
    rounded: Decimal
    error: Decimal
    """The change as a part of the price."""

    def __str__(self) -> str:
        return f"{self.key}\t{self.field}\t{plain(self.price)}\t{plain(self.rounded)}\t{self.error:.3E}"


def count_by_reason(left_out: Iterable[LeftOut]) -> dict[str, int]:
    """Return the number of fields left out by reason, most frequent first."""
    return dict(Counter(entry.reason for entry in left_out).most_common())


def per_million(price: Decimal) -> str | None:
    """Return the price of a million units as the plain decimal of a price book; None if it cannot be expressed.

    A price finer than 1e-12 per unit is rounded half even if that changes it by at most 1e-9 of itself.
    """
    found = nearest_price(price)
    return None if found is None else found[0]


def nearest_price(price: Decimal, at_most: Decimal = ROUNDED_AT_MOST) -> tuple[str, Decimal] | None:
    """Return :func:`per_million` of a price and the relative error of its rounding; None if it cannot be expressed.

    A price is rounded if that changes it by at most ``at_most`` of itself, and never to 0.
    """
    with localcontext() as context:
        context.prec = _EXACT_DIGITS
        if not price.is_finite() or price < 0 or price > MAX_PRICE:
            return None
        rounded = price.quantize(_PICO)
        change = abs(rounded - price)
        if change > price * at_most or (price and not rounded):
            return None
        return plain(rounded.scaleb(6)), context.divide(change, price) if change else Decimal(0)


def plain(number: Decimal) -> str:
    """Return a number as text without exponent and trailing zeros."""
    text = f"{number:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def times(number: Decimal, factor: Decimal | int) -> Decimal:
    """Return the exact product of a number and a factor."""
    with localcontext() as context:
        context.prec = _EXACT_DIGITS
        return number * factor


def halved(number: Decimal | None) -> Decimal | None:
    """Return exactly half of a number; None for None."""
    return None if number is None else times(number, Decimal("0.5"))
