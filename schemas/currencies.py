"""Minor units of currencies, in which fees, taxes, bills and refunds are paid: fen for CNY, whole yen for JPY.

The table is ISO 4217 List One, published 2026-01-01 by SIX, the maintenance agency (https://www.six-group.com/en/
products-services/financial-information/data-standards.html). Prices and amounts of usage are finer than minor units and
are not rounded to them.
"""

from schemas.units import PICO_DIGITS, divide_half_up

USUAL_DIGITS = 2
"""Decimal places of most currencies, and of a code that the table does not have."""

MINOR_DIGITS: dict[str, int] = {
    **dict.fromkeys(
        (
            *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
            *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
        ),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}
"""Decimal places of every currency of the list that has not two."""


def minor_unit_pico(currency: str) -> int:
    """Return the smallest amount of a currency that can be paid, in pico: 0.01 of most, 1 of JPY, 0.001 of KWD."""
    unit_pico: int = 10 ** (PICO_DIGITS - MINOR_DIGITS.get(currency, USUAL_DIGITS))
    return unit_pico


def is_payable(amount_pico: int, currency: str) -> bool:
    """Return True if an amount is a whole number of minor units of a currency."""
    return amount_pico % minor_unit_pico(currency) == 0


def to_minor_unit(numerator: int, denominator: int, currency: str) -> int:
    """Return pico ``numerator`` / ``denominator`` rounded to the minor unit of a currency, half away from zero.

    Raises:
        ZeroDivisionError: the denominator is not positive.
    """
    unit_pico = minor_unit_pico(currency)
    return divide_half_up(numerator, denominator * unit_pico) * unit_pico


def part_to_minor_unit(whole_pico: int, part: int, of: int, currency: str) -> int:
    """Return ``whole_pico`` x ``part`` / ``of``, rounded to the minor unit, half away from zero; 0 if ``of`` is 0."""
    return to_minor_unit(whole_pico * part, of, currency) if of else 0
