"""Split of tax-inclusive amounts into net and tax."""

from schemas.currencies import to_minor_unit
from schemas.units import MILLION, divide_half_even


def split_fee(price_pico: int, tax_rate_micro: int, currency: str) -> tuple[int, int]:
    """Split a tax-inclusive fee into (net, tax) in pico, the net rounded to the minor unit of its currency.

    Half a unit is rounded away from zero (:func:`schemas.currencies.to_minor_unit`). 9.90 yuan at 6 % is 9.34 + 0.56;
    1000 yen at 10 % is 909 + 91. The part of a fee below one unit goes into the tax, so that net and tax add up to the
    fee.
    """
    net_pico = to_minor_unit(price_pico * MILLION, MILLION + tax_rate_micro, currency)
    return net_pico, price_pico - net_pico


def net_of_tax(amount_pico: int, tax_rate_micro: int) -> int:
    """Return the net part of a tax-inclusive amount, rounded half even to 1e-12."""
    return divide_half_even(amount_pico * MILLION, MILLION + tax_rate_micro)
