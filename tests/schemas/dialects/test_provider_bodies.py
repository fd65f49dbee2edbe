"""Usage objects that providers publish give the meters that were worked out by hand; the files name their sources."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dialects import DIALECTS, TABLES, read_dialect
from schemas.dialects.dialect_table import Role, path_steps
from schemas.fields import JsonReal
from schemas.meters import TOKEN_METERS
from schemas.refusals import Refused

ROOT = Path(__file__).parents[3]
FOLDER = Path(__file__).parent

PROVIDERS = (
    "openai.realtime",
    "openai.audio",
    "gemini",
    "dashscope",
    "moonshot",
    "zhipu",
    "minimax",
    "volcengine",
    "qianfan",
    "hunyuan",
    "spark",
    "xai",
    "mistral",
    "cohere",
    "bedrock",
    "ollama",
    "openrouter",
    "perplexity",
    "anthropic",
    "otel",
)
"""The dialects of which published bodies must be here."""


def read(folder: str) -> list[Any]:
    """Return the entries of a folder's files, each with the dialect that its file is named after."""
    return [
        pytest.param(path.stem, entry, id=f"{path.stem}: {entry['name']}")
        for path in sorted((FOLDER / folder).glob("*.json"))
        for entry in json.loads(path.read_text(encoding="utf-8"), parse_float=JsonReal)
    ]


BODIES = read("bodies")
REFUSED = read("refused")


def counts(dialect: str, usage: dict[str, Any]) -> dict[str, int]:
    return dict(read_dialect(dialect, usage).counts)


def refusal(dialect: str, usage: dict[str, Any]) -> str:
    with pytest.raises(Refused) as problem:
        read_dialect(dialect, usage)
    assert problem.value.refusal.code == "usage_mismatch"
    return str(problem.value)


@pytest.mark.parametrize(("dialect", "entry"), BODIES)
def test_a_published_body_gives_its_meters(dialect: str, entry: dict[str, Any]) -> None:
    assert entry["source"].startswith("https://")
    assert counts(dialect, entry["usage"]) == entry["counts"]


@pytest.mark.parametrize(("dialect", "entry"), REFUSED)
def test_a_body_that_contradicts_itself_is_refused(dialect: str, entry: dict[str, Any]) -> None:
    assert entry["source"].startswith("https://")
    assert entry["refused"] in refusal(dialect, entry["usage"])


@pytest.mark.parametrize("dialect", PROVIDERS)
def test_every_provider_has_at_least_three_bodies(dialect: str) -> None:
    assert sum(case.values[0] == dialect for case in BODIES) >= 3


def test_the_page_names_every_dialect() -> None:
    page = (ROOT / "docs" / "reference" / "usage-events.md").read_text(encoding="utf-8")
    assert [name for name in DIALECTS if f"`{name}`" not in page] == []


@pytest.mark.parametrize(("dialect", "entry"), BODIES)
def test_the_dialect_of_the_provider_reads_its_dotted_forms(dialect: str, entry: dict[str, Any]) -> None:
    for base in TABLES.values():
        if dialect in base.forms:
            assert counts(base.name, entry["usage"]) == entry["counts"]


def test_no_row_begins_with_a_name_that_a_form_waits_for() -> None:
    for base in TABLES.values():
        names = {name for form in base.forms for name in TABLES[form].when or TABLES[form].needs}
        assert not names & {path_steps(row.path, base.flat)[0].name for row in base.rows}


def total_paths(dialect: str, usage: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for row in TABLES[dialect].rows:
        steps = path_steps(row.path, TABLES[dialect].flat)
        place: Any = usage
        for step in steps:
            place = place.get(step.name) if isinstance(place, dict) and not step.is_list else None
        if row.role is Role.TOTAL and place:
            yield tuple(step.name for step in steps)


@pytest.mark.parametrize(("dialect", "entry"), BODIES)
def test_a_total_that_is_one_off_is_refused(dialect: str, entry: dict[str, Any]) -> None:
    for path in total_paths(dialect, entry["usage"]):
        alone = sum(entry["counts"].values()) and set(entry["usage"]) == {"total_tokens"}
        for change in (-1, 1):
            usage = copy.deepcopy(entry["usage"])
            place = usage
            for name in path[:-1]:
                place = place[name]
            place[path[-1]] += change
            if not alone and not TABLES[dialect].rest_is_reasoning:
                refusal(dialect, usage)


@pytest.mark.parametrize(("dialect", "entry"), BODIES)
def test_a_number_that_no_row_names_is_refused_with_its_path(dialect: str, entry: dict[str, Any]) -> None:
    usage = {**entry["usage"], "new": {"tokens": [{"count": 7}]}}
    assert "data.usage.new.tokens[0].count is 7" in refusal(dialect, usage)
    noted = read_dialect(dialect, usage, note_unknown=True)
    assert dict(noted.counts) == entry["counts"]
    assert "data.usage.new.tokens[0].count is 7" in noted.unknown[0]
    assert counts(dialect, {**entry["usage"], "new": {"tokens": [{"count": 0}]}}) == entry["counts"]


def placed(paths: dict[str, int], flat: bool) -> dict[str, Any]:
    """Return an object that holds each count at its path."""
    usage: dict[str, Any] = {}
    for path, count in paths.items():
        place = usage
        steps = path_steps(path, flat)
        for step in steps[:-1]:
            if step.is_list:
                items = place.setdefault(step.name, [])
                item = next((item for item in items if item.get(step.key) == step.value or not step.key), None)
                if item is None:
                    item = {step.key: step.value} if step.key else {}
                    items.append(item)
                place = item
            else:
                place = place.setdefault(step.name, {})
        place[steps[-1].name] = count
    return usage


@st.composite
def random_usages(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """Return a dialect with a grand total, and counts of some of its rows but those totals."""
    name = draw(st.sampled_from([name for name in DIALECTS if any(r.role is Role.TOTAL for r in TABLES[name].rows)]))
    table = TABLES[name]
    rows = [row for row in table.rows if row.role not in (Role.TOTAL, Role.NOT_BILLED) and "x_details" not in row.path]
    whole = [row.path for row in rows if row.role in (Role.INPUT, Role.OUTPUT) and not row.group]
    others = draw(st.lists(st.sampled_from([row.path for row in rows]), max_size=4, unique=True))
    paths = {path: draw(st.integers(0, 20)) for path in others}
    return name, {**paths, **{path: draw(st.integers(20, 60)) for path in whole[:2]}}


@given(random_usages())
def test_the_grand_total_is_the_sum_of_the_token_meters(case: tuple[str, dict[str, int]]) -> None:
    dialect, paths = case
    table = TABLES[dialect]
    total = next(row.path for row in table.rows if row.role is Role.TOTAL)
    if any("compaction" in path for path in paths) or table.name == "cohere" or not table.totals:
        return
    try:
        found = counts(dialect, placed(paths, table.flat))
    except Refused as problem:
        assert problem.refusal.code == "usage_mismatch"
        return
    tokens = sum(count for meter, count in found.items() if meter in {*TOKEN_METERS, "video_cache_read"})
    form = [form for form in table.forms if any(name in paths for name in TABLES[form].when or TABLES[form].needs)]
    if form:
        return
    outside = table.name in ("perplexity",) and found.get("reasoning", 0)
    whole = tokens - outside
    assert counts(dialect, placed({**paths, total: whole}, table.flat)) == found
    if not table.rest_is_reasoning:
        assert "add up to" in refusal(dialect, placed({**paths, total: whole + 1}, table.flat))


OTHERWISE = [
    (
        "openai.chat",
        {
            "prompt_tokens": 10120,
            "completion_tokens": 4000,
            "total_tokens": 16929,
            "completion_tokens_details": {"reasoning_tokens": 2809},
        },
        "total_tokens is 16929: prompt_tokens and completion_tokens add up to 14120; is it usage_dialect xai?",
    ),
    (
        "openai.chat",
        {"prompt_tokens": 20, "completion_tokens": 19, "completion_tokens_details": {"reasoning_tokens": 40}},
        "xai",
    ),
    (
        "openai.chat",
        {"promptTokenCount": 20, "candidatesTokenCount": 198, "totalTokenCount": 218},
        "has none of prompt_tokens, completion_tokens, total_tokens, which its dialect counts; is it usage_dialect gem",
    ),
    (
        "anthropic",
        {"input_tokens": 1524, "output_tokens": 30, "total_tokens": 1554, "cache_read_input_tokens": 1305},
        "total_tokens is 1554: input_tokens, cache_read_input_tokens, cache_creation_input_tokens and output_tokens",
    ),
    (
        "openai.responses",
        {"input_tokens": 3, "output_tokens": 550, "cache_creation_input_tokens": 12304},
        "is it usage_dialect anthropic?",
    ),
    (
        "openai.chat",
        {"prompt_tokens": 188, "completion_tokens": 55, "total_tokens": 7355, "connector_tokens": 7112},
        "connector_tokens is 7112: the dialect openai.chat has no meter for it; is it usage_dialect mistral?",
    ),
    (
        "openai.chat",
        {"PromptTokens": 4, "CompletionTokens": 22, "TotalTokens": 26},
        "is it usage_dialect hunyuan?",
    ),
]


@pytest.mark.parametrize(("dialect", "usage", "words"), OTHERWISE)
def test_a_refusal_names_the_dialect_that_counts_otherwise(dialect: str, usage: dict[str, Any], words: str) -> None:
    assert words in refusal(dialect, usage)
