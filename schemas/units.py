"""Exact numbers: scaled integers, their decimal strings, and the two rules of rounding to the nearest.

Money is integer pico (1e-12) of the currency, quota integer micro (1e-6) of a standard token, energy integer
milliwatt-hours. On the wire an amount is a decimal string without exponent, trailing zeros or minus zero
(docs/reference/principles.md, "Units"). Rounding is half to even (:func:`divide_half_even`), and half away from zero
where the result is in whole minor units of a currency (:func:`divide_half_up`, :mod:`schemas.currencies`). This module
never uses a binary floating-point number.
"""

import re

PICO_DIGITS = 12
"""Decimal places of money."""
MICRO_DIGITS = 6
"""Decimal places of a quantity of standard tokens."""
MILLION = 10**6
MICRO_PICO = 10**6
"""One micro of a unit, in pico of that unit."""

_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?")


class InexactError(ValueError):
    """A decimal string is malformed, or has more decimal places than its unit."""


def parse_scaled(text: str, digits: int) -> int:
    """Return a decimal string as an exact integer of ``10**-digits``.

    Raises:
        InexactError: the text is not a plain decimal (exponent, plus sign, spaces, leading zeros), or has more than
            ``digits`` decimal places.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise InexactError(f"{text!r} is not a decimal number such as 9.90")
    sign, whole, fraction = match.group(1), match.group(2), (match.group(3) or "").rstrip("0")
    if len(fraction) > digits:
        raise InexactError(f"{text!r} is finer than 1e-{digits}")
    value = int(whole + fraction.ljust(digits, "0"))
    return -value if sign else value


def format_scaled(value: int, digits: int) -> str:
    """Return an integer of ``10**-digits`` as a decimal string without trailing zeros; zero is ``"0"``."""
    sign = "-" if value < 0 else ""
    whole, fraction = divmod(abs(value), 10**digits)
    if fraction == 0:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{str(fraction).rjust(digits, '0').rstrip('0')}"


def parse_pico(text: str) -> int:
    """Return money as pico of the currency."""
    return parse_scaled(text, PICO_DIGITS)


def format_pico(value: int) -> str:
    """Return pico of a currency as a decimal string of the currency."""
    return format_scaled(value, PICO_DIGITS)


def parse_micro(text: str) -> int:
    """Return a quantity of standard tokens as micro."""
    return parse_scaled(text, MICRO_DIGITS)


def format_micro(value: int) -> str:
    """Return micro of a standard token as a decimal string of standard tokens."""
    return format_scaled(value, MICRO_DIGITS)


def divide_half_even(numerator: int, denominator: int) -> int:
    """Divide integers, rounding half to even: the rule for every result that is finer than a minor unit.

    Raises:
        ZeroDivisionError: the denominator is not positive.
    """
    if denominator <= 0:
        raise ZeroDivisionError("divide_half_even needs a positive denominator")
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def divide_half_up(numerator: int, denominator: int) -> int:
    """Divide integers, rounding half away from zero: the rounding of fees, taxes and refunds to minor units.

    See docs/reference/field-practice.md, "Fees and fen".

    Raises:
        ZeroDivisionError: the denominator is not positive.
    """
    if denominator <= 0:
        raise ZeroDivisionError("divide_half_up needs a positive denominator")
    magnitude = (2 * abs(numerator) + denominator) // (2 * denominator)
    return -magnitude if numerator < 0 else magnitude
