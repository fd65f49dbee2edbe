"""Findings of the import of LiteLLM's price map: unknown fields at any depth, odd ranges, rounded prices."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_import_commands import run
from test_litellm_import import TOKENS, imported, left_out, prices

from billing.catalog.importers import litellm, litellm_tables
from billing.catalog.importers.litellm import import_price_map
from tokenbill.user_errors import UserError

FINE = 8.39233e-08  # 0.083923 micro-dollars and three decimals that no price book holds


def tiers(*tables: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": list(tables), **more}


def tier(first: Any, last: Any, price: float = 1e-06, **more: Any) -> dict[str, Any]:
    return {"range": [first, last], "input_cost_per_token": price, "output_cost_per_token": price, **more}


def test_an_unknown_field_is_listed_with_its_path_at_any_depth() -> None:
    fields = tiers(
        tier(0, 1000, output_cost_per_audio_token=9e-06, note={"deep": 1}),
        surcharge=0.5,
        billing_mode="per_call",
        off_peak_pricing={
            "hours_utc": "00:00-01:00", "input_cost_per_token": 1e-07, "input_cost_per_image": 2.0,
            "windows": [{"hours_utc": "02:00-03:00", "weekdays": [1], "factor": 0.5}],
        },
        search_context_cost_per_query={"search_context_size_medium": 0.01, "search_context_size_huge": 0.5},
        max_tokens=5, supports_vision=True, supported_regions=["eu"], rpm=4,
    )  # fmt: skip
    assert {name for name, reason in left_out(**fields).items() if reason == litellm.UNKNOWN_FIELD} == {
        "tiered_pricing[0].output_cost_per_audio_token",
        "tiered_pricing[0].note",
        "surcharge",
        "billing_mode",
        "off_peak_pricing.input_cost_per_image",
        "off_peak_pricing.windows[0].factor",
        "search_context_cost_per_query.search_context_size_huge",
    }
    assert prices("*", "", **fields)["input"] == "1"


@pytest.mark.parametrize(
    ("tables", "field", "reason"),
    [
        ([tier(0, 1000), tier(0, 1000, 2e-06)], "tiered_pricing[1].range", litellm_tables.EQUAL_RANGES),
        ([tier(0, 1000), tier(500, 2000, 2e-06)], "tiered_pricing[1].range", litellm_tables.OVERLAPPING_RANGES),
        ([tier(0, 1000), tier(1500, 2000, 2e-06)], "tiered_pricing[1].range", litellm_tables.RANGE_GAP),
        ([tier(10, 1000)], "tiered_pricing[0].range", litellm_tables.RANGE_GAP),
        ([tier(0, 1000), tier(1000, 1000, 2e-06)], "tiered_pricing[1].range", litellm_tables.EMPTY_RANGE),
        ([tier(0, 1000), tier(1000, None, 2e-06)], "tiered_pricing[1].range", litellm_tables.OPEN_RANGE),
        ([tier(None, 1000)], "tiered_pricing[0].range", litellm_tables.OPEN_RANGE),
        ([tier(0, 1000), {"input_cost_per_token": 2e-06}], "tiered_pricing[1]", litellm_tables.NO_RANGE),
    ],
)
def test_odd_ranges_are_findings(tables: list[dict[str, Any]], field: str, reason: str) -> None:
    assert left_out(**tiers(*tables)) == {field: reason}


def test_right_ranges_are_no_finding_and_an_open_one_is_imported() -> None:
    assert left_out(**tiers(tier(0, 1000), tier(1000, 2000, 2e-06))) == {}
    open_end = tiers(tier(0, 1000), tier(1000, None, 2e-06))
    assert prices(tokens=1000, **open_end)["input"] == "1"
    assert prices(tokens=10**6, **open_end)["input"] == "2"


def test_a_flat_price_beside_tiers_is_a_finding() -> None:
    found = left_out(**tiers(tier(0, 1000, 1e-06), input_cost_per_token=5e-06))
    assert found == {"input_cost_per_token": litellm_tables.FLAT_BESIDE_TIERS}
    assert prices(**tiers(tier(0, 1000, 1e-06), input_cost_per_token=5e-06))["input"] == "1"


def test_a_price_too_fine_is_listed_unless_rounding_is_asked_for() -> None:
    fields = {**TOKENS, "cache_read_input_token_cost": FINE}
    assert left_out(**fields)["cache_read_input_token_cost"] == litellm.TOO_FINE
    assert imported(**fields).rounded == ()
    result = import_price_map(json.dumps({"m": fields}), rounded_at_most=Decimal(1))
    assert "cache_read_input_token_cost" not in {out.field for out in result.left_out}
    [note] = [one for one in result.rounded if one.field == "cache_read_input_token_cost"]
    assert (note.price, note.rounded) == (Decimal("8.39233E-8"), Decimal("0.000000083923"))
    assert note.error == Decimal("3.575E-6"), "3E-13 of 8.39233E-8"
    assert result.book is not None
    assert dict(result.book.rows[0].per_million)["cache_read"] == "0.083923"


def test_a_price_is_never_rounded_to_zero() -> None:
    fields = {**TOKENS, "cache_read_input_token_cost": 4e-13}
    result = import_price_map(json.dumps({"m": fields}), rounded_at_most=Decimal(1))
    assert {out.field: out.reason for out in result.left_out}["cache_read_input_token_cost"] == litellm.TOO_FINE


def test_the_command_lists_what_it_rounded(tmp_path: Path) -> None:
    source = tmp_path / "map.json"
    source.write_text(json.dumps({"m": {"litellm_provider": "x", "input_cost_per_token": FINE}}), encoding="utf-8")
    with pytest.raises(UserError):
        run("import-litellm", source, "--out", tmp_path)
    shown = run("import-litellm", source, "--out", tmp_path, "--round")
    assert "rounded by at most" in shown.output
    lines = (tmp_path / "litellm-rounded.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "key\tfield\tprice\trounded\trelative error"
    assert "m\tinput_cost_per_token\t0.0000000839233\t0.000000083923\t3.575E-6" in lines
    run("import-litellm", source, "--out", tmp_path, "--round", "1e-5")
    with pytest.raises(UserError):
        run("import-litellm", source, "--out", tmp_path, "--round", "1e-6")
    with pytest.raises(UserError, match="not a part"):
        run("import-litellm", source, "--out", tmp_path, "--round", "2")
