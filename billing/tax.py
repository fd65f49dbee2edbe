"""Split of tax-inclusive amounts into net and tax."""

from schemas.units import FEN_PICO, MILLION, divide_half_even, divide_half_up


def split_fee(price_pico: int, tax_rate_micro: int) -> tuple[int, int]:
    """Split a tax-inclusive fee into (net, tax) in pico, the net rounded to fen.

    Half a fen is rounded away from zero (:func:`schemas.units.divide_half_up`). 9.90 at 6 % is 9.34 + 0.56. The
    part of a fee below one fen goes into the tax, so that net and tax add up to the fee.
    """
    net_fen = divide_half_up(price_pico * MILLION, (MILLION + tax_rate_micro) * FEN_PICO)
    net_pico = net_fen * FEN_PICO
    return net_pico, price_pico - net_pico


def net_of_tax(amount_pico: int, tax_rate_micro: int) -> int:
    """Return the net part of a tax-inclusive amount, rounded half even to 1e-12."""
    return divide_half_even(amount_pico * MILLION, MILLION + tax_rate_micro)
