"""Tests that a stored catalogue is rebuilt with the same values and the same digest, however its file is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from catalog_samples import BANDS, BOOK, PLAN, load, rows

from billing.catalog import body_sha256, canonical_json, lint_folder, load_folder
from billing.catalog.entries import from_entries, to_entries

EXAMPLES = Path(__file__).parents[3] / "examples" / "catalog"


def only_text_and_integers(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and only_text_and_integers(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(only_text_and_integers, value))
    return isinstance(value, str) or type(value) is int


def test_the_example_catalogue_has_no_findings() -> None:
    catalog, findings = lint_folder(EXAMPLES)
    assert findings == ()
    assert catalog.books == ("retail-cn",)
    offers = {plan.name: (plan.price_pico // 10**10, plan.buckets[0].amount_micro // 10**12) for plan in catalog.plans}
    assert {name: offers[name] for name in ("token-9.9", "token-29.9", "token-49.9")} == {
        "token-9.9": (990, 10),
        "token-29.9": (2990, 40),
        "token-49.9": (4990, 80),
    }


def test_stored_bodies_rebuild_the_catalogue() -> None:
    catalog = load_folder(EXAMPLES)
    entries = to_entries(catalog)
    assert all(only_text_and_integers(entry.body) for entry in entries)
    rebuilt = from_entries(json.loads(canonical_json(entry.body)) for entry in reversed(entries))
    assert rebuilt == catalog
    assert to_entries(rebuilt) == entries
    assert [(e.kind, e.name, e.version) for e in entries] == sorted((e.kind, e.name, e.version) for e in entries)
    assert all(entry.sha256 == body_sha256(entry.body) for entry in entries)


def test_every_kind_of_value_survives(tmp_path: Path) -> None:
    book = (
        BOOK
        + BANDS
        + rows(
            "model: m, context: [0, 5], time_band: peak, outcome: [partial, completed]",
            "model: m, context: [5, null]",
            "model: m",
        )
    )
    book += 'meters: [watts]\nadjustments: [{site: "a*", model: [m, n], multiply: "0.123456789012", reason: why}]\n'
    plan = PLAN + 'overage: {mode: block}\nalerts: ["0.8", "1"]\n'
    table = "kind: holidays\nname: h\noff: [2026-10-01]\nwork: [2026-10-10]\n"
    catalog = load(tmp_path, book, plan, table)
    assert from_entries(entry.body for entry in to_entries(catalog)) == catalog


def test_the_digest_is_of_the_meaning_not_of_the_text(tmp_path: Path) -> None:
    (entry,) = to_entries(load(tmp_path, BOOK + rows("")))
    same_text = "# a comment\n" + BOOK.replace("CNY", '"CNY"\ntax_rate: "0.060"') + rows('model: "*"')
    (same,) = to_entries(load(tmp_path, same_text))
    (other,) = to_entries(load(tmp_path, BOOK + rows("model: m")))
    assert entry.sha256 == same.sha256 != other.sha256


def test_the_digest_of_a_body_never_changes(tmp_path: Path) -> None:
    """Published versions are identified by the digest. A change here needs a new ``body_version``."""
    entries = to_entries(load(tmp_path, BOOK + BANDS + rows("model: m, time_band: peak, context: [0, 9]", ""), PLAN))
    golden = Path(__file__).with_name("golden") / "bodies.json"
    assert "".join(canonical_json(e.body).decode() + "\n" for e in entries) == golden.read_text(encoding="utf-8")


def test_a_withdrawn_plan_is_refused_by_programs_that_would_sell_it(tmp_path: Path) -> None:
    catalog = load(tmp_path, PLAN + 'withdrawn_from: "2026-12-01T00:00:00+08:00"\n')
    (entry,) = to_entries(catalog)
    assert (entry.body["body_version"], entry.body["withdrawn_from_us"]) == (4, 1_796_054_400_000_000)
    assert from_entries([entry.body]) == catalog


def test_output_bands_and_increments_are_refused_by_programs_that_would_ignore_them(tmp_path: Path) -> None:
    row = 'rows: [{output_context: [0, 5], increments: {input: {minimum: 4, step: 2}}, per_million: {input: "1"}}]\n'
    adjusted = 'adjustments: [{output_context: [5, null], multiply: "2", reason: r}]\n'
    for text in (row, row.replace("output_context: [0, 5], ", ""), rows("") + adjusted):
        catalog = load(tmp_path, BOOK + text)
        (entry,) = to_entries(catalog)
        assert entry.body["body_version"] == 5
        assert from_entries([json.loads(canonical_json(entry.body))]) == catalog


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (PLAN.replace("kind: subscription_month", "kind: months, months: 3"), 5),
        (PLAN.replace("kind: subscription_month", "kind: day"), 5),
        (PLAN.replace("kind: periodic", "kind: periodic, every: week"), 5),
        (PLAN.replace("subscription_month", "calendar_month") + "proration: {quota: true}\n", 5),
        (PLAN + 'windows: [{kind: fixed, every: day, cap: "1"}]\n', 5),
        (PLAN + 'windows: [{kind: from_first_use, hours: 5, cap: "1"}]\n', 5),
        (PLAN + 'windows: [{kind: rolling, hours: 5, cap: "1", alerts: ["1"]}]\n', 5),
        (PLAN + 'windows: [{kind: rolling, hours: 5, cap: "1", unit: REQUEST}]\n', 5),
        (PLAN + 'windows: [{kind: rolling, hours: 5, cap: "1", unit: STD_TOKEN}]\n', 3),
        (PLAN.replace("STD_TOKEN", "REQUEST") + 'members: {cap: "1"}\n', 5),
        (PLAN.replace("STD_TOKEN", "REQUEST") + 'windows: [{kind: rolling, hours: 5, cap: "1"}]\n', 5),
    ],
)
def test_what_an_older_program_would_leave_out_raises_the_version(tmp_path: Path, text: str, version: int) -> None:
    catalog = load(tmp_path, text)
    (entry,) = to_entries(catalog)
    assert entry.body["body_version"] == version
    assert only_text_and_integers(entry.body)
    assert from_entries([json.loads(canonical_json(entry.body))]) == catalog


def test_a_stored_window_without_a_unit_counts_standard_tokens(tmp_path: Path) -> None:
    """It did nothing on a plan of requests, and a version that was published never changes."""
    text = PLAN.replace("STD_TOKEN", "REQUEST") + 'windows: [{kind: rolling, hours: 5, cap: "1"}]\n'
    (entry,) = to_entries(load(tmp_path, text))
    (window,) = entry.body["windows"]
    assert window.pop("unit") == "REQUEST"
    (plan,) = from_entries([entry.body]).plans
    assert plan.windows[0].unit == "STD_TOKEN"


def test_a_body_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    (entry,) = to_entries(load(tmp_path, PLAN))
    with pytest.raises(ValueError, match="body of version 99, not 1 to "):
        from_entries([entry.body | {"body_version": 99}])
    with pytest.raises(ValueError, match="'tariff' is not a kind"):
        from_entries([entry.body | {"kind": "tariff"}])
