"""Increments of a row: the quantity of a meter that is billed for what an event used.

A counted quantity is raised to the minimum of its meter, then rounded up to a whole number of its steps. Each event and
each meter stands alone, and what is not used is not billed. Price, standard tokens, other units of account and the
counters of period rules follow the billed quantity; bands of context and output length follow what was used.
"""

from billing.catalog.model import PriceRow
from schemas.meters import Counts


def billed_quantity(quantity: int, minimum: int, step: int) -> int:
    """Return the quantity to bill: at least the minimum, in whole steps."""
    return -(-max(quantity, minimum) // step) * step


def billed_counts(row: PriceRow, counts: Counts) -> Counts:
    """Return the counts of an event as a row bills them."""
    if not row.increments:
        return counts
    return tuple(
        (meter, billed_quantity(count, *row.increments[meter]) if meter in row.increments else count)
        for meter, count in counts
    )


class UsedQuantities:
    """The quantities that an event used of the meters with an increment, taken part by part.

    A meter that is split over tiers has several lines: what was used fills the first of them.
    """

    __slots__ = ("_left",)

    def __init__(self, row: PriceRow, counts: Counts) -> None:
        self._left = {meter: count for meter, count in counts if meter in row.increments}

    def of(self, meter: str, quantity: int) -> int | None:
        """Return what was used of the next billed quantity of a meter; None if all of it was used."""
        if meter not in self._left:
            return None
        used = min(quantity, self._left[meter])
        self._left[meter] -= used
        return None if used == quantity else used
