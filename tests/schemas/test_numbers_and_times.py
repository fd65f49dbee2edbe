"""Exact numbers and instants: reading and writing are inverse."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import format_time_us, parse_time_us
from schemas.units import InexactError, divide_half_even, divide_half_up, format_scaled, parse_pico, parse_scaled


@given(st.integers(-(10**38), 10**38), st.integers(0, 12))
def test_a_written_number_is_read_back(value: int, digits: int) -> None:
    assert parse_scaled(format_scaled(value, digits), digits) == value


@pytest.mark.parametrize("text", ["", "1e3", "+1", "01", "1.", ".5", " 1", "1_0", "٣", "0.0000000000001", "NaN"])
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    with pytest.raises(InexactError):
        parse_pico(text)


@given(st.integers(0, 253_402_300_799_999_999))
def test_a_written_time_is_read_back(time_us: int) -> None:
    assert parse_time_us(format_time_us(time_us)) == time_us


@pytest.mark.parametrize(
    ("numerator", "even", "up"), [(5, 2, 3), (15, 8, 8), (-5, -2, -3), (4, 2, 2), (-15, -8, -8), (0, 0, 0)]
)
def test_halves_round_as_the_contract_says(numerator: int, even: int, up: int) -> None:
    assert divide_half_even(numerator, 2) == even
    assert divide_half_up(numerator, 2) == up
