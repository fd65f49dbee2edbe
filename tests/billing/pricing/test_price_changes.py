"""Prices that changed by more than a stated factor between two versions: ``catalog check --max-price-change``."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from pricing_samples import HEAD

from tokenbill.commands.catalog import catalog
from tokenbill.user_errors import UserError

NEXT = HEAD.replace("version: 3", "version: 4").replace("2026-01-01", "2026-06-01")


def check(folder: Path, before: str, after: str, factor: str = "2") -> Result:
    """Check two versions of a book."""
    (folder / "b.yaml").write_text(HEAD + before + "---\n" + NEXT + after, encoding="utf-8")
    return CliRunner().invoke(catalog, ["check", str(folder), "--max-price-change", factor], catch_exceptions=False)


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ("8", "16", False),
        ("8", "16.000001", True),
        ("8", "4", False),
        ("8", "3.999999", True),
        ("0", "0.000001", True),
        ("8", "0", True),
        ("0", "0", False),
    ],
)
def test_a_price_that_changed_by_more_than_the_factor(tmp_path: Path, before: str, after: str, found: bool) -> None:
    row = 'rows: [{{model: m, per_million: {{input: "{}"}}}}]\n'
    result = check(tmp_path, row.format(before), row.format(after))
    assert result.exit_code == (1 if found else 0)
    assert ("rows[0].per_million.input: comes to" in result.stdout) is found


def test_it_names_both_lines(tmp_path: Path) -> None:
    row = 'rows:\n  - {{model: m, per_million: {{input: "{}"}}}}\n'
    result = check(tmp_path, row.format("1"), row.format("10"))
    book = tmp_path / "b.yaml"
    assert result.stdout.splitlines() == [
        f"{book}:19: rows[0].per_million.input: comes to 10 after adjustments, from 2026-05-31T16:00:00Z on; in "
        f"retail@3 ({book}:9) it was 1: that is more than a factor of 2; correct it, or allow more with "
        "--max-price-change"
    ]
    assert check(tmp_path, row.format("1"), row.format("10"), "10").exit_code == 0


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        # a row that is gone, so a wider one takes its events
        (
            'rows: [{model: m, per_million: {input: "1"}}, {per_million: {input: "9"}}]\n',
            'rows: [{per_million: {input: "9"}}]\n',
            "rows[0].per_million.input",
        ),
        # a new row for what a wider one priced
        (
            'rows: [{model: "m*", per_million: {input: "1"}}]\n',
            'rows: [{model: "m*", per_million: {input: "1"}}, {model: m, site: a, per_million: {input: "9"}}]\n',
            "rows[1].per_million.input",
        ),
        # an adjustment
        (
            'rows: [{per_million: {input: "1"}}]\n',
            'rows: [{per_million: {input: "1"}}]\nadjustments: [{multiply: "0.1", reason: x}]\n',
            "rows[0].per_million.input",
        ),
        # only in a time band
        (
            'rows: [{per_million: {input: "1"}}, {time_band: peak, per_million: {input: "2"}}]\n',
            'rows: [{per_million: {input: "1"}}, {time_band: peak, per_million: {input: "9"}}]\n',
            "rows[1].per_million.input",
        ),
        # only in a context band
        (
            'rows: [{context: [0, 9], per_million: {input: "1"}}, {context: [9, null], per_million: {input: "1"}}]\n',
            'rows: [{context: [0, 9], per_million: {input: "1"}}, {context: [9, null], per_million: {input: "3"}}]\n',
            "rows[1].per_million.input",
        ),
    ],
)
def test_what_an_event_costs_is_compared_not_how_rows_are_written(
    tmp_path: Path, before: str, after: str, key: str
) -> None:
    result = check(tmp_path, before, after)
    assert result.exit_code == 1
    assert [text.split(": ")[1] for text in result.stdout.splitlines() if "comes to" in text] == [key]


def test_prices_that_are_the_same_in_other_rows_have_not_changed(tmp_path: Path) -> None:
    before = 'rows: [{per_million: {input: "1"}}, {model: m, site: a, per_million: {input: "1"}}]\n'
    assert check(tmp_path, before, 'rows: [{per_million: {input: "1"}}]\n', "1").exit_code == 0


@pytest.mark.parametrize("factor", ["0.5", "two", "-1"])
def test_a_factor_is_at_least_one(tmp_path: Path, factor: str) -> None:
    with pytest.raises(UserError, match="is not a factor"):
        check(tmp_path, 'rows: [{per_million: {input: "1"}}]\n', 'rows: [{per_million: {input: "1"}}]\n', factor)
