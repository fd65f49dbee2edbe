"""Tests of amounts computed by hand, and of properties that hold for all events."""

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_samples import HEAD, OFF_PEAK_US, book_of, event

from billing.catalog import Adjustment, PriceBook, PriceRow
from billing.pricing import Combination, Rated, Rater, net_of_tax, rate, rated_as_json, unit_prices
from billing.pricing.rate import MAX_OF_EVENT
from schemas.meters import METERS
from schemas.refusals import Refusal
from schemas.units import MILLION, format_pico
from schemas.usage import UsageEvent

CONTRACT_ROW = (
    'rows: [{per_million: {input: "2", cache_read: "0.2", output: "3"}, '
    'standard_tokens: {input: "1", cache_read: "0.1", output: "1.5"}}]\n'
)
GREEN = 'adjustments: [{energy_source: [solar, wind, hydro], multiply: "0.95", reason: green power}]\n'


def rated(of: UsageEvent, book: PriceBook) -> Rated:
    """Rate an event in both ways, which must agree, and expect a price."""
    result = rate(of, book)
    assert isinstance(result, Rated), result
    assert Rater(book).rate(of) == result
    return result


def refused(of: UsageEvent, book: PriceBook) -> Refusal:
    """Rate an event in both ways, which must agree, and expect a rejection."""
    result = rate(of, book)
    assert isinstance(result, Refusal), result
    assert Rater(book).rate(of) == result
    return result


def test_the_event_of_the_contract(tmp_path: Path) -> None:
    book = book_of(tmp_path, CONTRACT_ROW + GREEN)
    counts = {"input": 1200, "cache_read": 8000, "output": 640, "reasoning": 128}
    sunny = event(counts, energy_source="solar")
    assert json.dumps(rated_as_json(sunny, rated(sunny, book))) == json.dumps(
        {
            "source": "s",
            "id": "1",
            "account": "acct-1",
            "currency": "CNY",
            "amount": "0.0059888",  # 1200 x 1.9 + 8000 x 0.19 + 768 x 2.85 micro-yuan
            "net": "0.005649811321",  # / 1.06 = 0.00564981132075...
            "standard_tokens": "3152",  # 1200 + 800 + 960 + 192: adjustments change the price only
            "price_book": "retail@3",
            "lines": [
                {
                    "meter": "input",
                    "quantity": 1200,
                    "per_million": "1.9",
                    "amount": "0.00228",
                    "standard_tokens": "1200",
                },
                {
                    "meter": "cache_read",
                    "quantity": 8000,
                    "per_million": "0.19",
                    "amount": "0.00152",
                    "standard_tokens": "800",
                },
                {
                    "meter": "output",
                    "quantity": 640,
                    "per_million": "2.85",
                    "amount": "0.001824",
                    "standard_tokens": "960",
                },
                {
                    "meter": "reasoning",
                    "quantity": 128,
                    "per_million": "2.85",
                    "amount": "0.0003648",
                    "standard_tokens": "192",
                },
            ],
        }
    )
    assert rated(event(counts, energy_source="coal"), book).amount_pico == 6_304_000_000


def test_the_worked_overlap_example(tmp_path: Path) -> None:
    """1000 input of which 600 image, 300 cached, 200 both; 100 output.

    The counts are disjoint; every token is charged once.
    """
    prices = '{input: "1", image_input: "2", cache_read: "0.1", image_cache_read: "0.2", output: "8"}'
    book = book_of(tmp_path, f"rows: [{{per_million: {prices}}}]\n")
    counts = {"input": 300, "cache_read": 100, "output": 100, "image_input": 400, "image_cache_read": 200}
    result = rated(event(counts), book)
    assert [line.amount_pico for line in result.lines] == [
        300_000_000,
        10_000_000,
        800_000_000,
        800_000_000,
        40_000_000,
    ]
    assert result.amount_pico == 1_950_000_000


def test_reasoning_takes_the_price_and_coefficient_of_output_and_nothing_else_falls_back(tmp_path: Path) -> None:
    book = book_of(tmp_path, CONTRACT_ROW)
    result = rated(event({"reasoning": 10}), book)
    assert (result.amount_pico, result.standard_micro) == (30_000_000, 15_000_000)
    rejection = refused(event({"input": 1, "cache_write": 5}), book)
    assert rejection.code == "no_price"
    assert rejection.detail == (
        "row 0 of retail@3 has no price for the meter 'cache_write', counted 5; it prices input, cache_read, output"
    )
    assert (rejection.source, rejection.id, rejection.sequence, rejection.account) == ("s", "1", 1, "acct-1")
    assert (
        refused(event({"reasoning": 1}), book_of(tmp_path, 'rows: [{per_million: {input: "1"}}]\n')).code == "no_price"
    )


@pytest.mark.parametrize(
    ("row", "price_pico", "coefficient_micro"),
    [
        (
            'per_million: {output: "3", reasoning: "5"}, standard_tokens: {output: "1", reasoning: "2"}',
            5 * 10**6,
            2 * 10**6,
        ),
        ('per_million: {output: "3", reasoning: "5"}, standard_tokens: {output: "1"}', 5 * 10**6, 0),
        ('per_million: {output: "3"}, standard_tokens: {output: "1", reasoning: "2"}', 3 * 10**6, 2 * 10**6),
        ('per_million: {output: "3", reasoning: "0"}, standard_tokens: {output: "1", reasoning: "0"}', 0, 0),
    ],
)
def test_a_row_that_says_something_about_reasoning(
    tmp_path: Path, row: str, price_pico: int, coefficient_micro: int
) -> None:
    book = book_of(tmp_path, f"rows: [{{{row}}}]\n")
    assert unit_prices(book, book.rows[0], Combination("m"))["reasoning"] == (price_pico, coefficient_micro)


def test_default_coefficients_follow_the_standard_price(tmp_path: Path) -> None:
    head = HEAD.replace("time_bands:", 'standard_token_price: "4"\ntime_bands:')
    book = book_of(tmp_path, 'rows: [{per_million: {input: "2", output: "8"}}]\n' + GREEN, head)
    result = rated(event({"input": 10, "output": 10, "reasoning": 1}, energy_source="wind"), book)
    assert result.standard_micro == 5_000_000 + 20_000_000 + 2_000_000


def test_without_coefficients_an_event_uses_no_standard_tokens(tmp_path: Path) -> None:
    result = rated(event({"input": 10}), book_of(tmp_path, 'rows: [{per_million: {input: "2"}}]\n'))
    assert (result.amount_pico, result.standard_micro) == (20_000_000, 0)


def test_zero_is_a_price(tmp_path: Path) -> None:
    result = rated(event({"input": 10}), book_of(tmp_path, 'rows: [{per_million: {input: "0"}}]\n'))
    assert (result.amount_pico, result.net_pico, len(result.lines)) == (0, 0, 1)


def test_a_completed_request_that_counts_nothing_is_refused_unless_its_row_is_unmetered(tmp_path: Path) -> None:
    rows = """\
rows:
  - {model: m, per_million: {input: "1"}}
  - {model: f, outcome: [failed, partial], per_million: {input: "1"}}
  - {model: free, unmetered: true, per_million: {input: "1"}}
  - {model: paid, unmetered: false, minimum_charge: "1", per_million: {input: "1"}}
  - {model: least, unmetered: true, minimum_charge: "1", per_million: {input: "1"}}
"""
    book = book_of(tmp_path, rows)
    missing = refused(event({}), book)
    assert (missing.code, "set unmetered: true in row 0 of retail@3" in missing.detail) == ("usage_missing", True)
    assert rated(event({}, model="free"), book).lines == ()
    assert refused(event({}, model="paid"), book).code == "usage_missing"
    assert rated(event({}, model="least"), book).amount_pico == 10**12
    for outcome in ("failed", "partial"):
        assert rated(event({}, model="f", outcome=outcome), book).lines == ()
    assert refused(event({}, model="n"), book).code == "no_price"


def test_what_is_known_to_be_nothing_is_not_missing(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{model: m, per_million: {input: "1"}}]\n')
    assert isinstance(Rater(book, zero_is_known=True).rate(event({})), Rated)


def test_a_provider_s_usage_pays_the_fee_of_one_request_unless_it_counts_them(tmp_path: Path) -> None:
    rows = (
        'rows: [{model: m, per_million: {input: "1", requests: "5000"}, standard_tokens: {input: "1", requests: "3"}},'
        ' {model: other, per_million: {input: "1"}}]\n'
    )
    book = book_of(tmp_path, rows)
    of = replace(event({"input": 10}), dialect="openai.chat")
    assert [(line.meter, line.quantity) for line in rated(of, book).lines] == [("input", 10), ("requests", 1)]
    assert rated(of, book).standard_micro == 13 * 10**6
    told = replace(event({"input": 10, "requests": 3}), dialect="openai.chat")
    assert [(line.meter, line.quantity) for line in rated(told, book).lines] == [("input", 10), ("requests", 3)]
    assert [line.meter for line in rated(event({"input": 10}), book).lines] == ["input"], "meters say all themselves"
    without = replace(event({"input": 10}, model="other"), dialect="openai.chat")
    assert [line.meter for line in rated(without, book).lines] == ["input"], "a row without the fee charges none"
    assert refused(replace(event({}), dialect="openai.chat"), book).code == "usage_missing"


def test_no_row_is_explained(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{model: n, per_million: {input: "1"}}]\n')
    assert refused(event({"input": 7, "cache_read": 3}), book).detail == (
        "no row of retail@3 matches model 'm', hardware_tier 'unknown', energy_source 'unknown', site 'unknown', "
        "channel 'cloud', service_tier 'standard', outcome 'completed', context 10; add a row that does"
    )


def test_the_context_is_what_went_in(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        'rows: [{context: [0, 10], per_million: {input: "1", cache_write: "1", image_input: "1", output: "1"}},'
        ' {context: [10, null], per_million: {input: "2", cache_write: "2", image_input: "2", output: "2"}}]\n',
    )
    parts = {"input": 3, "cache_write": 3, "image_input": 3}
    assert rated(event({**parts, "output": 99}), book).lines[0].price_pico == 1_000_000
    assert rated(event({**parts, "image_input": 4, "output": 99}), book).lines[0].price_pico == 2_000_000


def test_a_time_band_prices_the_hours_it_names(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{per_million: {input: "1"}}, {time_band: peak, per_million: {input: "2"}}]\n')
    rater = Rater(book)
    found = [rater.rate(event({"input": 1}, **kw)) for kw in ({}, {"time_us": OFF_PEAK_US}, {})]  # type: ignore[arg-type]
    assert [result.amount_pico for result in found if isinstance(result, Rated)] == [2_000_000, 1_000_000, 2_000_000]


def test_adjusted_prices_are_rounded_once_half_to_even(tmp_path: Path) -> None:
    adjust = 'adjustments: [{multiply: "0.5", reason: a}, {model: "m*", multiply: "0.5", reason: b}]\n'
    for price, expected in (("0.000002", 0), ("0.000006", 2), ("0.00001", 2), ("0.000014", 4), ("0.000011", 3)):
        book = book_of(tmp_path, f'rows: [{{per_million: {{input: "{price}"}}}}]\n' + adjust)
        assert rated(event({"input": 1}), book).amount_pico == expected  # a quarter of 2, 6, 10, 14 and 11 pico


def test_adjustments_apply_to_what_they_name(tmp_path: Path) -> None:
    book = book_of(
        tmp_path,
        'rows: [{per_million: {input: "1"}}]\n'
        "adjustments:\n"
        '  - {energy_source: solar, hardware_tier: ["ascend-*", cambricon.mlu], multiply: "0.9", reason: a}\n'
        '  - {channel: edge, multiply: "0", reason: b}\n',
    )

    def price(**dimensions: str) -> int:
        return rated(event({"input": 1}, **dimensions), book).lines[0].price_pico

    assert price(energy_source="solar", hardware_tier="ascend-910c") == 900_000
    assert price(energy_source="solar", hardware_tier="cambricon.mlu") == 900_000
    assert price(energy_source="solar") == price(hardware_tier="ascend-910c") == 1_000_000
    assert price(channel="edge", energy_source="solar") == 0


def test_amounts_beyond_64_bits_are_exact_and_those_beyond_34_digits_are_refused(tmp_path: Path) -> None:
    dong = 'rows: [{per_million: {output: "390000"}, standard_tokens: {output: "1"}}]\n'
    result = rated(event({"output": 30_000_000}), book_of(tmp_path, dong))
    assert (format_pico(result.amount_pico), result.standard_micro) == ("11700000", 30_000_000 * MILLION)
    prices = 'per_million: {input: "10000000000000000000000", output: "0.000001"}'
    book = book_of(tmp_path, f"rows: [{{{prices}, standard_tokens: {{output: '0'}}}}]\n")
    assert rated(event({"input": 10**6}), book).amount_pico == MAX_OF_EVENT
    rejection = refused(event({"input": 10**6, "output": 1}), book)
    assert (rejection.code, rejection.detail) == (
        "overflow",
        "costs 10000000000000000000000.000000000001, more than 10000000000000000000000",
    )
    standard = book_of(tmp_path, 'rows: [{per_million: {input: "0"}, standard_tokens: {input: "1000000000000"}}]\n')
    assert rated(event({"input": 10**16}), standard).standard_micro == MAX_OF_EVENT
    assert refused(event({"input": 10**16 + 1}), standard).code == "overflow"


def test_partial_and_failed_requests_are_priced_only_where_a_row_says_so(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{per_million: {input: "2"}}, {outcome: partial, per_million: {input: "1"}}]\n')
    assert rated(event({"input": 1}), book).amount_pico == 2_000_000
    assert rated(event({"input": 1}, outcome="partial"), book).amount_pico == 1_000_000
    assert refused(event({"input": 1}, outcome="failed"), book).code == "no_price"


@pytest.mark.parametrize(
    ("amount_pico", "tax_rate_micro", "net_pico"),
    [(106, 60_000, 100), (0, 60_000, 0), (3, 1_000_000, 2), (1, 1_000_000, 0), (5, 1_000_000, 2), (7, 0, 7)],
)
def test_the_net_is_rounded_half_to_even(amount_pico: int, tax_rate_micro: int, net_pico: int) -> None:
    assert net_of_tax(amount_pico, tax_rate_micro) == net_pico


METER_COUNTS = st.dictionaries(st.sampled_from(METERS), st.integers(1, 10**9), max_size=8)
PRICES = st.dictionaries(st.sampled_from(METERS), st.tuples(st.integers(0, 10**9), st.integers(0, 10**8)), min_size=1)
FACTORS = st.lists(st.integers(0, 2 * 10**12), max_size=3)


@given(METER_COUNTS, PRICES, FACTORS, st.integers(0, 10**6))
def test_every_price_is_the_exact_sum_of_its_lines(
    counts: dict[str, int], prices: dict[str, tuple[int, int]], factors: list[int], tax_rate_micro: int
) -> None:
    row = PriceRow(
        0,
        *["*"] * 6,
        ("completed",),  # type: ignore[arg-type]
        None,
        None,
        {meter: price for meter, (price, _) in prices.items()},
        {meter: coefficient for meter, (_, coefficient) in prices.items()},
        {},
    )
    adjustments = tuple(Adjustment({}, factor, "x") for factor in factors)
    book = PriceBook("b", 1, "CNY", tax_rate_micro, 0, None, {}, (row,), adjustments)
    of = event(counts)
    result = rate(of, book)
    assert Rater(book).rate(of) == result
    if "output" in prices:
        prices = {"reasoning": prices["output"], **prices}
    if isinstance(result, Refusal):
        assert (result.code == "no_price") == bool(set(counts) - set(prices))
        return
    factor = Fraction(1)
    for each in factors:
        factor *= Fraction(each, 10**12)
    units = {meter: round(price * factor) for meter, (price, _) in prices.items()}  # Fraction rounds half to even
    assert result.amount_pico == sum(count * units[meter] for meter, count in counts.items())
    assert result.standard_micro == sum(count * prices[meter][1] for meter, count in counts.items())
    assert result.net_pico == round(Fraction(result.amount_pico) / (1 + Fraction(tax_rate_micro, 10**6)))
    assert [(line.meter, line.quantity) for line in result.lines] == list(counts.items())
