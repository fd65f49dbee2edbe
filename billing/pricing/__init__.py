"""Pricing of usage events by the rows of a price book.

:mod:`billing.pricing.match` finds the row, :mod:`billing.pricing.rate` computes the amount with the adjustments of
:mod:`billing.pricing.adjust`, and :mod:`billing.pricing.explain` gives the reasons.
"""

from billing.pricing.adjust import PricingMoment
from billing.pricing.match import Combination, RowIndex, candidates, combination_of, winning_row
from billing.pricing.rate import (
    Rated,
    RatedLine,
    Rater,
    fixed_prices,
    rate,
    rated_as_json,
    rejection_as_json,
    unit_prices,
)
from billing.pricing.row_prices import UnitPrices
from billing.tax import net_of_tax

__all__ = [
    "Combination",
    "PricingMoment",
    "Rated",
    "RatedLine",
    "Rater",
    "RowIndex",
    "UnitPrices",
    "candidates",
    "combination_of",
    "fixed_prices",
    "net_of_tax",
    "rate",
    "rated_as_json",
    "rejection_as_json",
    "unit_prices",
    "winning_row",
]
