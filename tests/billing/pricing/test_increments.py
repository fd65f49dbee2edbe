"""Increments of a row: a minimum and a step of the quantity of a meter, for each event."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_samples import PEAK_US, book_of, event

from billing.catalog import PriceBook, lint_folder
from billing.pricing import Combination, PricingMoment, Rated, Rater, RowIndex, fixed_prices, rate, rated_as_json
from billing.pricing.explain import explain
from billing.pricing.explain_text import explain_as_text
from billing.pricing.increments import billed_quantity
from billing.pricing.rate import moment_prices
from schemas.units import MILLION

HEAD = """\
kind: price_book
name: calls
version: 1
currency: USD
effective_from: "2026-01-01T00:00:00Z"
"""
CALL = (
    'rows: [{per_million: {milliseconds: "0.1", input: "1"}, standard_tokens: {milliseconds: "2", input: "1"}, '
    "units: {MINUTE: {milliseconds: '0.001'}}, increments: {milliseconds: {minimum: 30000, step: 6000}}}]\n"
)
TIERS = """\
periods:
  daily: {kind: graduated, every: day, count: milliseconds, tiers: [{up_to: "40000"}, {up_to: null, multiply: "0.5"}]}
rows: [{per_million: {milliseconds: "0.1"}, increments: {milliseconds: {step: 60000}}, periods: daily}]
"""


def rated(counts: dict[str, int], book: PriceBook) -> Rated:
    result = rate(event(counts), book)
    assert isinstance(result, Rated), result
    assert Rater(book).rate(event(counts)) == result
    return result


@pytest.mark.parametrize(
    ("used", "billed", "amount"),
    [(1, 30_000, "0.003"), (30_000, 30_000, "0.003"), (32_000, 36_000, "0.0036"), (57_000, 60_000, "0.006"),
     (75_000, 78_000, "0.0078"), (78_000, 78_000, "0.0078"), (78_001, 84_000, "0.0084")],
)  # fmt: skip
def test_a_call_is_billed_from_thirty_seconds_in_steps_of_six(
    tmp_path: Path, used: int, billed: int, amount: str
) -> None:
    line = rated_as_json(event({"milliseconds": used}), rated({"milliseconds": used}, book_of(tmp_path, CALL, HEAD)))
    (of_meter,) = line["lines"]  # type: ignore[misc]
    assert (line["amount"], of_meter["quantity"]) == (amount, billed)
    assert of_meter.get("used", billed) == used
    assert ("used" in of_meter) is (used != billed)


def test_tokens_and_units_follow_what_is_billed_and_other_meters_do_not(tmp_path: Path) -> None:
    result = rated({"input": 7, "milliseconds": 31_000}, book_of(tmp_path, CALL, HEAD))
    assert result.standard_micro == (7 + 2 * 36_000) * MILLION
    assert result.units_micro == {"MINUTE": 36 * MILLION}
    assert [(line.meter, line.quantity, line.used_quantity) for line in result.lines] == [
        ("input", 7, None),
        ("milliseconds", 36_000, 31_000),
    ]


def test_what_was_not_used_is_not_raised(tmp_path: Path) -> None:
    result = rated({"input": 1}, book_of(tmp_path, CALL, HEAD))
    assert [line.meter for line in result.lines] == ["input"]


def test_counted_requests_are_billed_in_steps_and_one_that_is_not_counted_is_one(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{per_million: {requests: "1", input: "0"}, increments: {requests: {step: 5}}}]\n')
    assert rated({"requests": 6}, book).units_micro == {"REQUEST": 10 * MILLION}
    assert rated({"input": 6}, book).units_micro == {"REQUEST": MILLION}


def test_a_tier_counts_what_is_billed_and_what_was_used_fills_the_first_line(tmp_path: Path) -> None:
    result = rated({"milliseconds": 50_000}, book_of(tmp_path, TIERS, HEAD))
    assert [(line.quantity, line.used_quantity, line.price_pico) for line in result.lines] == [
        (40_000, None, 100_000),
        (20_000, 10_000, 50_000),
    ]
    assert [counted.after and counted.after.used for counted in result.counted] == [60_000 * MILLION]


def test_prices_with_increments_are_not_fixed(tmp_path: Path) -> None:
    book = book_of(tmp_path, CALL, HEAD)
    assert fixed_prices(book, Combination("m")) is None
    assert moment_prices(book, Combination("m"), PricingMoment(PEAK_US, 0)) is None


def test_an_explanation_states_what_was_used_and_how_it_was_raised(tmp_path: Path) -> None:
    book = book_of(tmp_path, CALL, HEAD)
    asked = event({"milliseconds": 32_000})
    told = explain(asked, RowIndex(book))
    assert (
        told["prices"][0].items()
        >= {
            "quantity": 36_000,
            "used": 32_000,
            "increment": {"minimum": 30_000, "step": 6_000},
            "amount": "0.0036",
        }.items()
    )
    text = explain_as_text({**rated_as_json(asked, rated({"milliseconds": 32_000}, book)), "explain": told})
    assert "used (用量) 32000, billed (计费量) 36000: at least 30000, in steps (计费步长) of 6000" in text


@given(st.integers(1, 10**9), st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_billed_quantity_is_the_least_whole_number_of_steps_that_is_enough(
    used: int, minimum: int, step: int
) -> None:
    billed = billed_quantity(used, minimum, step)
    assert billed % step == 0
    assert billed >= max(used, minimum) > billed - step


@pytest.mark.parametrize(
    ("increments", "message"),
    [
        ("{}", ""),
        ("{input: {}}", "increments.input: is empty; write minimum, step or both"),
        ("{input: {step: 0}}", "increments.input.step: is '0'; write an integer from 1 to 1000000000000000"),
        ('{input: {step: "1.5"}}', "increments.input.step: is '1.5'; write an integer"),
        ("{input: {steps: 1}}", "increments.input.steps: is not a known key; did you mean 'step'?"),
        ("{inputs: {step: 1}}", "increments.inputs: is not a meter; declare it in 'meters' of the book"),
        ("{output: {step: 5}}", "warning: rows[0].increments.output: is of a meter that the row does not price"),
        ("{input: {minimum: 10, step: 6}}", "increments.input: has a minimum of 10 that is no whole number of steps: "
         "the least that is billed is 12"),
    ],
)  # fmt: skip
def test_mistakes_in_increments_are_named(tmp_path: Path, increments: str, message: str) -> None:
    text = HEAD + f'rows:\n  - {{per_million: {{input: "1"}}, increments: {increments}}}\n'
    (tmp_path / "book.yaml").write_text(text, encoding="utf-8")
    found = [str(finding).partition("book.yaml:")[2] for finding in lint_folder(tmp_path)[1]]
    assert [text.startswith("7: ") and message in text for text in found] == ([True] if message else []), found
