"""Tests of adjustments: the ones that match, stacking, the minimum charge, and prices fixed by a combination alone."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_samples import HEAD, OFF_PEAK_US, PEAK_US, book_of, event

from billing.catalog import Adjustment, Catalog, PriceBook, PriceRow, load_folder
from billing.catalog.entries import from_entries, to_entries
from billing.catalog.model import TimeBand
from billing.pricing import (
    Combination,
    PricingMoment,
    Rated,
    Rater,
    RowIndex,
    fixed_prices,
    rate,
    rated_as_json,
    unit_prices,
)
from schemas.refusals import Refusal
from schemas.times import parse_time_us
from schemas.usage import UsageEvent, parse_usage

ROW = 'rows: [{per_million: {input: "8", cache_read: "2", output: "20"}}]\n'
DISCOUNTS = """\
adjustments:
  - {service_tier: batch, multiply: "0.5", reason: batch}
  - {time_band: night, multiply: "0.8", reason: night}
  - {context: [0, 1000], multiply: "1.1", reason: small requests}
"""
NIGHT = HEAD + '  night: {timezone: Asia/Shanghai, days: [mon], hours: ["20:00-06:00"]}\n'


def rated(of: UsageEvent, book: PriceBook) -> Rated:
    """Rate an event in both ways, which must agree, and expect a price."""
    result = rate(of, book)
    assert isinstance(result, Rated), result
    assert Rater(book).rate(of) == result
    return result


@pytest.mark.parametrize(
    ("stacking", "alone", "two", "three"),
    [
        ("multiply", "8.8", "4.4", "3.52"),  # x 1.1; x 0.5 x 1.1; x 0.5 x 0.8 x 1.1
        ("best_of", "8.8", "4", "4"),  # the lowest factor
        ("replace", "8.8", "8.8", "8.8"),  # the last one written
    ],
)
def test_the_stacking_policy_of_the_book(tmp_path: Path, stacking: str, alone: str, two: str, three: str) -> None:
    book = book_of(tmp_path, f"stacking: {stacking}\n" + ROW + DISCOUNTS, NIGHT)

    def price(time_us: int = PEAK_US, **dimensions: str) -> object:
        of = event({"input": 1}, time_us, **dimensions)
        (line,) = rated_as_json(of, rated(of, book))["lines"]  # type: ignore[misc]
        return line["per_million"]

    assert price() == alone
    assert price(service_tier="batch") == two
    assert price(OFF_PEAK_US, service_tier="batch") == three


def test_multiply_is_the_default(tmp_path: Path) -> None:
    assert book_of(tmp_path, ROW, NIGHT).stacking == "multiply"


def test_an_adjustment_of_some_meters_leaves_the_others(tmp_path: Path) -> None:
    """Test Gemini's rule: batch does not halve the price of a cached token again.

    Source: docs/reference/field-practice.md, "Price dimensions".
    """
    batch = 'adjustments: [{service_tier: batch, meters: [input, output], multiply: "0.5", reason: batch}]\n'
    book = book_of(tmp_path, ROW + batch)
    counts = {"input": 1, "cache_read": 1, "output": 1, "reasoning": 1}
    found = rated(event(counts, service_tier="batch"), book)
    assert [line.price_pico for line in found.lines] == [4_000_000, 2_000_000, 10_000_000, 10_000_000]


def test_an_adjustment_by_context_counts_as_the_rows_do(tmp_path: Path) -> None:
    book = book_of(tmp_path, ROW + 'adjustments: [{context: [5, 10], multiply: "0.5", reason: middle}]\n')
    found = [rated(event({"input": tokens}), book).lines[0].price_pico for tokens in (4, 5, 9, 10)]
    assert found == [8_000_000, 4_000_000, 4_000_000, 8_000_000]


def test_one_of_several_time_bands_is_enough(tmp_path: Path) -> None:
    book = book_of(tmp_path, ROW + 'adjustments: [{time_band: [night, peak], multiply: "0.5", reason: x}]\n', NIGHT)
    found = [rated(event({"input": 1}, t), book).lines[0].price_pico for t in (PEAK_US, OFF_PEAK_US, 0)]
    assert found == [4_000_000, 4_000_000, 8_000_000]


def test_an_event_costs_at_least_the_minimum_of_its_row(tmp_path: Path) -> None:
    row = 'rows: [{per_million: {input: "1"}, standard_tokens: {input: "1"}, minimum_charge: "0.000100000001"}]\n'
    book = book_of(tmp_path, row + 'adjustments: [{site: s, multiply: "0.5", reason: x}]\n')
    small = event({"input": 60})
    assert rated_as_json(small, rated(small, book)) | {"source": 0, "id": 0} == {
        "source": 0,
        "id": 0,
        "account": "acct-1",
        "currency": "CNY",
        "amount": "0.000100000001",
        "net": "0.000094339624",  # 0.000100000001 / 1.06 = 0.0000943396235849...
        "standard_tokens": "60",
        "price_book": "retail@3",
        "lines": [
            {"meter": "input", "quantity": 60, "per_million": "1", "amount": "0.00006", "standard_tokens": "60"},
            {
                "meter": "minimum_charge",
                "quantity": 1,
                "per_million": "40.000001",
                "amount": "0.000040000001",
                "standard_tokens": "0",
            },
        ],
    }
    assert len(rated(event({"input": 101}), book).lines) == 1
    assert rated(event({"input": 102}, site="s"), book).amount_pico == 100_000_001  # the minimum is not adjusted
    assert [line.meter for line in rated(event({"input": 1}), book).lines] == ["input", "minimum_charge"]


def test_no_meter_may_have_the_name_of_the_minimum(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="the name of the line of a minimum charge"):
        book_of(tmp_path, ROW + "meters: [minimum_charge]\n")


def test_what_the_combination_alone_decides(tmp_path: Path) -> None:
    rows = """\
rows:
  - {model: plain, per_million: {input: "8"}}
  - {model: timed, per_million: {input: "8"}}
  - {model: timed, time_band: peak, per_million: {input: "8"}}
  - {model: long, context: [0, null], per_million: {input: "8"}}
  - {model: least, minimum_charge: "1", per_million: {input: "8"}}
  - {model: late, per_million: {input: "8"}}
  - {model: small, per_million: {input: "8"}}
adjustments:
  - {model: late, time_band: night, multiply: "0.5", reason: night}
  - {model: small, context: [0, 9], multiply: "0.5", reason: small}
  - {service_tier: batch, multiply: "0.5", reason: batch}
"""
    book = book_of(tmp_path, rows, NIGHT)
    index = RowIndex(book)
    rater = Rater(book)
    for model in ("plain", "timed", "long", "least", "late", "small", "unknown"):
        found = fixed_prices(book, Combination(model), index)
        assert found == fixed_prices(book, Combination(model))
        assert found == rater.fixed(Combination(model))
        assert found == ({"input": (8_000_000, 0)} if model == "plain" else None), model
    batch = Combination("plain", service_tier="batch")
    assert fixed_prices(book, batch, index) == rater.fixed(batch) == {"input": (4_000_000, 0)}
    for row in book.rows[4:]:
        with pytest.raises(ValueError, match=f"row {row.index} of retail@3 has rules that depend on the event"):
            unit_prices(book, row, Combination(row.model))
        assert unit_prices(book, row, Combination(row.model), PricingMoment(PEAK_US, 9)) == {"input": (8_000_000, 0)}


def test_stored_books_keep_their_rules_and_older_ones_their_digest(tmp_path: Path) -> None:
    rules = 'stacking: replace\nrows: [{minimum_charge: "0.1", per_million: {input: "1"}}]\n' + DISCOUNTS.replace(
        "context", "meters: [input], context"
    )
    book = book_of(tmp_path, rules, NIGHT)
    (entry,) = to_entries(Catalog((book,)))
    assert entry.body["body_version"] == 2
    assert from_entries([entry.body]).price_books == (book,)
    older = replace(
        book,
        stacking="multiply",
        rows=tuple(replace(row, minimum_charge_pico=0) for row in book.rows),
        adjustments=book.adjustments[:1],
    )
    (entry,) = to_entries(Catalog((older,)))
    assert entry.body["body_version"] == 1
    assert not {"stacking", "minimum_charge_pico"} & (set(entry.body) | set(entry.body["rows"][0]))


def test_the_worked_overlap_example_from_a_provider_s_usage_to_the_amount(tmp_path: Path) -> None:
    """Issue 4: 1000 input of which 600 image, 300 cached, 200 both, 100 output. Every token is charged once."""
    prices = '{input: "1", image_input: "2", cache_read: "0.1", image_cache_read: "0.2", output: "8"}'
    book = book_of(tmp_path, f"rows: [{{per_million: {prices}}}]\n")
    value = b"""{"specversion":"1.0","type":"token.usage.v1","source":"s","id":"1","time":"2026-11-22T01:15:03Z",
        "subject":"a","data":{"model":"m","usage_dialect":"openai.chat","usage":{"prompt_tokens":1000,
        "completion_tokens":100,"total_tokens":1100,"prompt_tokens_details":{"cached_tokens":300,"image_tokens":600,
        "cached_tokens_details":{"image_tokens":200}}}}}"""
    of = parse_usage(value)
    assert isinstance(of, UsageEvent), of
    assert sum(quantity for _, quantity in of.counts) == 1100
    lines = {line.meter: (line.quantity, line.amount_pico) for line in rated(of, book).lines}
    assert lines == {
        "input": (300, 300_000_000),
        "cache_read": (100, 10_000_000),
        "output": (100, 800_000_000),
        "image_input": (400, 800_000_000),
        "image_cache_read": (200, 40_000_000),
    }
    assert rated(of, book).amount_pico == 1_950_000_000


METER_NAMES = ("input", "cache_read", "output")
ADJUSTMENT = st.builds(
    Adjustment,
    st.sampled_from([{}, {"model": ("m*",)}, {"model": ("n",)}, {"site": ("a", "b*"), "channel": ("*",)}]),
    st.integers(0, 3 * 10**12),
    st.just("x"),
    st.sampled_from([(), (), ("peak",), ("night",), ("peak", "night")]),
    st.sampled_from([None, None, (0, 3), (3, None)]),
    st.sampled_from([(), (), ("input",), ("cache_read", "output")]),
)


def by_hand(adjustments: list[Adjustment], stacking: str, meter: str, site: str, band: str, tokens: int) -> Fraction:
    """Return the factor on a meter, computed without the code under test."""
    factors = []
    for each in adjustments:
        wrong_model = each.scope.get("model") == ("n",)
        wrong_site = "site" in each.scope and site != "a" and site[:1] != "b"
        wrong_time = each.time_bands != () and band not in each.time_bands
        wrong_size = each.context is not None and (tokens < 3) != (each.context == (0, 3))
        if not (wrong_model or wrong_site or wrong_time or wrong_size or (each.meters and meter not in each.meters)):
            factors.append(Fraction(each.multiply_pico, 10**12))
    if stacking == "replace":
        factors = factors[-1:]
    if stacking == "best_of":
        factors = sorted(factors)[:1]
    product = Fraction(1)
    for factor in factors:
        product *= factor
    return product


@given(
    st.lists(ADJUSTMENT, max_size=5),
    st.sampled_from(["multiply", "best_of", "replace"]),
    st.sampled_from(["a", "ab", "b", "bc", "c"]),
    st.sampled_from([("peak", PEAK_US), ("night", OFF_PEAK_US), ("", 0)]),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
    st.tuples(*[st.integers(0, 10**10)] * 3),
    st.integers(0, 10**11),
)
def test_every_policy_agrees_with_factors_worked_out_by_hand(  # type: ignore[no-untyped-def]
    adjustments, stacking, site, band_and_time, quantities, list_prices, minimum
) -> None:
    band, time_us = band_and_time
    bands = {
        "peak": TimeBand("peak", "Asia/Shanghai", (0,), ((540, 720),)),
        "night": TimeBand("night", "Asia/Shanghai", (0,), ((1200, 360),)),
    }
    prices = dict(zip(METER_NAMES, list_prices, strict=True))
    row = PriceRow(0, *["*"] * 6, ("completed",), None, None, prices, {}, {}, minimum, unmetered=True)  # type: ignore[arg-type]
    book = PriceBook("b", 1, "CNY", 0, 0, None, bands, (row,), tuple(adjustments), stacking=stacking)
    counts = {meter: count for meter, count in zip(METER_NAMES, quantities, strict=True) if count}
    of = event(counts, time_us, site=site)
    result = rate(of, book)
    rater = Rater(book)
    assert rater.rate(of) == rater.rate(of) == result
    tokens = counts.get("input", 0) + counts.get("cache_read", 0)
    expected = [  # Fraction rounds half to even
        count * round(prices[meter] * by_hand(adjustments, stacking, meter, site, band, tokens))
        for meter, count in counts.items()
    ]
    expected += [minimum - sum(expected)] if sum(expected) < minimum else []
    assert not isinstance(result, Refusal)
    assert [line.amount_pico for line in result.lines] == expected
    assert result.amount_pico == sum(expected) >= minimum
    fixed = fixed_prices(book, Combination("m", site=site))
    if fixed is not None:
        assert result.amount_pico == sum(count * fixed[meter][0] for meter, count in counts.items())
    elif not minimum:
        assert any(a.time_bands or a.context for a in adjustments)


def test_every_hour_of_2026_at_the_peak_and_off_peak_price(tmp_path: Path) -> None:
    """Compare DeepSeek's peak hours in UTC, with public holidays and make-up days, as a row and as a discount.

    Source: docs/reference/field-practice.md, "Price dimensions".
    """
    holidays = Path(__file__).parents[3] / "examples" / "catalog" / "holidays-cn.yaml"
    (tmp_path / "h.yaml").write_text(holidays.read_text(encoding="utf-8"), encoding="utf-8")
    head = HEAD.replace('"14:00-18:00"]}', '"14:00-18:00"], except: cn-holidays}')
    head += '  rest: {timezone: UTC, days: [mon, tue, wed, thu, fri, sat, sun], hours: ["00:00-24:00"]}\n'
    by_row = 'rows: [{per_million: {input: "1"}}, {time_band: peak, per_million: {input: "2"}}]\n'
    by_discount = 'stacking: replace\nrows: [{per_million: {input: "2"}}]\nadjustments:\n'
    by_discount += (
        '  - {time_band: rest, multiply: "0.5", reason: off-peak}\n  - {time_band: peak, multiply: "1", reason: peak}\n'
    )
    books = []
    for text in (by_row, by_discount):
        (tmp_path / "b.yaml").write_text(head + text, encoding="utf-8")
        books.append(Rater(load_folder(tmp_path).price_books[0]))
    off = {(1, 1), (1, 2), (2, 16), (2, 17), (2, 18), (2, 19), (2, 20), (2, 23), (4, 6), (5, 1), (5, 4), (5, 5)}
    off |= {(6, 19), (9, 25), (10, 1), (10, 2), (10, 5), (10, 6), (10, 7)}  # the holidays that are Monday to Friday
    work = {(1, 4), (2, 14), (2, 28), (5, 9), (9, 20), (10, 10)}
    moment, peaks = datetime(2025, 12, 31, 16, tzinfo=UTC), 0
    for _ in range(8760):
        local = (moment + timedelta(hours=8)).date()
        day = (local.month, local.day)
        is_peak = moment.hour in (1, 2, 3, 6, 7, 8, 9) and (day in work or (local.isoweekday() < 6 and day not in off))
        of = event({"input": 1}, parse_time_us(moment.isoformat()))
        for rater in books:
            found = rater.rate(of)
            assert isinstance(found, Rated)
            assert found.amount_pico == (2_000_000 if is_peak else 1_000_000), moment
        peaks += is_peak
        moment += timedelta(hours=1)
    assert peaks == 248 * 7
