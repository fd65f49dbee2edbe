"""Tests of period rules in YAML: the values read, the errors with their lines, and the stored form of a book."""

import json
from pathlib import Path

import pytest
from catalog_samples import BOOK, findings, lines, load, write

from billing.catalog import canonical_json, lint_folder
from billing.catalog.entries import from_entries, to_entries
from billing.catalog.period_rules import PeriodRule, Tier

ROW = 'rows:\n  - {per_million: {input: "2", output: "3"}, periods: [p]}\n'
TIERS = 'count: [input], tiers: [{up_to: "5"}, {up_to: null}]'


def rule(text: str, more: str = "", row: str = ROW) -> str:
    return BOOK + row + f"periods:\n  p: {{{text}}}\n" + more


def test_rules_are_read_exactly_and_survive_storing(tmp_path: Path) -> None:
    text = BOOK + (
        'rows:\n  - {per_million: {input: "2", output: "3"}, periods: [g, d]}\n'
        '  - {model: b, per_million: {searches: "5"}, periods: b}\n'
        "periods:\n"
        "  g:\n    kind: graduated\n    every: week\n    timezone: UTC\n    count: [output, input]\n"
        '    tiers: [{up_to: "10", multiply: "0.5"}, {up_to: 20, per_million: {input: "1.5"}}, {up_to: null}]\n'
        '  b: {kind: blocks, every: day, count: searches, block: {units: "1000", price: "0.000000000001"}}\n'
        '  d: {kind: commitment, amount: "1000000000000", multiply: "0.8", overflow_multiply: "1.1"}\n'
    )
    catalog = load(tmp_path, text)
    assert dict(catalog.price_books[0].periods) == {
        "g": PeriodRule(
            "g",
            "graduated",
            "week",
            "UTC",
            ("input", "output"),
            (Tier(10, 500_000_000_000), Tier(20, price_pico={"input": 1_500_000}), Tier(None)),
        ),
        "b": PeriodRule("b", "blocks", "day", "Asia/Shanghai", ("searches",), block_units=1000, block_price_pico=1),
        "d": PeriodRule(
            "d",
            "commitment",
            "calendar_month",
            "Asia/Shanghai",
            amount_pico=10**24,
            multiply_pico=800_000_000_000,
            overflow_pico=1_100_000_000_000,
        ),
    }
    assert [row.periods for row in catalog.price_books[0].rows] == [("g", "d"), ("b",)]
    (entry,) = to_entries(catalog)
    assert entry.body["body_version"] == 3
    assert from_entries([json.loads(canonical_json(entry.body))]) == catalog


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: tiered", "periods.p.kind: is 'tiered'; write one of graduated, volume, blocks, commitment"),
        ("kind: volume", "periods.p.count: is missing; add it"),
        (f"kind: volume, {TIERS}, every: year", "periods.p.every: is 'year'; write one of calendar_month, week, day"),
        (f"kind: volume, {TIERS}, timezone: Mars", "periods.p.timezone: is 'Mars'; write a zone of the IANA database"),
        (f"kind: volume, {TIERS}, amount: '5'", "periods.p.amount: does not belong to a rule of kind volume"),
        ("kind: commitment", "periods.p.amount: is missing; add it"),
        ("kind: commitment, amount: '0'", "periods.p.amount: is '0'; write a decimal greater than 0"),
        (
            "kind: commitment, amount: '5', included_usage: both",
            "periods.p.included_usage: is 'both'; write one of in, out",
        ),
        (f"kind: volume, {TIERS}, settle: later", "periods.p.settle: is 'later'; write one of at_once, at_end"),
        (f"kind: graduated, {TIERS}, settle: at_end", "periods.p.settle: does not belong to a rule of kind graduated"),
        (f"kind: volume, {TIERS}, included_usage: out", "periods.p.included_usage: does not belong to a rule of kind"),
        ("kind: volume, count: [inptu], tiers: [{up_to: null}]", "periods.p.count: has 'inptu', not a meter"),
        ("kind: volume, count: [input, standard_tokens], tiers: [{up_to: null}]", "beside meters; count either"),
        ("kind: volume, count: input, tiers: []", "periods.p.tiers: is empty; write at least one"),
        (
            "kind: volume, count: input, tiers: [{up_to: '5'}]",
            "tiers[0].up_to: is 5; the last tier is open: write null",
        ),
        (
            "kind: volume, count: input, tiers: [{up_to: null}, {up_to: null}]",
            "tiers[0].up_to: is null, but more tiers",
        ),
        (
            "kind: volume, count: input, tiers: [{up_to: '5'}, {up_to: '5'}, {up_to: null}]",
            "tiers[1].up_to: is 5, not more than 5 before it; let them rise",
        ),
        (
            "kind: volume, count: input, tiers: [{up_to: 1.5}, {up_to: null}]",
            "tiers[0].up_to: is '1.5'; write an integer",
        ),
        ("kind: volume, count: input, tiers: [{multiply: '2'}]", "periods.p.tiers[0].up_to: is missing; add it"),
        (
            "kind: volume, count: input, tiers: [{up_to: null, multiply: '2', per_million: {input: '1'}}]",
            "tiers[0].multiply: stands beside per_million",
        ),
        (
            "kind: volume, count: input, tiers: [{up_to: null, per_million: {output: '1'}}]",
            "tiers[0].per_million: prices 'output', which the rule does not count",
        ),
        (
            "kind: blocks, count: input, block: {units: 0, price: '1'}",
            "periods.p.block.units: is '0'; write an integer",
        ),
        ("kind: blocks, count: input, block: {units: 5}", "periods.p.block.price: is missing; add it"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    found = lines(tmp_path, rule(text))
    assert any(told in line and line.startswith("catalog.yaml:9: ") for line in found), found


@pytest.mark.parametrize(
    ("text", "row", "told"),
    [
        (f"kind: volume, {TIERS}", ROW.replace("[p]", "[q]"), "7: rows[0].periods: is 'q'; write one of p"),
        (
            f"kind: volume, {TIERS}",
            ROW.replace(", periods: [p]", ""),
            "9: periods.p: is named by no row; name it there",
        ),
        (
            "kind: volume, count: standard_tokens, tiers: [{up_to: null, per_million: {images: '1'}}]",
            ROW,
            "9: periods.p.tiers[0].per_million: has images, which rows[0] in line 7 does not price",
        ),
        (
            "kind: volume, count: standard_tokens, tiers: [{up_to: null}]",
            ROW,
            "9: warning: periods.p.count: is standard_tokens, but rows[0] in line 7 uses none",
        ),
        (
            "kind: volume, count: [input, images], tiers: [{up_to: null}]",
            ROW,
            "9: warning: periods.p.count: has images, which no row that names the rule prices",
        ),
        (
            "kind: blocks, count: input, block: {units: 5, price: '9%s'}" % (23 * "0"),
            ROW + "adjustments: [{multiply: '2', reason: dear}]\n",
            "10: periods.p: may exceed 1000000000000000000000000 per unit after the adjustments",
        ),
        (
            "kind: commitment, amount: '5', overflow_multiply: '9000'",
            ROW.replace('"2"', '"200000000000000000000000000"'),
            "7: rows[0].per_million: may exceed 1000000000000000000000000 per unit after the adjustments",
        ),
    ],
)
def test_rules_that_do_not_fit_their_rows_are_found(tmp_path: Path, text: str, row: str, told: str) -> None:
    found = lines(tmp_path, rule(text, row=row))
    assert any(line.startswith(f"catalog.yaml:{told}") for line in found), found


def test_a_row_has_at_most_one_rule_that_counts_and_one_commitment(tmp_path: Path) -> None:
    two = f"  q: {{kind: graduated, {TIERS}}}\n  d: {{kind: commitment, amount: '5'}}\n"
    good = rule(f"kind: volume, {TIERS}", two, ROW + ROW.removeprefix("rows:\n").replace("[p]", "[q, d], model: m"))
    assert findings(tmp_path, good) == ()
    (error,) = lines(tmp_path, good.replace("periods: [p]", "periods: [p, q]"))
    assert error.startswith(
        "catalog.yaml:7: rows[0].periods: has two rules that count usage, p and q; keep one of them"
    )


def test_a_name_that_a_line_has_is_no_meter(tmp_path: Path) -> None:
    (error,) = lines(tmp_path, BOOK + 'rows: [{per_million: {input: "1"}}]\nmeters: [blocks]\n')
    assert "meters[0]: is 'blocks', the name of the line of blocks; take another name" in error


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (f"kind: volume, {TIERS}", False),
        ('kind: volume, count: [input], tiers: [{up_to: "9"}, {up_to: null}]', False),
        (f"kind: graduated, {TIERS}", True),
        (f"kind: volume, every: week, {TIERS}", True),
        (f"kind: volume, timezone: UTC, {TIERS}", True),
        ("kind: volume, count: [output], tiers: [{up_to: null}]", True),
    ],
)
def test_a_counter_goes_on_under_its_name_so_it_counts_the_same(tmp_path: Path, text: str, refused: bool) -> None:
    second = rule(text).replace("version: 1", "version: 2").replace("2026-01-01", "2026-02-01")
    write(tmp_path, rule(f"kind: volume, {TIERS}"), second)
    found = [str(finding) for finding in lint_folder(tmp_path)[1]]
    assert len(found) == refused
    assert not refused or "counters go on under this name; give the rule another name" in found[0]


def test_a_settled_volume_price_and_a_commitment_do_not_share_a_row(tmp_path: Path) -> None:
    row = ROW.replace("[p]", "[p, d]")
    found = lines(
        tmp_path, rule(f"kind: volume, {TIERS}, settle: at_end", "  d: {kind: commitment, amount: '5'}\n", row)
    )
    assert any("7: rows[0].periods: has p, settled at_end, and the commitment d" in line for line in found), found


def test_the_settlement_of_a_name_may_not_change(tmp_path: Path) -> None:
    later = rule(f"kind: volume, {TIERS}, settle: at_end").replace("version: 1", "version: 2")
    later = later.replace("2026-11-01", "2026-12-01")
    found = lines(tmp_path, rule(f"kind: volume, {TIERS}"), later)
    assert any("has another kind, every, timezone, count or settle than in" in line for line in found), found


def test_the_new_keys_are_stored_and_others_keep_their_body(tmp_path: Path) -> None:
    text = (
        rule(f"kind: volume, {TIERS}, settle: at_end") + "  d: {kind: commitment, amount: '5', included_usage: out}\n"
    )
    catalog = load(
        tmp_path, text.replace("periods: [p]}", "periods: [p]}\n  - {model: d, per_million: {input: '1'}, periods: d}")
    )
    (entry,) = to_entries(catalog)
    assert entry.body["body_version"] == 5
    assert [(one.get("settle"), one.get("included_usage")) for one in entry.body["periods"]] == [
        (None, "out"),
        ("at_end", None),
    ]
    assert from_entries([json.loads(canonical_json(entry.body))]) == catalog
