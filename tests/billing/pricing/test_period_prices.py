"""Tests of prices that depend on a period: tiers, blocks and commitments, compared with pricing every unit alone."""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pricing_samples import HEAD, book_of, event

from billing.accounts.extras import Counter
from billing.catalog import PriceBook
from billing.catalog.period_calendar import period_of
from billing.catalog.period_rules import COMMITMENT, PeriodRule
from billing.pricing import Combination, PricingMoment, Rated, Rater, RowIndex, fixed_prices, rate, rated_as_json
from billing.pricing.explain import explain
from billing.pricing.explain_text import explain_as_text
from billing.pricing.period_prices import Clock, Counters, without_past
from billing.pricing.rate import moment_prices
from schemas.refusals import Refusal
from schemas.times import DAY_US, HOUR_US, format_time_us, parse_time_us
from schemas.units import MILLION, format_scaled
from schemas.usage import UsageEvent

NOVEMBER = "2026-11-01"
IN_NOVEMBER_US = parse_time_us("2026-11-15T12:00:00+08:00")
DECEMBER_US = parse_time_us("2026-12-01T00:00:00+08:00")
TIERS = [{"up_to": "10"}, {"up_to": "25", "multiply": "0.5"}, {"up_to": None, "per_million": {"input": "1"}}]
GRADUATED = {"kind": "graduated", "count": ["input", "output"], "tiers": TIERS}
PRICES = {"input": "2", "output": "3", "cache_read": "0.1"}


def book_with(folder: Path, periods: Mapping[str, Any], row: Mapping[str, Any] | None = None, **rest: Any) -> PriceBook:
    """Return a book with one row for every model, which names all the rules."""
    one = {"per_million": PRICES, "periods": list(periods)} | dict(row or {})
    return book_of(folder, yaml.safe_dump({"rows": [one], "periods": dict(periods)} | rest, sort_keys=False), HEAD)


def lines(rated: Rated | Refusal) -> list[tuple[str, int, str]]:
    """Return meter, quantity and price per million of each line."""
    assert isinstance(rated, Rated), rated
    return [(line.meter, line.quantity, format_scaled(line.price_pico, 6)) for line in rated.lines]


def priced(book: PriceBook, *counts: dict[str, int], time_us: int = IN_NOVEMBER_US) -> list[list[tuple[str, int, str]]]:
    """Rate events of one account one after the other in both ways, which must agree, and return their lines."""
    rater, counters, found = Rater(book), dict[str, Counter](), []
    for of in counts:
        one = event(of, time_us)
        rated = rate(one, book, counters)
        assert rater.rate(one, counters) == rated
        found.append(lines(rated))
        counters |= rated.counters if isinstance(rated, Rated) else {}
    return found


def test_an_event_that_crosses_boundaries_is_split_by_meter_and_tier(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    assert priced(book, {"input": 8}, {"input": 4, "cache_read": 7, "output": 20}, {"output": 1, "input": 1}) == [
        [("input", 8, "2")],
        [("input", 2, "2"), ("input", 2, "1"), ("cache_read", 7, "0.1"), ("output", 13, "1.5"), ("output", 7, "3")],
        [("output", 1, "3"), ("input", 1, "1")],
    ]


def test_reasoning_charged_as_output_is_counted_as_output(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    assert priced(book, {"reasoning": 12}) == [[("reasoning", 10, "3"), ("reasoning", 2, "1.5")]]
    own = book_with(tmp_path, {"monthly": GRADUATED}, {"per_million": PRICES | {"reasoning": "5"}})
    assert priced(own, {"reasoning": 12}) == [[("reasoning", 12, "5")]]


def test_volume_prices_the_whole_event_by_what_was_counted_before_it(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED | {"kind": "volume"}})
    assert priced(book, {"input": 9}, {"input": 30, "output": 2}, {"input": 1}) == [
        [("input", 9, "2")],
        [("input", 30, "2"), ("output", 2, "3")],
        [("input", 1, "1")],
    ]


def test_standard_tokens_are_counted_and_the_unit_that_crosses_is_in_the_lower_tier(tmp_path: Path) -> None:
    rule = {
        "kind": "graduated",
        "count": "standard_tokens",
        "tiers": [{"up_to": "3"}, {"up_to": None, "multiply": "0"}],
    }
    book = book_with(tmp_path, {"p": rule}, {"standard_tokens": {"input": "1.25", "output": "4"}})
    assert priced(book, {"cache_read": 9, "input": 4}) == [
        [("cache_read", 9, "0.1"), ("input", 3, "2"), ("input", 1, "0")]
    ]


def test_a_block_is_paid_by_its_first_unit_and_its_rest_is_free(tmp_path: Path) -> None:
    rule = {"kind": "blocks", "count": ["input", "output"], "block": {"units": "10", "price": "0.5"}}
    book = book_with(tmp_path, {"blocks_of_10": rule})
    free = ("input", 4, "0")
    assert priced(book, {"input": 4}, {"input": 4}, {"input": 4, "output": 9, "cache_read": 1}, {"output": 9}) == [
        [free, ("blocks", 1, "500000")],
        [free],
        [free, ("output", 9, "0"), ("cache_read", 1, "0.1"), ("blocks", 2, "500000")],
        [("output", 9, "0")],
    ]


def test_within_and_above_a_commitment_the_factors_differ(tmp_path: Path) -> None:
    deal = {"kind": "commitment", "amount": "0.00002", "multiply": "0.8", "overflow_multiply": "1.5"}
    book = book_with(tmp_path, {"deal": deal})
    # 1.6 yuan a million: 12.5 units draw 20 millionths, and the 13th begins within
    assert priced(book, {"input": 5}, {"input": 10}, {"output": 2}) == [
        [("input", 5, "1.6")],
        [("input", 8, "1.6"), ("input", 2, "3")],
        [("output", 2, "4.5")],
    ]


def test_rules_and_adjustments_make_one_product(tmp_path: Path) -> None:
    book = book_with(
        tmp_path,
        {
            "monthly": {"kind": "volume", "count": "input", "tiers": [{"up_to": None, "multiply": "0.333333333333"}]},
            "deal": {"kind": "commitment", "amount": "1", "multiply": "0.7"},
        },
        adjustments=[{"multiply": "0.9", "reason": "all"}, {"multiply": "3", "meters": ["output"], "reason": "some"}],
    )  # fmt: skip
    (line,) = rate(event({"input": 1}), book).lines  # type: ignore[union-attr]
    assert line.price_pico == round(Fraction(2 * MILLION) * Fraction("0.333333333333") * Fraction("0.63"))
    blocks = {"kind": "blocks", "count": "input", "block": {"units": "10", "price": "0.5"}}
    book = book_with(tmp_path, {"b": blocks, "deal": {"kind": "commitment", "amount": "1", "multiply": "0.7"}},
                     adjustments=[{"multiply": "0.9", "reason": "all"}])  # fmt: skip
    assert priced(book, {"input": 1}) == [[("input", 1, "0"), ("blocks", 1, "315000")]]


def test_every_period_begins_anew_and_an_event_counts_in_the_period_of_its_own_time(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    first = rate(event({"input": 10}, DECEMBER_US - 1), book)
    assert isinstance(first, Rated) and list(first.counters) == [f"monthly@{NOVEMBER}"]
    december = rate(event({"input": 1}, DECEMBER_US), book, first.counters)
    assert lines(december) == [("input", 1, "2")]
    assert isinstance(december, Rated) and list(december.counters) == ["monthly@2026-12-01"]
    late = rate(event({"input": 1}, DECEMBER_US - HOUR_US), book, first.counters | december.counters)
    assert lines(late) == [("input", 1, "1")]


def test_a_period_that_is_over_too_long_is_not_counted(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    of = event({"input": 1}, DECEMBER_US - 1)
    assert isinstance(rate(of, book, {}, Clock(DECEMBER_US + DAY_US, DECEMBER_US - 1)), Rated)
    refused = rate(of, book, {}, Clock(DECEMBER_US + DAY_US, DECEMBER_US))
    assert isinstance(refused, Refusal) and refused.code == "time_too_old"
    assert refused.detail == (
        "time: the price depends on what was used from 2026-11-01 to 2026-11-30T16:00:00Z, "
        "and that is not counted any more"
    )
    counters = {"monthly@2026-11-01": Counter(5, DECEMBER_US), "deal@2026-11-01": Counter(5, DECEMBER_US, 99)}
    assert without_past(counters, DECEMBER_US - 1) == counters
    assert without_past(counters, DECEMBER_US) == {"deal@2026-11-01": Counter(5, DECEMBER_US, 99)}


def test_after_a_commitment_was_settled_usage_is_above_it_and_draws_nothing(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"deal": {"kind": "commitment", "amount": "1", "multiply": "0.5"}})
    of = event({"input": 3}, DECEMBER_US - 1)
    before = rate(of, book, {}, Clock(DECEMBER_US + DAY_US - 1))
    assert lines(before) == [("input", 3, "1")]
    after = rate(of, book, {}, Clock(DECEMBER_US + DAY_US))
    assert lines(after) == [("input", 3, "2")]
    assert isinstance(after, Rated) and after.counters == {}


def test_a_meter_without_price_rejects_the_event_whole(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    refused = rate(event({"input": 1, "images": 2}), book)
    assert isinstance(refused, Refusal) and refused.code == "no_price"
    told = explain(event({"input": 1, "images": 2}), RowIndex(book))
    assert [price["meter"] for price in told["prices"]] == ["input"] and told["periods"] == []


def test_a_combination_that_a_period_prices_is_for_the_plain_rule(tmp_path: Path) -> None:
    book = book_with(tmp_path, {"monthly": GRADUATED})
    assert fixed_prices(book, Combination("m")) is None
    assert moment_prices(book, Combination("m"), PricingMoment(IN_NOVEMBER_US, 0)) is None


def test_a_minimum_charge_lifts_what_the_rules_say_and_draws_no_commitment(tmp_path: Path) -> None:
    deal = {"kind": "commitment", "amount": "1"}
    book = book_with(tmp_path, {"deal": deal}, {"minimum_charge": "0.01"})
    rated = rate(event({"input": 5}, IN_NOVEMBER_US), book)
    assert lines(rated) == [("input", 5, "2"), ("minimum_charge", 1, "9990")]
    assert isinstance(rated, Rated) and rated.counters[f"deal@{NOVEMBER}"].used == 10 * MILLION


FACTORS = st.sampled_from(["0", "0.333333333333", "0.5", "1", "1.7"])
COUNTS = st.lists(st.sampled_from(["input", "output", "cache_read", "reasoning"]), unique=True, max_size=4).flatmap(
    lambda meters: st.fixed_dictionaries({meter: st.integers(1, 30) for meter in meters})
)


@st.composite
def counting_rules(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(
        st.sampled_from(["standard_tokens", ["input"], ["input", "output"], ["cache_read", "input", "output"]])
    )
    kind = draw(st.sampled_from(["graduated", "volume", "blocks"]))
    if kind == "blocks":
        block = {"units": str(draw(st.integers(1, 20))), "price": draw(st.sampled_from(["0", "0.000007", "2"]))}
        return {"kind": kind, "count": count, "block": block}
    ends = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    tiers = [{"up_to": None if end is None else str(end), "multiply": draw(FACTORS)} for end in [*ends, None]]
    return {"kind": kind, "count": count, "tiers": tiers}


COMMITMENTS = st.builds(
    lambda amount, within, above: {
        "kind": "commitment",
        "amount": amount,
        "multiply": within,
        "overflow_multiply": above,
    },
    st.sampled_from(["0.000000000001", "0.00001", "0.0001", "9"]),
    FACTORS,
    FACTORS,
)


class UnitByUnit:
    """Reference for the rule: prices every unit alone, in fractions of the currency."""

    def __init__(self, counting: dict[str, Any] | None, deal: dict[str, Any] | None, weights: dict[str, str]) -> None:
        self.counting, self.deal, self.weights = counting, deal, weights
        self.counted = Fraction(0)
        self.block_left = Fraction(0)
        self.drawn = Fraction(0)

    def event(self, counts: dict[str, int]) -> Fraction:
        before, amount = self.counted, Fraction(0)
        blocks = 0
        for meter, quantity in counts.items():
            for _ in range(quantity):
                price = Fraction(PRICES["output" if meter == "reasoning" else meter]) / MILLION
                weight = self.weight(meter)
                if weight and self.counting is not None:
                    if self.counting["kind"] == "blocks":
                        price = Fraction(0)
                        self.block_left -= weight
                        while self.block_left < 0:
                            self.block_left += int(self.counting["block"]["units"])
                            blocks += 1
                        continue
                    at = before if self.counting["kind"] == "volume" else self.counted
                    price *= Fraction(self.tier(at)["multiply"])
                    self.counted += weight
                amount += self.charged(price)
        for _ in range(blocks):
            amount += self.charged(Fraction(self.counting["block"]["price"]))  # type: ignore[index]
        return amount

    def tier(self, at: Fraction) -> dict[str, Any]:
        assert self.counting is not None
        return next(t for t in self.counting["tiers"] if t["up_to"] is None or at < int(t["up_to"]))  # type: ignore[no-any-return]

    def weight(self, meter: str) -> Fraction:
        count = self.counting["count"] if self.counting else []
        meter = "output" if meter == "reasoning" else meter
        if count == "standard_tokens":
            return Fraction(self.weights.get(meter, "0"))
        return Fraction(int(meter in count))

    def charged(self, price: Fraction) -> Fraction:
        if self.deal is None:
            return rounded(price)
        if self.drawn < Fraction(self.deal["amount"]):
            price = rounded(price * Fraction(self.deal["multiply"]))
            self.drawn += price
            return price
        return rounded(price * Fraction(self.deal["overflow_multiply"]))


def rounded(price: Fraction) -> Fraction:
    return Fraction(round(price * 10**12), 10**12)


@settings(max_examples=200, deadline=None)
@given(
    counting=st.none() | counting_rules(),
    deal=st.none() | COMMITMENTS,
    weights=st.sampled_from([{}, {"input": "1"}, {"input": "0.3", "output": "2.5"}]),
    events=st.lists(COUNTS, max_size=8),
)
def test_splitting_equals_pricing_every_unit_alone(
    tmp_path_factory: pytest.TempPathFactory,
    counting: dict[str, Any] | None,
    deal: dict[str, Any] | None,
    weights: dict[str, str],
    events: list[dict[str, int]],
) -> None:
    rules = {name: rule for name, rule in (("counting", counting), ("deal", deal)) if rule is not None}
    row = {"standard_tokens": weights} if weights else {}
    book = book_with(tmp_path_factory.mktemp("book"), rules, row if rules else row | {"periods": ["none"]})
    if not rules:
        book = replace(book, rows=(replace(book.rows[0], periods=()),))
    referee, counters = UnitByUnit(counting, deal, weights), dict[str, Counter]()
    rater = Rater(book, zero_is_known=True)
    for counts in events:
        rated = rater.rate(event(counts, IN_NOVEMBER_US), counters)
        assert isinstance(rated, Rated)
        assert Fraction(rated.amount_pico, 10**12) == referee.event(counts)
        counted = dict.fromkeys(counts, 0)
        for line in rated.lines:
            if line.meter != "blocks":
                counted[line.meter] += line.quantity
        assert counted == counts
        assert sum(line.amount_pico for line in rated.lines) == rated.amount_pico
        check_explanation(event(counts, IN_NOVEMBER_US), book, counters, rated)
        counters |= rated.counters


def check_explanation(of: UsageEvent, book: PriceBook, counters: Counters, rated: Rated) -> None:
    """Check that an explanation has the lines' prices, each recomputed from list price and factor, and the counters."""
    told = explain(of, RowIndex(book), counters)
    assert [(p["meter"], p["quantity"], p["amount"], p["standard_tokens"]) for p in told["prices"]] == [
        (line["meter"], line["quantity"], line["amount"], line["standard_tokens"])
        for line in rated_as_json(of, rated)["lines"]  # type: ignore[attr-defined]
    ]
    for price in told["prices"]:
        list_price = Fraction(price["list_per_million"]) * Fraction(price["factor"]) / MILLION
        list_price *= Fraction(price.get("period_factor", "1"))
        assert rounded(list_price) * MILLION == Fraction(price["per_million"])
    for rule, item in zip(told.get("periods", ()), rated.counted, strict=True):
        digits = 12 if item.rule.kind == COMMITMENT else 6
        (before, after) = [value for key, value in rule.items() if key.endswith(("_before", "_after"))]
        assert (Fraction(before) * 10**digits, Fraction(after) * 10**digits) == (item.before.used, item.after.used)  # type: ignore[union-attr]
    assert explain_as_text(rated_as_json(of, rated) | {"explain": told}).count("  period rule (") == len(rated.counted)


@pytest.mark.parametrize(
    ("every", "timezone", "time", "first_day", "until"),
    [
        ("calendar_month", "Asia/Shanghai", "2026-10-31T15:59:59.999999Z", "2026-10-01", "2026-10-31T16:00:00Z"),
        ("calendar_month", "Asia/Shanghai", "2026-10-31T16:00:00Z", "2026-11-01", "2026-11-30T16:00:00Z"),
        ("calendar_month", "UTC", "2028-02-29T23:00:00Z", "2028-02-01", "2028-03-01T00:00:00Z"),
        ("week", "Asia/Shanghai", "2026-11-22T15:59:59Z", "2026-11-16", "2026-11-22T16:00:00Z"),
        ("week", "Asia/Shanghai", "2026-11-22T16:00:00Z", "2026-11-23", "2026-11-29T16:00:00Z"),
        ("day", "Europe/Berlin", "2026-10-25T22:30:00Z", "2026-10-25", "2026-10-25T23:00:00Z"),
        ("calendar_month", "UTC", "9999-12-28T00:00:00Z", "9999-12-01", None),
        ("week", "America/New_York", "1970-01-01T00:00:00Z", "1969-12-29", "1970-01-05T05:00:00Z"),
    ],
)
def test_periods_are_local_months_weeks_and_days(
    every: str, timezone: str, time: str, first_day: str, until: str | None
) -> None:
    period = period_of(PeriodRule("p", COMMITMENT, every, timezone), parse_time_us(time))
    assert period.first_day == first_day
    assert period.from_us <= parse_time_us(time) < period.until_us
    assert until is None or format_time_us(period.until_us) == until
