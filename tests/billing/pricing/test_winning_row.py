"""Tests of the winner rule (docs/reference/price-books.md, "Winning row"): a table, and a pairwise comparison."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pricing_samples import HEAD, OFF_PEAK_US, PEAK_US, book_of

from billing.catalog import PriceBook, PriceRow, TimeBand
from billing.pricing import Combination, RowIndex, candidates, winning_row

PRICE = 'per_million: {input: "1"}'


def book_with(folder: Path, *rows: str) -> PriceBook:
    return book_of(folder, "rows:\n" + "".join(f"  - {{{row}{', ' if row else ''}{PRICE}}}\n" for row in rows), HEAD)


EVENT = Combination("deepseek-v3.2", "ascend-910c.supernode384", "solar", "wuxi-tf01", "cloud", "standard")


@pytest.mark.parametrize(
    ("better", "worse", "why"),
    [
        ("model: deepseek-v3.2", 'model: "deepseek-v3.2*", site: wuxi-tf01, channel: cloud', "exact model over prefix"),
        ('model: "deepseek-v3*"', 'model: "deepseek-*", site: wuxi-tf01', "longer model prefix over shorter"),
        ('model: "d*"', "hardware_tier: ascend-910c.supernode384, site: wuxi-tf01", "any model prefix over none"),
        ('site: "w*", channel: cloud', "hardware_tier: ascend-910c.supernode384", "two fixed over one"),
        ('hardware_tier: "a*"', "energy_source: solar", "hardware tier comes before energy source"),
        ("energy_source: solar", "site: wuxi-tf01", "energy source before site"),
        ("site: wuxi-tf01", "channel: cloud", "site before channel"),
        ("channel: cloud", "service_tier: standard", "channel before service tier"),
        ("service_tier: standard", "time_band: peak", "service tier before time band"),
        ("time_band: peak", "context: [0, 50]", "time band before context"),
        ("context: [0, 50]", "output_context: [0, 50]", "context before output length"),
        ("context: [0, 50]", "", "a context band is fixed"),
        ("output_context: [0, null]", 'output_context: "*"', "an open output band is fixed all the same"),
        ("context: [0, 50], output_context: [0, 9]", "time_band: peak", "an output band counts as a dimension"),
        ("time_band: peak", 'time_band: "*"', "a time band is fixed"),
        ("context: [0, null]", 'context: "*"', "an open context band is fixed all the same"),
        ("time_band: peak, context: [0, 50]", "hardware_tier: ascend-910c.supernode384", "bands count as dimensions"),
        ('hardware_tier: "ascend-910*"', 'hardware_tier: "ascend-*"', "the longer prefix of a dimension"),
        ("hardware_tier: ascend-910c.supernode384", 'hardware_tier: "ascend-910c.supernode384*"', "exact over prefix"),
        ('hardware_tier: "ascend-910*", site: "w*"', 'hardware_tier: "a*", site: wuxi-tf01', "first dimension decides"),
        ("energy_source: solar", 'energy_source: "*"', "a star is not fixed"),
        ("model: deepseek-v3.2", 'model: "*", time_band: peak, context: [0, 50], site: wuxi-tf01', "model before all"),
    ],
)
def test_the_winner_of_two_rows(tmp_path: Path, better: str, worse: str, why: str) -> None:
    for rows, index in (((better, worse), 0), ((worse, better), 1)):
        book = book_with(tmp_path, *rows)
        row = winning_row(book, EVENT, PEAK_US, 9)
        assert row is not None and row.index == index, why


@pytest.mark.parametrize(
    "row",
    [
        "model: deepseek-v3",
        'model: "deepseek-v3.2.*"',
        "hardware_tier: ascend-910c",
        "site: wuxi",
        "channel: edge",
        "outcome: [partial, failed]",
        "context: [10, null]",
        "context: [0, 9]",
        "output_context: [1, null]",
    ],
)
def test_a_row_that_does_not_match_does_not_win(tmp_path: Path, row: str) -> None:
    assert winning_row(book_with(tmp_path, row), EVENT, PEAK_US, 9) is None


def test_the_upper_end_of_a_context_band_is_excluded(tmp_path: Path) -> None:
    book = book_with(tmp_path, "context: [0, 32001]", "context: [32001, null]")
    found = [winning_row(book, EVENT, PEAK_US, tokens) for tokens in (0, 32_000, 32_001, 2**62)]
    assert [row.index if row else None for row in found] == [0, 0, 1, 1]


def test_outside_its_band_a_row_leaves_the_event_to_the_next(tmp_path: Path) -> None:
    book = book_with(tmp_path, "time_band: peak", "")
    found = [winning_row(book, EVENT, time_us, 9) for time_us in (PEAK_US, OFF_PEAK_US)]
    assert [row.index if row else None for row in found] == [0, 1]


def test_outcomes_are_priced_only_where_a_row_says_so(tmp_path: Path) -> None:
    book = book_with(tmp_path, "model: deepseek-v3.2", "outcome: partial", "outcome: [completed, failed], site: x")
    found = [winning_row(book, EVENT._replace(outcome=o), PEAK_US, 9) for o in ("completed", "partial", "failed")]
    assert [row.index if row else None for row in found] == [0, 1, None]


def beats(one: PriceRow, two: PriceRow) -> bool:
    """Apply the rule as the page states it, without a sort key; False for a tie."""

    def more_specific(a: str, b: str) -> bool:
        if a.endswith("*") and b.endswith("*"):
            return len(a) > len(b)
        return not a.endswith("*") and b.endswith("*")

    def fixed(row: PriceRow) -> int:
        others = [pattern for pattern in row.patterns[1:] if pattern != "*"]
        bands = (row.time_band, row.context, row.output_context)
        return len(others) + sum(band is not None for band in bands)

    if more_specific(one.model, two.model) or more_specific(two.model, one.model):
        return more_specific(one.model, two.model)
    if fixed(one) != fixed(two):
        return fixed(one) > fixed(two)
    for a, b in zip(one.patterns[1:], two.patterns[1:], strict=True):
        if more_specific(a, b) or more_specific(b, a):
            return more_specific(a, b)
    if (one.time_band is None) != (two.time_band is None):
        return two.time_band is None
    if (one.context is None) != (two.context is None):
        return two.context is None
    return one.output_context is not None and two.output_context is None


def fits(row: PriceRow, combination: Combination, peak: bool, tokens: int, output: int) -> bool:
    for pattern, value in zip(row.patterns, combination, strict=False):
        wanted = pattern.rstrip("*")
        if not (value[: len(wanted)] == wanted and (pattern.endswith("*") or len(value) == len(wanted))):
            return False
    for band, length in ((row.context, tokens), (row.output_context, output)):
        low, high = band or (0, None)
        if length not in range(low, 100 if high is None else high):
            return False
    return combination.outcome in row.outcome and (row.time_band is None or peak)


PATTERN = st.sampled_from(["*", "*", "a", "ab", "a*", "ab*", "b*"])
VALUE = st.sampled_from(["a", "ab", "abc", "b", ""])
CONTEXT = st.sampled_from([None, None, (0, 2), (1, None), (0, None), (2, 5)])
OUTCOME = st.sampled_from([("completed",), ("partial",), ("completed", "partial")])
TEXTS = st.tuples(PATTERN, PATTERN, PATTERN, PATTERN, PATTERN, PATTERN)
ROWS = st.lists(st.tuples(TEXTS, OUTCOME, st.sampled_from([None, "peak"]), CONTEXT, CONTEXT), max_size=8)


Band = tuple[int, int | None] | None


def book_from(rows: list[tuple[tuple[str, ...], tuple[str, ...], str | None, Band, Band]]) -> PriceBook:
    peak = TimeBand("peak", "Asia/Shanghai", (0, 1, 2, 3, 4), ((540, 720),))
    made = tuple(
        PriceRow(index, *texts, outcome, band, context, {"input": 1}, {}, {}, output_context=output)
        for index, (texts, outcome, band, context, output) in enumerate(rows)
    )
    return PriceBook("b", 1, "CNY", 0, 0, None, {"peak": peak}, made)


@given(
    ROWS,
    st.builds(Combination, VALUE, VALUE, VALUE, VALUE, VALUE, VALUE, st.sampled_from(["completed", "partial"])),
    st.booleans(),
    st.integers(0, 6),
    st.integers(0, 6),
)
def test_the_winner_agrees_with_comparing_every_pair(rows, combination, peak, tokens, output) -> None:  # type: ignore[no-untyped-def]
    book = book_from(rows)
    time_us = PEAK_US if peak else OFF_PEAK_US
    fitting = [row for row in book.rows if fits(row, combination, peak, tokens, output)]
    best = [row for row in fitting if not any(beats(other, row) for other in fitting)]
    winner = winning_row(book, combination, time_us, tokens, output)
    if not fitting:
        assert winner is None
    else:
        assert winner is best[0]  # the first of tied rows, which a published book does not have
    assert RowIndex(book).candidates(combination) == candidates(book, combination)
