"""Dimensions that a book declares: rows and adjustments that match attributes of events."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from pricing_samples import book_of, event

from billing.catalog import PriceBook, lint_folder, load_folder
from billing.catalog.entries import canonical_json, from_entries, to_entries
from billing.catalog.entry_documents import book_object
from billing.pricing import Rated, Rater, RowIndex, rate, rated_as_json
from billing.pricing.explain import explain
from billing.pricing.explain_text import explain_as_text
from schemas.refusals import Refusal
from schemas.units import format_pico
from schemas.usage import UsageEvent

HEAD = """\
kind: price_book
name: video
version: 1
currency: CNY
effective_from: "2026-01-01T00:00:00Z"
dimensions: {resolution: attributes.resolution, has_video: attributes.input_has_video}
"""
ROWS = """\
rows:
  - {per_million: {output: "1"}}
  - {resolution: 1080p, per_million: {output: "4"}}
  - {resolution: "10*", per_million: {output: "3"}}
  - {resolution: 720p, has_video: "true", per_million: {output: "2"}}
  - {channel: edge, per_million: {output: "9"}}
  - {has_video: unknown, channel: bare, per_million: {output: "7"}}
adjustments:
  - {has_video: "true", multiply: "0.5", reason: video in}
"""


def asked(channel: str = "cloud", **attributes: str) -> UsageEvent:
    return replace(event({"output": 1_000_000}, channel=channel), attributes=tuple(sorted(attributes.items())))


def cost(of: UsageEvent, book: PriceBook) -> str:
    result = rate(of, book)
    assert isinstance(result, Rated), result
    assert Rater(book).rate(of) == result
    return format_pico(result.amount_pico)


@pytest.mark.parametrize(
    ("attributes", "channel", "amount"),
    [
        ({}, "cloud", "1"),
        ({"resolution": "480p"}, "cloud", "1"),
        ({"resolution": "1080p"}, "cloud", "4"),
        ({"resolution": "1024"}, "cloud", "3"),
        ({"resolution": "720p"}, "cloud", "1"),
        ({"resolution": "720p", "input_has_video": "true"}, "cloud", "1"),
        ({"input_has_video": "true"}, "cloud", "0.5"),
        ({"resolution": "1080p"}, "edge", "9"),  # channel comes before what the book declares
        ({}, "bare", "7"),
        ({"input_has_video": "false"}, "bare", "1"),
    ],
)
def test_rows_and_adjustments_match_attributes(
    tmp_path: Path, attributes: dict[str, str], channel: str, amount: str
) -> None:
    assert cost(asked(channel, **attributes), book_of(tmp_path, ROWS, HEAD)) == amount


def test_an_explanation_names_declared_dimensions(tmp_path: Path) -> None:
    book = book_of(tmp_path, ROWS, HEAD)
    of = asked(resolution="720p", input_has_video="true")
    told = explain(of, RowIndex(book))
    assert told["combination"] | {"resolution": "720p", "has_video": "true"} == told["combination"]
    assert told["row"] | {"resolution": "720p", "has_video": "true"} == told["row"]
    assert ["resolution '720p' does not match '1080p'"] in [row["why"] for row in told["lost"]]
    assert told["adjustments"][0]["applies"] is True
    result = rate(of, book)
    text = explain_as_text({**rated_as_json(of, result), "explain": told})
    assert "  resolution (自定义维度) 720p\n" in text


def test_a_rejection_names_declared_dimensions(tmp_path: Path) -> None:
    result = rate(asked(resolution="4k"), book_of(tmp_path, ROWS.replace("- {per", "- {model: other, per"), HEAD))
    assert isinstance(result, Refusal)
    assert "resolution '4k', has_video 'unknown'" in result.detail


def test_a_book_that_declares_dimensions_is_stored_and_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "book.yaml").write_text(HEAD + ROWS, encoding="utf-8")
    catalog = load_folder(tmp_path)
    (entry,) = to_entries(catalog)
    assert entry.body["body_version"] == 5
    assert from_entries([json.loads(canonical_json(entry.body))]) == catalog
    shown = book_object(catalog.price_books[0])
    assert shown["dimensions"] == {
        "resolution": "attributes.resolution",
        "has_video": "attributes.input_has_video",
    }
    assert (shown["rows"][1]["resolution"], shown["rows"][1]["has_video"]) == ("1080p", "*")
    assert shown["adjustments"][0]["has_video"] == ["true"]
    assert catalog.declared_attributes() == {"resolution", "input_has_video"}


@pytest.mark.parametrize(
    ("dimensions", "message"),
    [
        ("{site: attributes.site}", "dimensions.site: is the name of another key of rows or adjustments"),
        ("{a: resolution}", "dimensions.a: is 'resolution'; write attributes. and the name of an attribute"),
        ("{a: attributes.}", "dimensions.a: is 'attributes.'; write attributes. and the name"),
        ("{a: attributes.x, b: attributes.x}", "dimensions.b: is 'attributes.x', which another dimension has"),
        ("{A: attributes.x}", "dimensions.A: is not a name of a dimension"),
        ("{" + ", ".join(f"a{n}: attributes.a{n}" for n in range(9)) + "}", "has 9 dimensions; declare at most 8"),
    ],
)
def test_mistakes_in_dimensions_are_named(tmp_path: Path, dimensions: str, message: str) -> None:
    text = HEAD.replace("{resolution: attributes.resolution, has_video: attributes.input_has_video}", dimensions)
    (tmp_path / "book.yaml").write_text(text + 'rows: [{per_million: {output: "1"}}]\n', encoding="utf-8")
    found = [str(finding).partition("book.yaml:")[2] for finding in lint_folder(tmp_path)[1]]
    assert [text.startswith("6: ") and message in text for text in found] == [True], found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("resolutoin: 1080p",), "rows[0].resolutoin: is not a known key; did you mean 'resolution'?"),
        (("resolution: 1080p", "resolution: 1080p", ""), "rows[1]: ties with rows[0] in line 8"),
        (("resolution: 1080p", "resolution: 720p", ""), ""),
        (("resolution: 1080p, context: [5, null]", ""), ""),
        (("resolution: 1080p, context: [5, null]",), "rows[0].context: leaves a hole in the context bands"),
        (("resolution: 1080p", "site: a", ""), "warning: rows[0]: overlaps rows[1] in line 9, which wins for site a, "
         "resolution 1080p"),
        (("resolution: 1080p", "site: a", "site: a, resolution: 1080p", ""), ""),
    ],
)  # fmt: skip
def test_rows_are_checked_by_declared_dimensions_as_by_others(
    tmp_path: Path, rows: tuple[str, ...], message: str
) -> None:
    lines = [f"  - {{{row}{', ' if row else ''}per_million: {{output: '1'}}}}\n" for row in rows]
    (tmp_path / "book.yaml").write_text(HEAD + "rows:\n" + "".join(lines), encoding="utf-8")
    found = [str(finding).partition("book.yaml:")[2].partition(": ")[2] for finding in lint_folder(tmp_path)[1]]
    assert [text.startswith(message) for text in found] == ([True] if message else []), found
