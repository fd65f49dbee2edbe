"""Minor units of currencies, by ISO 4217."""

import pytest

from schemas.currencies import MINOR_DIGITS, is_payable, minor_unit_pico, part_to_minor_unit
from schemas.units import PICO_DIGITS, parse_pico

NO_DECIMALS = (
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG"),
    *("RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"),
)


def test_the_table_has_every_currency_of_the_list_that_has_not_two_decimals() -> None:
    by_digits = {
        digits: sorted(code for code, found in MINOR_DIGITS.items() if found == digits)
        for digits in set(MINOR_DIGITS.values())
    }
    assert by_digits == {
        0: list(NO_DECIMALS),
        3: ["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"],
        4: ["CLF", "UYW"],
    }


@pytest.mark.parametrize(
    ("currency", "digits"), [("CNY", 2), ("USD", 2), ("XTS", 2), ("JPY", 0), ("VND", 0), ("KWD", 3), ("CLF", 4)]
)
def test_a_minor_unit_has_the_decimals_of_its_currency(currency: str, digits: int) -> None:
    assert minor_unit_pico(currency) == 10 ** (PICO_DIGITS - digits)


@pytest.mark.parametrize(
    ("amount", "currency", "payable"),
    [("9.90", "CNY", True), ("9.905", "CNY", False), ("9.905", "KWD", True), ("1000.50", "JPY", False)],
)
def test_an_amount_is_payable_in_whole_minor_units(amount: str, currency: str, payable: bool) -> None:
    assert is_payable(parse_pico(amount), currency) is payable


@pytest.mark.parametrize(
    ("currency", "part"), [("CNY", "516.13"), ("JPY", "516"), ("KWD", "516.129"), ("CLF", "516.129")]
)
def test_a_part_is_rounded_to_the_minor_unit(currency: str, part: str) -> None:
    assert part_to_minor_unit(parse_pico("1000"), 16, 31, currency) == parse_pico(part)
    assert part_to_minor_unit(parse_pico("1000"), 16, 0, currency) == 0


def test_half_a_minor_unit_is_rounded_away_from_zero() -> None:
    assert part_to_minor_unit(parse_pico("1001"), 1, 2, "JPY") == parse_pico("501")
    assert part_to_minor_unit(-parse_pico("1001"), 1, 2, "JPY") == -parse_pico("501")
