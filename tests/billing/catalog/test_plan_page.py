"""Tests that the examples in docs/plans.md load as they are, and that the page has every key of a plan."""

import re
from pathlib import Path

from billing.catalog import lint_folder
from billing.catalog.entries import from_entries, to_entries
from billing.catalog.read_plan import OVERAGE_KEYS, PLAN_OPTIONAL, PLAN_REQUIRED

PAGE = (Path(__file__).parents[3] / "docs" / "plans.md").read_text(encoding="utf-8")


def test_the_examples_of_the_page_are_plans_without_findings_and_survive_being_stored(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "catalog.yaml").write_text("---\n".join(examples), encoding="utf-8")
    catalog, findings = lint_folder(tmp_path)
    assert findings == ()
    assert [plan.name for plan in catalog.plans] == ["coding-29.9", "coding-lite", "family-49.9"]
    entries = to_entries(catalog)
    assert [entry.body["body_version"] for entry in entries] == [3, 5, 3]
    assert from_entries(entry.body for entry in entries) == catalog


def test_the_page_has_every_key() -> None:
    for key in (
        *PLAN_REQUIRED,
        *PLAN_OPTIONAL,
        *OVERAGE_KEYS,
        "unit",
        "amount",
        "priority",
        "scope",
        "fee_share",
        "hours",
    ):
        assert f"`{key}`" in PAGE, key
    for key in (key for keys in OVERAGE_KEYS.values() for key in keys):
        assert f"`{key}" in PAGE, key
    assert all(f"`{key}" in PAGE for key in ("members", "seats", "cap", "every", "carry_over_cycles"))
