"""Tests of the import of LiteLLM's price map: one small map for each kind of key, and fields left out with a reason."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.catalog import lint_folder
from billing.catalog.importers import litellm
from billing.catalog.importers.litellm import Imported, import_price_map
from billing.catalog.importers.litellm_hours import HoursError, off_peak_bands
from billing.catalog.importers.litellm_source import SourceError
from billing.catalog.importers.values import BandText, RowText, per_million
from billing.catalog.importers.write import write_books

TOKENS = {"litellm_provider": "x", "mode": "chat", "input_cost_per_token": 2e-06, "output_cost_per_token": 6e-06}


def imported(**fields: Any) -> Imported:
    """Import a map with one key ``m``."""
    return import_price_map(json.dumps({"m": fields}))


def rows(**fields: Any) -> list[tuple[str, str, tuple[int, int | None] | None, dict[str, str]]]:
    """Return the rows of a key: service tier, time band, context and prices."""
    book = imported(**fields).book
    return [] if book is None else [of(row) for row in book.rows]


def of(row: RowText) -> tuple[str, str, tuple[int, int | None] | None, dict[str, str]]:
    """Return a row without its model."""
    dimensions = dict(row.dimensions)
    return (dimensions.get("service_tier", "*"), dimensions.get("time_band", ""), row.context, dict(row.per_million))


def prices(tier: str = "*", band: str = "", tokens: int = 1, **fields: Any) -> dict[str, str]:
    """Return the prices of the only row with a tier, a band and a prompt size."""
    found = [
        by_meter
        for row_tier, row_band, context, by_meter in rows(**fields)
        if (row_tier, row_band) == (tier, band)
        and (context is None or (context[0] <= tokens and (context[1] is None or tokens < context[1])))
    ]
    (only,) = found
    return only


def left_out(**fields: Any) -> dict[str, str]:
    """Return the reasons of the fields of a key that are left out, by field."""
    return {entry.field: entry.reason for entry in imported(**fields).left_out}


def test_tokens_without_a_price_of_their_own_take_the_one_that_litellm_gives_them() -> None:
    assert prices(**TOKENS) == {
        **dict.fromkeys(("input", "cache_read", "cache_write", "cache_write_1h"), "2"),
        **dict.fromkeys(("audio_input", "audio_cache_read", "image_input", "image_cache_read", "video_input"), "2"),
        **dict.fromkeys(("output", "audio_output", "image_output", "video_output"), "6"),
    }


def test_every_price_of_a_token_goes_to_its_meter() -> None:
    own = {
        "cache_read_input_token_cost": 1e-07,
        "cache_creation_input_token_cost": 3e-07,
        "cache_creation_input_token_cost_above_1hr": 4e-07,
        "output_cost_per_reasoning_token": 5e-07,
        "input_cost_per_audio_token": 6e-07,
        "cache_read_input_audio_token_cost": 7e-07,
        "output_cost_per_audio_token": 8e-07,
        "input_cost_per_image_token": 9e-07,
        "cache_read_input_image_token_cost": 1.1e-06,
        "output_cost_per_image_token": 1.2e-06,
        "input_cost_per_video_token": 1.3e-06,
        "output_cost_per_video_token": 1.4e-06,
        "cache_creation_input_token_cost_above_12hr": 1.5e-06,
        "explicit_cache_read_input_token_cost": 1.6e-06,
        "cache_creation_input_audio_token_cost": 1.7e-06,
        "citation_cost_per_token": 1.8e-06,
    }
    assert prices(**TOKENS, **own) == {
        "input": "2",
        "cache_read": "0.1",
        "cache_write": "0.3",
        "cache_write_1h": "0.4",
        "output": "6",
        "reasoning": "0.5",
        "audio_input": "0.6",
        "audio_cache_read": "0.7",
        "audio_output": "0.8",
        "image_input": "0.9",
        "image_cache_read": "1.1",
        "image_output": "1.2",
        "video_input": "1.3",
        "video_output": "1.4",
        "cache_write_12h": "1.5",
        "cache_read_explicit": "1.6",
        "cache_write_audio": "1.7",
        "citation_tokens": "1.8",
    }
    book = imported(**TOKENS, **own).book
    assert book is not None
    assert book.meters == ("cache_read_explicit", "cache_write_12h", "cache_write_audio", "citation_tokens")
    assert left_out(**TOKENS, **own) == {}


def test_a_service_tier_has_rows_where_it_has_prices_and_falls_back_where_it_has_not() -> None:
    fields = {**TOKENS, "input_cost_per_token_priority": 4e-06, "cache_read_input_token_cost": 1e-06}
    priority = prices("priority", **fields)
    assert (priority["input"], priority["cache_read"], priority["cache_write"]) == ("4", "1", "4")
    assert priority["output"] == "6"
    assert prices("fast", **fields) == priority, "LiteLLM bills fast as priority"
    assert {tier for tier, *_ in rows(**fields)} == {"*", "priority", "fast", "batch"}


def test_a_batch_costs_its_price_or_half() -> None:
    own = prices("batch", **TOKENS, input_cost_per_token_batches=5e-07, output_cost_per_token_batches=7e-07)
    assert (own["input"], own["cache_read"], own["output"]) == ("0.5", "0.5", "0.7")
    half = prices("batch", **TOKENS, cache_read_input_token_cost=1e-06)
    assert (half["input"], half["cache_read"], half["cache_write"], half["output"]) == ("1", "0.5", "1", "3")


def test_prices_above_a_size_are_context_bands_and_begin_one_token_later() -> None:
    fields = {
        **TOKENS,
        "input_cost_per_token_above_200k_tokens": 4e-06,
        "cache_read_input_token_cost": 1e-06,
        "cache_creation_input_token_cost_above_1hr": 5e-06,
        "cache_creation_input_token_cost_above_1hr_above_200k_tokens": 8e-06,
    }
    contexts = {(tier, context) for tier, _, context, _ in rows(**fields)}
    assert contexts == {("*", (0, 200_001)), ("*", (200_001, None)), ("batch", (0, None))}
    below, above = prices(tokens=200_000, **fields), prices(tokens=200_001, **fields)
    assert (below["input"], below["cache_write_1h"]) == ("2", "5")
    assert (above["input"], above["output"], above["cache_read"], above["cache_write"]) == ("4", "6", "1", "4")
    assert above["cache_write_1h"] == "8"


def test_xai_bills_the_higher_price_from_the_size_itself() -> None:
    fields = {**TOKENS, "litellm_provider": "xai", "input_cost_per_token_above_128k_tokens": 4e-06}
    assert prices(tokens=127_999, **fields)["input"] == "2"
    assert prices(tokens=128_000, **fields)["input"] == "4"


def test_a_table_of_prompt_sizes_is_context_bands_and_the_last_holds_beyond_it() -> None:
    tiers = [
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06, "output_cost_per_token": 5e-06},
        {
            "range": [32000.0, 128000.0],
            "input_cost_per_token": 2e-06,
            "output_cost_per_token": 9e-06,
            "output_cost_per_reasoning_token": 1e-05,
            "cache_read_input_token_cost": 2e-07,
        },
    ]
    fields = {"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": tiers}
    assert [context for _, _, context, _ in rows(**fields)] == [(0, 32_001), (32_001, None)]
    small, great = prices(tokens=32_000, **fields), prices(tokens=999_999, **fields)
    assert (small["input"], small["cache_read"], small["output"], "reasoning" in small) == ("1", "1", "5", False)
    assert (great["input"], great["cache_read"], great["output"], great["reasoning"]) == ("2", "0.2", "9", "10")


def test_off_peak_prices_are_rows_with_a_time_band() -> None:
    block = {
        "input_cost_per_token": 1e-06,
        "weekday_timezone": "Asia/Shanghai",
        "windows": [
            {"hours_utc": ["00:00-01:00", "10:00-00:00"], "weekdays": [1, 2, 3, 4, 5]},
            {"hours_utc": "00:00-00:00", "weekdays": [6, 7]},
        ],
    }
    book = imported(**TOKENS, off_peak_pricing=block).book
    assert book is not None
    workdays, weekend = ("mon", "tue", "wed", "thu", "fri"), ("sat", "sun")
    assert list(book.time_bands.values()) == [
        BandText("Asia/Shanghai", workdays, ("00:00-09:00", "18:00-24:00")),
        BandText("Asia/Shanghai", weekend, ("00:00-24:00",)),
    ]
    cheap = prices("*", "off_peak_1", **TOKENS, off_peak_pricing=block)
    assert (cheap["input"], cheap["cache_read"], cheap["output"]) == ("1", "1", "6")
    assert prices("batch", "off_peak_2", **TOKENS, off_peak_pricing=block)["input"] == "1"


def test_every_day_hours_in_utc_past_midnight_are_cut_at_midnight() -> None:
    every_day = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    assert off_peak_bands({"hours_utc": "16:30-00:30"}) == (BandText("UTC", every_day, ("00:00-00:30", "16:30-24:00")),)


@pytest.mark.parametrize(
    "block",
    [
        {"hours_utc": "25:00-01:00"},
        {"windows": []},
        {"windows": [{"hours_utc": "00:00-01:00", "weekdays": ["someday"]}]},
        {"hours_utc": "00:00-01:00", "weekday_timezone": "Europe/Berlin"},
        {"hours_utc": "00:00-01:00", "weekday_timezone": "Mars/Base"},
    ],
)
def test_hours_that_no_band_expresses_are_refused(block: dict[str, Any]) -> None:
    with pytest.raises(HoursError):
        off_peak_bands(block)
    assert left_out(**TOKENS, off_peak_pricing=block)["off_peak_pricing"] == litellm.BAD_HOURS


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"output_cost_per_image": 0.03}, {"images": "30000"}),
        ({"input_cost_per_image": 0.03}, {"images": "30000"}),
        ({"output_cost_per_image": 0.03, "input_cost_per_image": 0.01}, {"images": "30000", "input_images": "10000"}),
        ({"output_cost_per_image_0.5K": 0.06}, {"images_0_5k": "60000"}),
        ({"input_cost_per_second": 0.0001, "output_cost_per_second": 0.0}, {"milliseconds": "0.1"}),
        ({"input_cost_per_second": 0.0001, "output_cost_per_second": 0.0002}, {"milliseconds": "0.2"}),
        (
            {"output_cost_per_second": 0.1, "output_cost_per_second_1080p": 0.2},
            {"milliseconds": "100", "milliseconds_1080p": "200"},
        ),
        ({"input_cost_per_video_per_second": 0.001}, {"video_input_milliseconds": "1"}),
        ({"input_cost_per_character": 1.5e-05}, {"characters": "15"}),
        ({"input_cost_per_query": 0.002}, {"searches": "2000"}),
        ({"input_cost_per_request": 0.005}, {"requests": "5000"}),
        (
            {"ocr_cost_per_page": 0.003, "annotation_cost_per_page": 0.005},
            {"pages": "3000", "annotation_pages": "5000"},
        ),
        ({"guardrail_cost_per_unit": {"topicPolicyUnits": 0.00015}}, {"guardrail_topic_policy_units": "150"}),
        ({"search_context_cost_per_query": {"search_context_size_medium": 0.01}}, {"searches": "10000"}),
    ],
)
def test_what_is_not_a_token_goes_to_its_meter(fields: dict[str, Any], expected: dict[str, str]) -> None:
    assert prices(litellm_provider="x", mode="other", **fields) == expected


def test_pixels_of_a_key_that_names_the_size_are_images() -> None:
    text = json.dumps({"hd/1024-x-1792/d": {"litellm_provider": "x", "input_cost_per_pixel": 6.539e-08}})
    book = import_price_map(text).book
    assert book is not None
    assert dict(book.rows[0].per_million) == {"images": "119991.17312"}


def test_prices_by_search_size_have_meters_and_prompts_are_not_searches() -> None:
    table = {"search_context_size_low": 0.005, "search_context_size_medium": 0.008, "search_context_size_high": 0.012}
    found = prices(**{**TOKENS, "litellm_provider": "perplexity"}, search_context_cost_per_query=table)
    assert {m: p for m, p in found.items() if "search" in m} == {
        "searches": "5000",
        "searches_low": "5000",
        "searches_medium": "8000",
        "searches_high": "12000",
    }
    flat = dict.fromkeys(table, 0.035)
    gemini = {**TOKENS, "litellm_provider": "gemini", "search_context_cost_per_query": flat}
    assert prices(**gemini)["grounded_prompts"] == "35000"
    assert "searches" not in prices(**gemini)
    assert prices(**gemini, web_search_billing_unit="per_query")["searches"] == "35000"


def test_zero_is_a_price_only_beside_a_price_of_its_kind() -> None:
    assert left_out(litellm_provider="x", input_cost_per_token=0, output_cost_per_token=0.0) == {
        "input_cost_per_token, output_cost_per_token": litellm.ALL_ZERO
    }
    embedding = {**TOKENS, "output_cost_per_token": 0.0}
    assert prices(**embedding)["output"] == "0"
    assert left_out(**embedding) == {}
    rerank = {"litellm_provider": "x", "input_cost_per_token": 0.0, "input_cost_per_query": 0.002}
    assert prices(**rerank) == {"searches": "2000"}
    assert left_out(**rerank) == {"input_cost_per_token": litellm.ZERO}


def test_a_missing_price_is_not_a_price_of_zero() -> None:
    found = prices(litellm_provider="x", output_cost_per_token=6e-06)
    assert "input" not in found
    assert found["output"] == "6"


def test_what_no_row_expresses_is_listed_with_the_reason() -> None:
    fields = {
        **TOKENS,
        "regional_processing_uplift_multiplier_eu": 1.1,
        "input_dbu_cost_per_token": 1e-06,
        "some_new_cost_per_thing": 0.5,
        "cache_read_input_token_cost": "unknown",
        "search_free_requests": {"count": 5000, "period": "month", "shared_group": "g"},
        "supports_vision": True,
        "max_tokens": 8192,
    }
    assert left_out(**fields) == {
        "regional_processing_uplift_multiplier_eu": litellm.NO_DIMENSION,
        "input_dbu_cost_per_token": litellm.OTHER_UNIT,
        "some_new_cost_per_thing": litellm.UNKNOWN,
        "cache_read_input_token_cost": litellm.NOT_A_PRICE,
        "search_free_requests": litellm.NO_DIMENSION,
    }
    assert left_out(litellm_provider="x") == {"*": litellm.NO_PRICE}
    text = json.dumps({"bedrock/*/1-month": TOKENS, "sample_spec": TOKENS})
    assert [(e.key, e.reason) for e in import_price_map(text).left_out] == [
        ("bedrock/*/1-month", litellm.NOT_EXACT),
        ("sample_spec", litellm.TEMPLATE),
    ]


def test_a_price_is_rounded_only_where_that_does_not_matter() -> None:
    assert per_million(Decimal("1.1999999999999999E-6")) == "1.2"
    assert per_million(Decimal("8.39233E-8")) is None
    assert per_million(Decimal("9E6")) == "9000000000000"
    assert per_million(Decimal("1E7")) == "10000000000000"
    assert per_million(Decimal("1E25")) is None
    assert per_million(Decimal("-1")) is None
    fine = {**TOKENS, "cache_read_input_token_cost": 1.23456789e-07}
    assert left_out(**fine)["cache_read_input_token_cost"] == litellm.TOO_FINE
    assert "cache_read" not in prices(**fine)
    assert "audio_cache_read" not in prices(**fine)


def test_reasoning_never_takes_the_price_of_output_for_one_that_is_too_fine() -> None:
    found = prices(**TOKENS, output_cost_per_reasoning_token=1.23456789e-07)
    assert "reasoning" not in found
    assert "output" not in found


def test_a_key_is_left_out_where_a_wider_row_would_price_a_tier() -> None:
    fine = {"litellm_provider": "x", "output_cost_per_token": 3.99625e-07}  # half of it needs 13 decimal places
    assert rows(**fine) == []
    assert left_out(**fine)["*"] == litellm.TOO_FINE


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"m": 1}', '{"m": {"a_cost": NaN}}', '{"m": {}, "m": {}}', "[" * 9000]
)
def test_what_is_no_price_map_is_refused(text: str) -> None:
    with pytest.raises(SourceError):
        import_price_map(text)


FIELDS = st.sampled_from(
    [
        f"{base}{above}{tier}"
        for base in (
            "input_cost_per_token",
            "output_cost_per_token",
            "cache_read_input_token_cost",
            "cache_creation_input_token_cost",
            "output_cost_per_reasoning_token",
            "input_cost_per_audio_token",
            "output_cost_per_image",
            "input_cost_per_second",
        )
        for above in ("", "_above_32k_tokens", "_above_200k_tokens")
        for tier in ("", "_priority", "_flex", "_batches")
    ]
)
PRICES = st.one_of(st.just(0.0), st.integers(1, 10**6).map(lambda n: float(f"{n}e-11")), st.just("free"), st.none())
OFF_PEAK = {"input_cost_per_token": 1e-06, "windows": [{"hours_utc": "20:00-04:00", "weekdays": [1, 7]}]}


@given(st.dictionaries(FIELDS, PRICES, max_size=8), st.booleans(), st.sampled_from(["x", "xai", "gemini"]))
def test_any_map_gives_a_book_that_passes_the_check_and_drops_nothing(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any], off_peak: bool, provider: str
) -> None:
    entry = {"litellm_provider": provider, **fields} | ({"off_peak_pricing": OFF_PEAK} if off_peak else {})
    result = import_price_map(json.dumps({"m": entry}))
    assert result.left_out or result.book is not None
    if result.book is None:
        return
    folder: Path = tmp_path_factory.mktemp("book")
    (folder / "litellm.yaml").write_text(write_books([result.book]), encoding="utf-8")
    catalog, findings = lint_folder(folder)
    assert [str(finding) for finding in findings if finding.severity == "error"] == []
    assert len(catalog.price_books[0].rows) == len(result.book.rows)
