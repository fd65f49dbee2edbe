"""Adjustments of a price book applied to a unit price: which match an event, which of those count, the new price.

The book declares how they stack (``stacking``, docs/price-books.md), for each meter on its own:

- ``multiply``: every adjustment that matches, one factor after the other;
- ``best_of``: of those that match the one with the lowest factor, the first of several equal ones;
- ``replace``: of those that match the last one written, which replaces those before it.

The price is rounded once, after all factors, half even to 1e-12.
"""

from collections.abc import Sequence
from typing import NamedTuple

from billing.catalog.model import Adjustment, PriceBook
from billing.catalog.patterns import scope_matches
from billing.catalog.timebands import band_contains
from billing.pricing.match import Combination, dimensions_of, in_context
from schemas.units import PICO_DIGITS, divide_half_even


class PricingMoment(NamedTuple):
    """Time and lengths of an event: the values that change between requests of one combination and decide a price."""

    time_us: int
    context_tokens: int
    output_tokens: int = 0


def is_momentary(adjustment: Adjustment) -> bool:
    """Return True if the combination alone does not decide whether an adjustment matches."""
    return bool(adjustment.time_bands) or adjustment.context is not None or adjustment.output_context is not None


def matching_texts(book: PriceBook, combination: Combination) -> tuple[Adjustment, ...]:
    """Return the adjustments whose scope matches a combination, in the order of the book.

    No other adjustment can match an event of it.
    """
    dimensions = dimensions_of(book, combination)
    return tuple(a for a in book.adjustments if scope_matches(a.scope, dimensions))


def moment_fits(book: PriceBook, adjustment: Adjustment, moment: PricingMoment) -> bool:
    """Return True if a moment lies in one of an adjustment's time bands and in its bands of tokens, if it names any."""
    if not in_context(adjustment.context, moment.context_tokens):
        return False
    if not in_context(adjustment.output_context, moment.output_tokens):
        return False
    bands = adjustment.time_bands
    return not bands or any(band_contains(book.time_bands[name], moment.time_us) for name in bands)


def counting(stacking: str, matching: Sequence[Adjustment], meter: str) -> tuple[Adjustment, ...]:
    """Return the adjustments that count for a meter's price, of those that match an event, in the order of the book."""
    on_meter = tuple(a for a in matching if not a.meters or meter in a.meters)
    if stacking == "best_of" and on_meter:
        return (min(on_meter, key=lambda adjustment: adjustment.multiply_pico),)
    if stacking == "replace":
        return on_meter[-1:]
    return on_meter


def factor_of(adjustments: Sequence[Adjustment]) -> tuple[int, int]:
    """Return the exact product of the factors as (integer, number of decimal places)."""
    factor, digits = 1, 0
    for adjustment in adjustments:
        factor *= adjustment.multiply_pico
        digits += PICO_DIGITS
    return factor, digits


def adjusted_price(price_pico: int, adjustments: Sequence[Adjustment], factors_pico: Sequence[int] = ()) -> int:
    """Return a unit price after adjustments and further factors (of a tier, of a commitment), rounded once."""
    factor, digits = factor_of(adjustments)
    for more_pico in factors_pico:
        factor, digits = factor * more_pico, digits + PICO_DIGITS
    return divide_half_even(price_pico * factor, 10**digits)
