"""Price of one unit of each meter in a row: list price times tier, adjustment and commitment factors, rounded once."""

from collections.abc import Sequence
from dataclasses import replace

from billing.catalog.model import Adjustment, PriceBook, PriceRow
from billing.catalog.period_rules import BLOCKS_LINE, ONE_PICO
from billing.pricing.adjust import adjusted_price, counting
from billing.pricing.period_prices import rules_of

UnitPrices = dict[str, tuple[int, int]]
"""By meter: pico of the currency per unit after adjustments, and micro standard tokens per unit."""


def prices_after(
    book: PriceBook, row: PriceRow, matching: Sequence[Adjustment], factors_pico: Sequence[int] = ()
) -> UnitPrices:
    """Return the unit prices of a row under the adjustments that match an event, and further factors.

    A row that prices ``output`` and not ``reasoning`` gives ``reasoning`` the adjusted price of output, and the
    coefficient of output unless the row states one for ``reasoning``.
    """
    coefficients = row.coefficient_micro
    prices = {
        meter: (
            adjusted_price(price, counting(book.stacking, matching, meter), factors_pico),
            coefficients.get(meter, 0),
        )
        for meter, price in row.price_pico.items()
    }
    if "reasoning" not in prices and "output" in prices:
        price, coefficient = prices["output"]
        prices["reasoning"] = (price, coefficients.get("reasoning", coefficient))
    return prices


class RowPrices:
    """Unit prices of a row under the adjustments that match, in any tier. Each table is computed once.

    Implements :class:`billing.pricing.period_prices.PriceOf`.
    """

    __slots__ = ("_tables", "book", "matching", "row", "rules")

    def __init__(self, book: PriceBook, row: PriceRow, matching: Sequence[Adjustment]) -> None:
        self.book = book
        self.row = row
        self.matching = matching
        self.rules = rules_of(book, row)
        self._tables: dict[tuple[int | None, int], UnitPrices] = {}

    def __call__(self, tier: int | None, factor_pico: int) -> UnitPrices:
        """Return the unit prices in a tier; see :class:`billing.pricing.period_prices.PriceOf`."""
        table = self._tables.get((tier, factor_pico))
        if table is None:
            row, factors_pico = self.priced(tier), (self.tier_factor(tier), factor_pico)
            table = prices_after(self.book, row, self.matching, [f for f in factors_pico if f != ONE_PICO])
            self._tables[tier, factor_pico] = table
        return table

    def block(self, factor_pico: int) -> int:
        """Return the price of a block in pico. Adjustments that name meters do not apply to it."""
        counted = counting(self.book.stacking, self.matching, BLOCKS_LINE)
        return adjusted_price(self.block_list_pico, counted, (factor_pico,))

    @property
    def block_list_pico(self) -> int:
        """Price of a block before adjustments, in pico."""
        rule, _ = self.rules
        return 0 if rule is None else rule.block_price_pico

    def priced(self, tier: int | None) -> PriceRow:
        """Return the row with the list prices that it has in a tier."""
        rule, _ = self.rules
        if rule is None or tier is None or not rule.tiers[tier].price_pico:
            return self.row
        return replace(self.row, price_pico={**self.row.price_pico, **rule.tiers[tier].price_pico})

    def tier_factor(self, tier: int | None) -> int:
        """Return the factor of a tier, in 1e-12."""
        rule, _ = self.rules
        return ONE_PICO if rule is None or tier is None else rule.tiers[tier].multiply_pico
