"""Pricing: which row of a price book an event meets (:mod:`.match`), and what it then costs (:mod:`.rate`)."""

from billing.pricing.match import Combination, RowIndex, candidates, combination_of, winning_row
from billing.pricing.rate import (
    Rated,
    RatedLine,
    Rater,
    UnitPrices,
    net_of_tax,
    rate,
    rated_as_json,
    rejection_as_json,
    unit_prices,
)

__all__ = [
    "Combination",
    "Rated",
    "RatedLine",
    "Rater",
    "RowIndex",
    "UnitPrices",
    "candidates",
    "combination_of",
    "net_of_tax",
    "rate",
    "rated_as_json",
    "rejection_as_json",
    "unit_prices",
    "winning_row",
]
