"""Tests of catalogues that must not be published: reachable ties, holes in context bands, equal versions."""

import itertools
import random
from pathlib import Path

import pytest
from catalog_samples import BANDS, BOOK, PLAN, findings, lines, load, rows

from billing.catalog import ERROR, CatalogError, PriceBook, load_folder
from billing.catalog.check_rows import check_rows
from billing.catalog.load import read_folder
from billing.catalog.patterns import row_rank
from billing.catalog.timebands import band_contains
from billing.pricing import Combination
from billing.pricing.match import context_fits, text_fits
from schemas.times import HOUR_US, parse_time_us

PEAK_LATE = ("model: m, time_band: peak", "model: m, time_band: late", "model: m")


@pytest.mark.parametrize(
    ("row_lines", "tied"),
    [
        (("model: m", "model: m"), [1]),
        (("model: m", 'model: "m*"', 'model: "*"'), []),
        (("model: m, site: a", "model: m, channel: edge"), []),  # dimension by dimension: site comes first
        (('model: "m*", site: a', 'model: "m*", site: a'), [1]),
        (('site: "a*"', 'site: "ab*"', "site: ab"), []),
        (('site: "a*"', 'site: "b*"'), []),
        (PEAK_LATE, [1]),
        (("time_band: peak", "time_band: night", ""), []),
        (("context: [0, 10]", "context: [10, null]"), []),
        (("context: [0, 11]", "context: [10, null]"), [1]),
        (("context: [0, 10]", "context: [0, 10]", ""), [1]),
        (("context: [0, null]", ""), []),
        (("outcome: completed", "outcome: partial"), []),
        (("", "outcome: [failed, completed]"), [1]),
        (("time_band: peak, context: [0, null]", "time_band: late, context: [0, null]", ""), [1]),
        (("", "", "", ""), [1, 2, 3]),
        (("model: m", "model: n"), []),
    ],
)
def test_ties_that_an_event_can_reach(tmp_path: Path, row_lines: tuple[str, ...], tied: list[int]) -> None:
    found = [f for f in findings(tmp_path, BOOK + BANDS + rows(*row_lines)) if f.severity == ERROR]
    assert [f.key for f in found] == [f"rows[{index}]" for index in tied]
    assert all("ties with rows[0] in line" in f.message for f in found)


def test_a_tie_that_a_better_row_always_wins_is_none(tmp_path: Path) -> None:
    covered = (*PEAK_LATE, "model: m, time_band: peak, context: [0, null]")
    assert not [f for f in findings(tmp_path, BOOK + BANDS + rows(*covered)) if f.severity == ERROR]


@pytest.mark.parametrize(
    ("row_lines", "key", "hole"),
    [
        (("model: m, context: [0, 10]", "model: m, context: [12, null]"), "rows[0].context", "10 to 11 tokens"),
        (("model: m, context: [5, null]",), "rows[0].context", "0 to 4 tokens"),
        (
            ("model: m, context: [0, 5]", "model: m, context: [5, 9]", "model: m, context: [20, null]", ""),
            "rows[1].context",
            "9 to 19 tokens",
        ),
        (
            ("model: m, site: a, context: [7, null]", "model: m, site: b"),
            "rows[0].context",
            "0 to 6 tokens",
        ),
        (
            (
                "model: m, context: [0, 5]",
                "model: m, context: [5, null], time_band: peak",
                "model: m, context: [8, null]",
            ),
            "rows[0].context",
            "5 to 7 tokens",
        ),
    ],
)
def test_holes_in_the_context_bands_of_a_model(tmp_path: Path, row_lines: tuple[str, ...], key: str, hole: str) -> None:
    found = [f for f in findings(tmp_path, BOOK + BANDS + rows(*row_lines)) if f.severity == ERROR]
    assert [f.key for f in found] == [key]
    assert f"contexts of {hole} have no row" in found[0].message


SHORT, LONG = "context: [0, 8]", "context: [8, null]"


@pytest.mark.parametrize(
    ("row_lines", "found"),
    [
        (("output_context: [0, 5]", "output_context: [5, null]"), []),
        ((f"{SHORT}, output_context: [0, 5]", f"{SHORT}, output_context: [5, null]", LONG), []),
        ((f"{SHORT}, output_context: [0, 5]", LONG, ""), []),
        (
            ("output_context: [0, 5]", "output_context: [7, null]"),
            ["rows[0].output_context: leaves a hole in the output bands of '*': outputs of 5 to 6 tokens have no row"],
        ),
        (
            ("output_context: [0, 5]",),
            ["warning: rows[0].output_context: ends at 5: longer answers of '*' have no price"],
        ),
        (
            (f"{SHORT}, output_context: [0, 5]", LONG),
            ["rows[0].context: leaves a hole in the context bands of '*': contexts of 0 to 7 tokens with outputs from "
             "5 tokens have no row"],
        ),
        (
            (f"{SHORT}, output_context: [0, 5]", f"{SHORT}, output_context: [5, 9]", f"{LONG}, output_context: [0, 5]"),
            ["rows[0].context: leaves a hole in the context bands of '*': contexts from 8 tokens with outputs of 5 to ",
             "warning: rows[1].output_context: ends at 9: longer answers of '*' have no price"],
        ),
        (
            (f"{SHORT}, output_context: [0, 6]", f"{SHORT}, output_context: [5, null]", LONG),
            ["rows[1]: ties with rows[0] in line 11: both match contexts of 0 to 7 tokens with outputs of 5 to 5 "],
        ),
    ],
)  # fmt: skip
def test_holes_and_ties_of_output_bands_are_found_with_those_of_contexts(
    tmp_path: Path, row_lines: tuple[str, ...], found: list[str]
) -> None:
    told = [text.partition(": ")[2] for text in lines(tmp_path, BOOK + BANDS + rows(*row_lines))]
    assert len(told) == len(found), told
    assert all(text.startswith(start) for text, start in zip(told, found, strict=True)), told


@pytest.mark.parametrize(
    "row_lines",
    [
        ("model: m, context: [0, 10]", "model: m, context: [10, null]"),
        ("model: m, context: [0, 10]", "model: m"),
        ("model: m, site: a, context: [5, 10]", 'model: m, site: "a*"'),
        ("model: m, site: a, context: [0, 10]", "model: m, context: [10, null]", "model: m, context: [0, 10]"),
    ],
)
def test_bands_that_other_rows_of_the_model_complete(tmp_path: Path, row_lines: tuple[str, ...]) -> None:
    assert not findings(tmp_path, BOOK + rows(*row_lines))


def test_what_is_only_suspicious_is_a_warning(tmp_path: Path) -> None:
    book = (
        BOOK
        + BANDS
        + rows(
            "model: open, context: [0, 10]",
            "model: timed, time_band: peak",
            "model: shadow",
            "model: shadow, context: [0, null]",
        )
    )
    book += '  - {model: half, per_million: {input: "1", output: "1"}, standard_tokens: {input: "1", images: "1"}}\n'
    assert lines(tmp_path, book) == [
        "catalog.yaml:11: warning: rows[0].context: ends at 10: longer requests for 'open' have no price; "
        "end the last band with null unless they are meant to be rejected",
        "catalog.yaml:12: warning: rows[1].time_band: leaves 'timed' without a row outside all time bands; "
        "add a row without time_band",
        "catalog.yaml:13: warning: rows[2]: never wins: rows that are more specific cover it, or its time band never "
        "applies; remove it",
        "catalog.yaml:15: warning: rows[4].standard_tokens: has images, which the row does not price, so such an event "
        "is rejected; price it",
        "catalog.yaml:15: warning: rows[4].standard_tokens: lacks output: priced, but it uses up no standard tokens; "
        'write a number, or "0"',
    ]
    assert load_folder(tmp_path).books == ("retail",)


def test_versions_that_collide(tmp_path: Path) -> None:
    second = BOOK.replace("version: 1", "version: 2")
    found = lines(tmp_path, BOOK + rows(""), BOOK + rows(""), second + rows(""), PLAN, PLAN)
    assert [text.split(": ")[0:2] for text in found] == [
        ["catalog.yaml:9", "version"],
        ["catalog.yaml:17", "effective_from"],
        ["catalog.yaml:34", "version"],
    ]
    assert "retail@2 and retail@1" in found[1]
    assert "both begin at 2025-12-31T16:00:00Z, so two would be in force at once" in found[1]


def test_versions_out_of_order_and_in_other_currencies(tmp_path: Path) -> None:
    early = BOOK.replace("version: 1", "version: 2").replace("2026-01", "2025-01").replace("CNY", "USD")
    found = findings(tmp_path, BOOK + rows(""), early + rows(""))
    assert [(f.key, f.severity) for f in found] == [("currency", "error"), ("effective_from", "warning")]


def test_names_that_are_not_defined(tmp_path: Path) -> None:
    bands = 'time_bands: {b: {timezone: UTC, days: [mon], hours: ["00:00-24:00"], except: nowhere}}\n'
    found = lines(tmp_path, BOOK + bands + rows("time_band: peak", "time_band: b"))
    assert [text.split(": ")[1:3] for text in found] == [
        ["time_bands.b.except", "is 'nowhere', but there are no holidays of that name; add an entry of kind holidays"],
        ["rows[0].time_band", "is 'peak'; write one of b"],
    ]


def test_holidays_that_are_off_and_work_at_once(tmp_path: Path) -> None:
    table = "kind: holidays\nname: h\noff: [2026-10-01, 2026-13-01]\nwork: [2026-10-01, 2026-10-01]\n"
    assert [text.split(": ")[1] for text in lines(tmp_path, table)] == ["off[1]"]
    assert [text.split(": ")[1] for text in lines(tmp_path, table.replace(", 2026-13-01", ""))] == ["work"]


def test_fee_shares_add_up_to_one(tmp_path: Path) -> None:
    bucket = '  - {{unit: STD_TOKEN, amount: "1", kind: total, fee_share: "{}"}}\n'
    head = PLAN[: PLAN.index("  - ")]
    assert not findings(tmp_path, head + bucket.format("0.3") + bucket.format("0.7"))
    (found,) = findings(tmp_path, head + bucket.format("0.3") + bucket.format("0.6"))
    assert "add up to 0.9; let them add up to 1" in found.message
    (found,) = findings(tmp_path, head.replace("buckets:", "buckets: []"))
    assert (found.key, found.message) == ("buckets", "is empty; a plan grants at least one bucket")


def test_what_this_version_does_not_do_is_refused_by_name(tmp_path: Path) -> None:
    plan = PLAN.replace("periodic}", "periodic, carry_over_cycles: 1}") + ("breakage: {policy: proportional}\n")
    agreement = "kind: agreement\nname: a\nversion: 1\neffective_from: x\nrole: principal\nmatch: {}\nshares: []\n"
    found = findings(tmp_path, plan, agreement)
    assert all(f.message.startswith("not supported by this version: ") for f in found)
    assert [f.key for f in found] == [
        "breakage.policy",
        "kind",
    ]


def test_prices_that_adjustments_raise_beyond_all_bounds(tmp_path: Path) -> None:
    book = BOOK + 'rows: [{per_million: {output: "PRICE"}}]\nadjustments: [{multiply: "1.1", reason: x}]\n'
    assert not findings(tmp_path, book.replace("PRICE", "9" + "0" * 29))
    (found,) = findings(tmp_path, book.replace("PRICE", "1" + "0" * 30))
    assert found.key == "rows[0].per_million"
    assert "may exceed 1000000000000000000000000 per unit after the adjustments" in found.message


WEEK = range(parse_time_us("2026-06-01T00:00:00Z"), parse_time_us("2026-06-08T00:00:00Z"), HOUR_US)


def brute_force_tie(book: PriceBook, inside: list[frozenset[str]]) -> bool:
    """Return True if some event has two best rows, searched among all events that can differ."""
    for model, site in itertools.product(["a", "ab", "abc", "b"], repeat=2):
        for outcome in ("completed", "partial"):
            fitting = [r for r in book.rows if text_fits(r, Combination(model, site=site, outcome=outcome))]
            for tokens, bands in itertools.product(range(6), inside):
                ranks = [
                    row_rank(r)
                    for r in fitting
                    if context_fits(r, tokens) and (not r.time_band or r.time_band in bands)
                ]
                if ranks.count(max(ranks, default=())) > 1:
                    return True
    return False


def test_ties_agree_with_trying_every_event(tmp_path: Path) -> None:
    """Seeded: 150 random books against every event that can differ; about a sixth of the books have a tie."""
    dice = random.Random(20260601)
    tied = 0
    (book,) = load(tmp_path, BOOK + BANDS + rows("")).price_books
    inside = list({frozenset(n for n, b in book.time_bands.items() if band_contains(b, t)) for t in WEEK})
    for _ in range(150):
        row_lines = []
        for _ in range(dice.randrange(2, 8)):
            parts = [f'model: "{dice.choice(["a*", "ab*", "a"])}"', f'site: "{dice.choice(["*", "a*"])}"']
            if dice.random() < 0.5:
                parts.append(f"time_band: {dice.choice(['peak', 'late', 'night'])}")
            if dice.random() < 0.5:
                low = dice.randrange(3)
                parts.append(f"context: [{low}, {dice.choice([low + 1, low + 2, 'null'])}]")
            if dice.random() < 0.3:
                parts.append("outcome: [completed, partial]")
            row_lines.append(", ".join(parts))
        (tmp_path / "catalog.yaml").write_text(BOOK + BANDS + rows(*row_lines), encoding="utf-8")
        (book,) = read_folder(tmp_path)[0].price_books
        found = any("ties with" in f.message for f in check_rows(book))
        assert found is brute_force_tie(book, inside), row_lines
        tied += found
    assert 20 < tied < 130


def test_a_hundred_identical_rows_are_a_hundred_findings_not_ten_thousand(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        load(tmp_path, BOOK + rows(*["model: m"] * 101))
    assert len(caught.value.findings) == 100
