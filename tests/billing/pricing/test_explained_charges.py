"""Tests of explanations: the golden charges, and that each explanation can be recomputed to the last digit."""

import json
import random
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner
from explained_golden import EVENTS, EXPLAINED, EXPLAINED_PERIODS, books, events, render, render_periods
from pricing_samples import HEAD, PEAK_US, book_of, event

from billing.pricing import Rated, RowIndex, rate, rated_as_json
from billing.pricing.explain import MAX_LOST, explain
from billing.pricing.explain_text import explain_as_text
from schemas.units import parse_scaled
from tokenbill.commands.explain import explain as explain_command
from tokenbill.commands.rate import rate as rate_command
from tokenbill.user_errors import UserError

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_200_explained_charges_are_the_golden_ones_byte_for_byte() -> None:
    """To update after an intended change: ``python tests/billing/pricing/explained_golden.py --update``.

    Review the diff of the golden files.
    """
    assert render() == EXPLAINED.read_text(encoding="utf-8")


def test_a_dozen_charges_that_depend_on_a_period_are_the_golden_ones_byte_for_byte() -> None:
    assert render_periods() == EXPLAINED_PERIODS.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in EXPLAINED_PERIODS.read_text(encoding="utf-8").splitlines()]
    assert {rule["kind"] for line in lines for rule in line["explain"]["periods"]} == {
        "graduated", "volume", "blocks", "commitment",
    }  # fmt: skip
    for line in lines:
        recompute(line)
        assert explain_as_text(line).count("  period rule (") == len(line["explain"]["periods"])


def test_the_golden_charges_show_every_rule() -> None:
    lines = [json.loads(text) for text in EXPLAINED.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == EVENTS
    told = [line["explain"] for line in lines]
    assert {line["price_book"] for line in lines if "price_book" in line} == {"golden@1", "golden@2"}
    assert {line["rejected"]["reason"] for line in lines if "rejected" in line} == {"no_price", "usage_missing"}
    assert {each["stacking"] for each in (t["price_book"] for t in told)} == {"multiply", "best_of"}
    assert {band["inside"] for t in told for band in t["time_bands"]} == {True, False}
    assert any("is off in cn-holidays" in band["why"] for t in told for band in t["time_bands"])
    assert {len(price["adjustments"]) for t in told for price in t["prices"]} >= {0, 1, 2, 3}
    origins = {price["coefficient_from"].split(" ")[0] for t in told for price in t["prices"]}
    assert origins >= {"stated", "price", "output's,", "none:"}
    assert any(line["meter"] == "minimum_charge" for each in lines for line in each.get("lines", ()))
    assert sum("rejected" not in line for line in lines) > 120


def recompute(line: dict) -> None:  # type: ignore[type-arg]
    """Compute the amounts again from the statements of the explanation alone."""
    told = line["explain"]
    factors = {a["index"]: Fraction(a["multiply"]) for a in told["adjustments"] if a["applies"]}
    amounts, standard = [], Fraction(0)
    for price in told["prices"]:
        factor = Fraction(1)
        for number in price["adjustments"]:
            factor *= factors[number]
        assert factor == Fraction(price["factor"])
        factor *= Fraction(price.get("period_factor", "1"))
        per_unit = round(Fraction(price["list_per_million"]) * 10**6 * factor)  # Fraction rounds half to even
        amounts.append(price["quantity"] * per_unit)
        standard += price["quantity"] * Fraction(price["coefficient"])
    if "rejected" in line:
        assert line["rejected"]["reason"] in ("no_price", "usage_missing")
        return
    missing = parse_scaled(told.get("minimum_charge", "0"), 12) - sum(amounts)
    amounts += [missing] if missing > 0 else []
    assert amounts == [parse_scaled(each["amount"], 12) for each in line["lines"]]
    assert sum(amounts) == parse_scaled(line["amount"], 12)
    assert standard == Fraction(line["standard_tokens"])
    net = Fraction(sum(amounts)) / (1 + Fraction(told["price_book"]["tax_rate"]))
    assert parse_scaled(line["net"], 12) == round(net)


def explained(of, index):  # type: ignore[no-untyped-def]
    return rated_as_json(of, rate(of, index.book)) | {"explain": explain(of, index)}


def test_an_explanation_can_be_recomputed_to_the_last_digit() -> None:
    """Seeded: 60 random books made of the golden one, each with 40 of its events at random hours."""
    dice = random.Random(7)
    rated = 0
    for _ in range(60):
        book = dice.choice(books())
        book = replace(
            book,
            stacking=dice.choice(["multiply", "best_of", "replace"]),
            tax_rate_micro=dice.choice([0, 60_000, 90_000]),
            rows=tuple(
                replace(row, index=number, minimum_charge_pico=dice.choice([0, 0, 10**9, 7]))
                for number, row in enumerate(dice.sample(book.rows, dice.randrange(1, len(book.rows) + 1)))
            ),
            adjustments=tuple(
                replace(a, multiply_pico=dice.randrange(2 * 10**12))
                for a in dice.choices(book.adjustments, k=dice.randrange(6))
            ),
        )
        index = RowIndex(book)
        for of in dice.sample(events(), 40):
            line = explained(replace(of, time_us=dice.randrange(PEAK_US - 10**15, PEAK_US)), index)
            recompute(line)
            assert explain_as_text(line).count("\n") > 10
            rated += "rejected" not in line
    assert rated > 500


def test_the_winner_told_is_the_row_that_prices_and_every_other_row_has_a_reason(tmp_path: Path) -> None:
    rows = """\
rows:
  - {model: "*", per_million: {input: "1"}}
  - {model: "m*", per_million: {input: "2"}}
  - {model: m, per_million: {input: "3"}}
  - {model: m, site: "wuxi*", per_million: {input: "4"}}
  - {model: m, site: wuxi-1, per_million: {input: "5"}}
  - {model: m, channel: cloud, per_million: {input: "6"}}
  - {model: m, site: wuxi-1, time_band: peak, per_million: {input: "7"}}
  - {model: m, site: wuxi-1, time_band: peak, context: [9, null], per_million: {input: "8"}}
  - {model: m, site: wuxi-1, outcome: failed, channel: edge, time_band: late, per_million: {input: "9"}}
  - {model: n, per_million: {input: "10"}}
"""
    late = '  late: {timezone: Asia/Shanghai, days: [sat], hours: ["23:00-02:00"]}\n'
    index = RowIndex(book_of(tmp_path, rows, HEAD + late))
    of = event({"input": 8}, site="wuxi-1")
    told = explain(of, index)
    result = rate(of, index.book)
    assert isinstance(result, Rated)
    assert result.lines[0].price_pico == 7_000_000
    assert told["row"] == {"index": 6, "line": 16, "model": "m", "site": "wuxi-1", "time_band": "peak"}
    assert {row["index"]: row["why"] for row in told["lost"]} == {
        0: ["matches, but the model pattern '*' is less specific than 'm'"],
        1: ["matches, but the model pattern 'm*' is less specific than 'm'"],
        2: ["matches, but fixes 0 of the other dimensions, the winner 2"],
        3: ["matches, but fixes 1 of the other dimensions, the winner 2"],
        4: ["matches, but fixes 1 of the other dimensions, the winner 2"],
        5: ["matches, but fixes 1 of the other dimensions, the winner 2"],
        7: ["a context of 8 tokens is not in [9, null]"],
        8: [
            "channel 'cloud' does not match 'edge'",
            "outcome 'completed' is not failed",
            "the time is not in time band 'late'",
        ],
    }
    assert told["other_models"] == 1
    assert told["time_bands"] == [
        {
            "name": "peak",
            "inside": True,
            "timezone": "Asia/Shanghai",
            "local_time": "2026-11-23T10:00:00+08:00",
            "day": "2026-11-23",
            "why": "09:00-12:00, mon",
        }
    ]
    in_order = replace(index.book, rows=tuple(index.book.rows[number] for number in (5, 4)))
    (lost,) = explain(of, RowIndex(in_order))["lost"]
    assert lost["why"] == [
        "matches and fixes as many dimensions, but in site the winner is more specific, which comes first"
    ]


def test_of_many_rows_that_lost_the_best_are_told(tmp_path: Path) -> None:
    rows = "".join(f'  - {{model: m, site: s{number}, per_million: {{input: "1"}}}}\n' for number in range(30))
    told = explain(event({"input": 1}), RowIndex(book_of(tmp_path, "rows:\n" + rows)))
    assert (told["row"], len(told["lost"]), told["lost_more"]) == (None, MAX_LOST, 30 - MAX_LOST)


def test_where_a_coefficient_is_from(tmp_path: Path) -> None:
    head = HEAD.replace("time_bands:", 'standard_token_price: "4"\ntime_bands:')
    row = 'rows: [{per_million: {input: "2", output: "8"}, standard_tokens: {input: "0.5"}}]\n'
    book = book_of(tmp_path, row, head)
    of = event({"input": 1, "output": 1, "reasoning": 1})

    def origins(of_book):  # type: ignore[no-untyped-def]
        return [price["coefficient_from"] for price in explain(of, RowIndex(of_book))["prices"]]

    derived = "price 8 ÷ standard token price 4"
    assert origins(book) == ["stated in the row", derived, f"output's, {derived}"]
    stored = replace(book, rows=tuple(replace(row, stated=None) for row in book.rows))
    assert origins(stored) == ["price 2 ÷ standard token price 4", derived, f"output's, {derived}"]


def test_the_command_explains_in_words(tmp_path: Path) -> None:
    arguments = [str(EXAMPLES / "events.jsonl"), "--catalog", str(EXAMPLES / "catalog")]
    result = CliRunner().invoke(explain_command, [*arguments, "--id", "call-01JD9Z6N"], catch_exceptions=False)
    assert result.exit_code == 0
    for sentence in (
        "price book (价目表) retail-cn@1",
        "row that won (命中价格行): rows[",
        "0: × 0.95, green power: matches (适用)",
        "input: 1.8 × 0.95 (adjustment 0) = 1.71",
        "reasoning as output: 2.7 × 0.95",
        "1200 × coefficient (系数) 0.9 = 1080 standard tokens (标准词元); coefficient stated in the row",
        "amount (金额) 0.00538992 CNY, without tax (不含税) 0.005084830189",
    ):
        assert sentence in result.stdout
    everything = CliRunner().invoke(explain_command, arguments, catch_exceptions=False).stdout
    assert "event (话单) without id of an unknown source\n  rejected (拒收) invalid_json" in everything
    assert "rejected (拒收) no_price_book: no version of retail-cn is in force" in everything
    assert "no row matches (无匹配价格行)" in everything
    with pytest.raises(UserError, match="has no event with the id 'nobody'"):
        CliRunner().invoke(explain_command, [*arguments, "--id", "nobody"], catch_exceptions=False)


def test_rate_explained_and_explain_as_json_are_the_same_bytes() -> None:
    folder = ["--catalog", str(EXAMPLES / "catalog")]
    events_file = str(EXAMPLES / "events.jsonl")
    explained = CliRunner().invoke(explain_command, [events_file, *folder, "--format", "json"], catch_exceptions=False)
    rated = CliRunner().invoke(rate_command, ["--events", events_file, *folder, "--explain"], catch_exceptions=False)
    plain = CliRunner().invoke(rate_command, ["--events", events_file, *folder], catch_exceptions=False)
    assert explained.stdout == rated.stdout
    lines = [json.loads(text) for text in rated.stdout.splitlines()]
    assert any("explain" in line for line in lines)
    for line in lines:
        line.pop("explain", None)
    assert lines == [json.loads(text) for text in plain.stdout.splitlines()]
