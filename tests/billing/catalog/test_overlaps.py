"""Tests of rows that cross and rows that never win, which the author of a book probably did not intend."""

import random
from itertools import product
from pathlib import Path

import pytest
from catalog_samples import BANDS, BOOK, findings, lines, rows

from billing.catalog import WARNING
from billing.catalog.check_rows import check_rows
from billing.catalog.load import read_folder
from billing.catalog.patterns import row_rank
from billing.pricing import Combination
from billing.pricing.match import context_fits, output_fits, text_fits


def test_an_overlap_names_both_rows_and_what_they_share(tmp_path: Path) -> None:
    book = BOOK + rows('model: m, hardware_tier: "ascend-*", site: a', "model: m, service_tier: batch")
    assert lines(tmp_path, book) == [
        "catalog.yaml:8: warning: rows[1]: overlaps rows[0] in line 7, which wins for model m, hardware_tier ascend-*, "
        "site a, service_tier batch; if that is not meant, add a row for just that"
    ]


@pytest.mark.parametrize(
    ("row_lines", "crossing"),
    [
        (("model: m, site: a", "model: m, channel: edge"), [1]),
        (("model: m, site: a", "model: m, channel: edge", "model: m, site: a, channel: edge"), []),
        (("model: m, site: a", "model: m, channel: edge", 'model: m, site: "a*", channel: "e*"'), [0, 1]),
        (("model: m, site: a", 'model: m, site: "a*"', "model: m"), []),  # one is inside the other
        (("model: m, site: a", "model: m, site: b, channel: edge"), []),  # nothing in common
        (('model: m, site: "a*", channel: edge', 'model: m, site: ab, channel: "*"'), [1]),
        (("model: m, site: a", "model: n, channel: edge"), []),
        (("model: m, site: a", 'model: "m*", channel: edge'), []),  # the more specific model decides
        (("model: m, site: a", "model: m, channel: edge, outcome: failed"), []),
        (("model: m, site: a", "model: m, time_band: peak"), [1]),
        (("model: m, time_band: peak, site: a", "model: m, time_band: night, channel: edge"), []),
        (("model: m, time_band: peak, site: a", "model: m, time_band: late, channel: edge"), [1]),
        (("model: m, context: [0, null]", "model: m, site: a"), [0]),
        (("model: m, context: [0, 5]", "model: m, output_context: [0, 5]", "model: m"), [1]),
        (
            (
                "model: m, context: [0, 5]",
                "model: m, output_context: [0, 5]",
                "model: m, context: [0, 5], output_context: [0, 5]",
                "model: m",
            ),
            [],
        ),
        (("model: m, output_context: [0, 5], site: a", "model: m, output_context: [5, 9], channel: e", "model: m"), []),
        (("model: m, context: [0, 5], site: a", "model: m, context: [5, null], channel: edge", "model: m"), []),
    ],
)
def test_rows_that_cross(tmp_path: Path, row_lines: tuple[str, ...], crossing: list[int]) -> None:
    found = [f for f in findings(tmp_path, BOOK + BANDS + rows(*row_lines)) if ": overlaps" in f": {f.message}"]
    assert [f.key for f in found] == [f"rows[{index}]" for index in crossing]
    assert all(f.severity == WARNING for f in found)


def test_many_overlaps_are_told_once_and_for_all(tmp_path: Path) -> None:
    sites = [f"model: m, site: s{number}" for number in range(60)]
    found = findings(tmp_path, BOOK + rows(*sites, "model: m, channel: edge"))
    assert len(found) == 51
    assert sum("from here on overlaps were not looked for, after 50 of them" in f.message for f in found) == 1


@pytest.mark.parametrize(
    ("row_lines", "useless"),
    [
        (("model: m, site: a", "model: m, context: [0, null], time_band: all"), [0]),
        (("model: m, site: a", "model: m, context: [0, 9], time_band: all"), []),
        (
            (
                "model: m, site: a",
                "model: m, context: [0, 9], time_band: all",
                "model: m, context: [9, null], time_band: all",
            ),
            [0],
        ),
        (("model: m, site: a, outcome: failed", "model: m, context: [0, null], time_band: all"), []),
        (("model: m", "model: m, context: [0, null]"), [0]),
        (("model: m, site: a, channel: edge", 'model: m, site: "*", context: [0, null], time_band: all'), []),
    ],
)
def test_rows_that_never_win(tmp_path: Path, row_lines: tuple[str, ...], useless: list[int]) -> None:
    bands = """\
time_bands:
  all: {timezone: Asia/Shanghai, days: [mon, tue, wed, thu, fri, sat, sun], hours: ["00:00-24:00"]}
"""
    found = findings(tmp_path, BOOK + bands + rows(*row_lines))
    assert [f.key for f in found if "never wins" in f.message] == [f"rows[{index}]" for index in useless]


def test_rows_that_never_win_agree_with_trying_every_event(tmp_path: Path) -> None:
    """Seeded: 200 random books of one model without time bands, against every event that can differ."""
    dice = random.Random(4)
    useless = 0
    for _ in range(200):
        row_lines = []
        for _ in range(dice.randrange(1, 7)):
            parts = [f'site: "{dice.choice(["*", "a*", "ab"])}"', f'channel: "{dice.choice(["*", "edge"])}"']
            if dice.random() < 0.6:
                low = dice.randrange(3)
                parts.append(f"context: [{low}, {dice.choice([low + 1, 'null', 'null'])}]")
            if dice.random() < 0.3:
                low = dice.randrange(2)
                parts.append(f"output_context: [{low}, {dice.choice([low + 1, 'null', 'null'])}]")
            row_lines.append(", ".join(parts))
        (tmp_path / "catalog.yaml").write_text(BOOK + rows(*row_lines), encoding="utf-8")
        (book,) = read_folder(tmp_path)[0].price_books
        winners: set[int] = set()
        for site, channel, tokens, output in product(["a", "ab", "abc", "b"], ["edge", "cloud"], range(6), range(4)):
            combination = Combination("m", site=site, channel=channel)
            fitting = [r for r in book.rows if text_fits(r, combination)]
            fitting = [r for r in fitting if context_fits(r, tokens) and output_fits(r, output)]
            best = max(map(row_rank, fitting), default=None)
            winners |= {row.index for row in fitting if row_rank(row) == best}
        found = {f.key for f in check_rows(book) if "never wins" in f.message}
        told = {f"rows[{row.index}]" for row in book.rows if row.index not in winners}
        # The check does not find a row that only several others together cover, by patterns narrower than its own.
        assert found <= told
        useless += len(found)
    assert useless > 30


def test_time_bands_and_models_of_adjustments_are_checked(tmp_path: Path) -> None:
    book = (
        BOOK
        + BANDS
        + rows('model: "deepseek-*"', "model: glm-5")
        + (
            'adjustments:\n  - {time_band: [peak, noon], multiply: "0.5", reason: x}\n'
            '  - {model: [deepseek-v3.2, glm-6, "glm-*", "deepseek-v*"], multiply: "0.5", reason: x}\n'
        )
    )
    assert lines(tmp_path, book) == [
        "catalog.yaml:14: adjustments[0].time_band: is 'noon'; write one of peak, late, night",
        "catalog.yaml:15: warning: adjustments[1].model: has glm-6, which no row prices; correct or remove it",
    ]
