"""Rows and adjustments that match by the length of the answer, and contexts that count the whole prompt."""

from pathlib import Path

import pytest
from pricing_samples import book_of, event

from billing.catalog import PriceBook
from billing.pricing import Rated, Rater, RowIndex, rate
from billing.pricing.explain import explain
from billing.pricing.explain_text import explain_as_text
from billing.pricing.rate import rated_as_json
from schemas.refusals import Refusal
from schemas.units import format_pico

HEAD = """\
kind: price_book
name: glm
version: 1
currency: CNY
tax_rate: "0"
effective_from: "2019-01-01T00:00:00Z"
"""
GLM = """\
rows:
  - model: m
    context: [0, 32000]
    output_context: [0, 200]
    per_million: {input: "2", cache_read: "0.4", output: "8"}
  - model: m
    context: [0, 32000]
    output_context: [200, null]
    per_million: {input: "3", cache_read: "0.6", output: "14"}
  - model: m
    context: [32000, null]
    per_million: {input: "4", cache_read: "0.8", output: "16"}
"""
CACHED = ("cache_read", "image_cache_read", "audio_cache_read")
BANDS = "rows:\n" + "".join(
    f"  - {{context: {band}, per_million: {{output: '{output}', {', '.join(f'{m}: {p}' for m, p in prices.items())}"
    "}}\n"
    for band, output, prices in (
        ("[0, 200001]", 10, {"input": "'1.25'", "image_input": "'1.25'"} | dict.fromkeys(CACHED, "'0.125'")),
        ("[200001, null]", 15, {"input": "'2.5'", "image_input": "'2.5'"} | dict.fromkeys(CACHED, "'0.25'")),
    )
)


def amount(counts: dict[str, int], book: PriceBook) -> str:
    result = rate(event(counts), book)
    assert isinstance(result, Rated), result
    assert Rater(book).rate(event(counts)) == result
    return format_pico(result.amount_pico)


@pytest.mark.parametrize(
    ("output", "reasoning", "cost"),
    [(150, 0, "0.0148"), (199, 0, "0.015192"), (100, 99, "0.015192"), (200, 0, "0.0232"), (100, 100, "0.0232"),
     (0, 0, "0.0136")],
)  # fmt: skip
def test_a_short_answer_has_the_price_of_its_band(tmp_path: Path, output: int, reasoning: int, cost: str) -> None:
    counts = {"input": 6_000, "cache_read": 4_000, "output": output, "reasoning": reasoning}
    book = book_of(tmp_path, GLM, HEAD)
    assert amount({meter: count for meter, count in counts.items() if count}, book) == cost


def test_a_long_prompt_has_one_price_whatever_the_answer(tmp_path: Path) -> None:
    book = book_of(tmp_path, GLM, HEAD)
    assert amount({"input": 32_000, "output": 100}, book) == "0.1296"
    assert amount({"input": 32_000, "output": 1_000}, book) == "0.144"


def test_an_adjustment_matches_by_the_length_of_the_answer(tmp_path: Path) -> None:
    text = (
        'rows: [{per_million: {output: "1"}}]\nadjustments: [{output_context: [0, 10], multiply: "0.5", reason: r}]\n'
    )
    book = book_of(tmp_path, text, HEAD)
    assert (amount({"output": 9}, book), amount({"output": 10}, book)) == ("0.0000045", "0.00001")


@pytest.mark.parametrize("cached", [*CACHED, "image_input"])
def test_cached_images_and_sound_are_as_long_as_cached_text(tmp_path: Path, cached: str) -> None:
    expected = "0.54" if cached == "image_input" else "0.495"
    assert amount({"input": 190_000, cached: 20_000, "output": 1_000}, book_of(tmp_path, BANDS, HEAD)) == expected


def test_a_rejection_names_the_length_of_the_answer_where_a_band_asks_for_it(tmp_path: Path) -> None:
    book = book_of(tmp_path, 'rows: [{output_context: [5, null], per_million: {output: "1"}}]\n', HEAD)
    result = rate(event({"output": 2, "reasoning": 1}), book)
    assert isinstance(result, Refusal)
    assert result.detail.endswith(", context 0, output_context 3; add a row that does")


def test_an_explanation_states_the_length_of_the_answer_and_why_a_row_lost(tmp_path: Path) -> None:
    book = book_of(tmp_path, GLM, HEAD)
    asked = event({"input": 10, "output": 150, "reasoning": 49})
    told = explain(asked, RowIndex(book))
    assert told["output_context"] == {"tokens": 199, "meters": ["output", "reasoning"]}
    assert told["row"]["output_context"] == [0, 200]
    assert told["lost"][0]["why"] == ["an output of 199 tokens is not in [200, null]"]
    result = rate(asked, book)
    text = explain_as_text({**rated_as_json(asked, result), "explain": told})
    assert "output_context (输出长度) 199 tokens (词元): output + reasoning" in text
