"""Every provider's usage becomes disjoint meters that add up to its total, or is refused; it is never guessed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dialects import DIALECTS, disjoint_counts
from schemas.meters import TOKEN_METERS
from schemas.refusals import Refused

CHAT = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
OVERLAP = {"cached_tokens": 300, "image_tokens": 600}


def chat(**fields: Any) -> dict[str, Any]:
    return {**CHAT, **fields}


def prompt(**details: Any) -> dict[str, Any]:
    return chat(prompt_tokens_details=details)


SHAPES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    *((name, {}, {}) for name in DIALECTS),
    *(
        (name, CHAT, {"input": 1000, "output": 100})
        for name in ("openai.chat", "deepseek", "vllm", "sglang", "litellm")
    ),
    ("openai.chat", chat(prompt_tokens_details=None, completion_tokens_details=None), {"input": 1000, "output": 100}),
    ("openai.chat", {"prompt_tokens": 8, "total_tokens": 8}, {"input": 8}),
    ("openai.chat", prompt(cached_tokens=None, audio_tokens=None), {"input": 1000, "output": 100}),
    ("openai.chat", prompt(cached_tokens=1000), {"cache_read": 1000, "output": 100}),
    (
        "openai.chat",
        prompt(cached_tokens=300, cache_write_tokens=700),
        {"cache_read": 300, "cache_write": 700, "output": 100},
    ),
    # worked example: 1000 input tokens, of which 600 are image, 300 cached and 200 both
    (
        "openai.chat",
        prompt(**OVERLAP, cached_tokens_details={"image_tokens": 200}),
        {"input": 300, "cache_read": 100, "image_input": 400, "image_cache_read": 200, "output": 100},
    ),
    (
        "litellm",
        prompt(**OVERLAP, cached_image_tokens=200),
        {"input": 300, "cache_read": 100, "image_input": 400, "image_cache_read": 200, "output": 100},
    ),
    # without details, cached tokens are taken from text first
    ("openai.chat", prompt(**OVERLAP), {"input": 100, "cache_read": 300, "image_input": 600, "output": 100}),
    (
        "openai.chat",
        prompt(text_tokens=700, audio_tokens=300, cached_tokens_details={"text_tokens": 50, "audio_tokens": 100}),
        {"input": 650, "cache_read": 50, "audio_input": 200, "audio_cache_read": 100, "output": 100},
    ),
    (
        "openai.chat",
        chat(completion_tokens_details={"reasoning_tokens": 20, "audio_tokens": 30, "text_tokens": 50}),
        {"input": 1000, "output": 50, "reasoning": 20, "audio_output": 30},
    ),
    (
        "openai.responses",
        {"input_tokens": 5, "input_tokens_details": {"cached_tokens": 5}, "output_tokens": 9, "total_tokens": 14},
        {"cache_read": 5, "output": 9},
    ),
    ("anthropic", {"input_tokens": 3, "output_tokens": 4}, {"input": 3, "output": 4}),
    (
        "anthropic",
        {"input_tokens": 3, "cache_read_input_tokens": 900, "cache_creation_input_tokens": None, "output_tokens": 4},
        {"input": 3, "cache_read": 900, "output": 4},
    ),
    (
        "anthropic",
        {"input_tokens": 3, "cache_creation_input_tokens": 10, "cache_creation": None, "output_tokens": 4},
        {"input": 3, "cache_write": 10, "output": 4},
    ),
    (
        "anthropic",
        {"input_tokens": 3, "cache_creation": {"ephemeral_1h_input_tokens": 10}, "output_tokens": 4},
        {"input": 3, "cache_write_1h": 10, "output": 4},
    ),
    ("deepseek", chat(prompt_cache_hit_tokens=1000, prompt_cache_miss_tokens=0), {"cache_read": 1000, "output": 100}),
    ("deepseek", chat(prompt_cache_miss_tokens=400), {"input": 400, "cache_read": 600, "output": 100}),
    ("vllm", {"prompt_tokens": 7, "completion_tokens": None, "total_tokens": 7}, {"input": 7}),
    (
        "vllm",
        chat(prompt_tokens_details={"created_cache_tokens": 64}),
        {"input": 936, "cache_write": 64, "output": 100},
    ),
    ("sglang", chat(reasoning_tokens=100), {"input": 1000, "reasoning": 100}),
    ("sglang", chat(reasoning_tokens=0, prompt_tokens_details=None), {"input": 1000, "output": 100}),
    (
        "otel",
        {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 5, "gen_ai.usage.input_tokens.cached": 4},
        {"input": 6, "cache_read": 4, "output": 5},
    ),
    (
        "litellm",
        chat(cache_read_input_tokens=0, prompt_tokens_details={"cached_tokens": 600, "text_tokens": 400}),
        {"input": 400, "cache_read": 600, "output": 100},
    ),
    (
        "litellm",
        chat(prompt_tokens_details={"web_search_requests": 2, "character_count": 4000, "image_count": 1}),
        {"input": 1000, "output": 100, "searches": 2},
    ),
]


@pytest.mark.parametrize(("dialect", "usage", "counts"), SHAPES)
def test_a_real_shape_becomes_disjoint_meters(dialect: str, usage: dict[str, Any], counts: dict[str, int]) -> None:
    assert dict(disjoint_counts(dialect, usage)) == counts


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("openai.chat", chat(total_tokens=1099), "usage_mismatch", "data.usage.total_tokens is 1099"),
    ("openai.chat", chat(prompt_tokens=-1), "usage_mismatch", "data.usage.prompt_tokens is -1"),
    ("openai.chat", chat(prompt_tokens=1.5), "invalid_event", "data.usage.prompt_tokens is 1.5"),
    ("openai.chat", chat(prompt_tokens="9"), "invalid_event", 'data.usage.prompt_tokens is "9"'),
    ("openai.chat", chat(prompt_tokens=2**63), "overflow", "data.usage.prompt_tokens is "),
    ("openai.chat", {"input_tokens": 5}, "usage_mismatch", "data.usage has none of prompt_tokens"),
    ("openai.chat", {"prompt_tokens": None, "total_tokens": 5}, "usage_mismatch", "data.usage.total_tokens is 5"),
    ("openai.chat", prompt(cached_tokens=1001), "usage_mismatch", "more than the whole"),
    ("openai.chat", prompt(cached_tokens=-1), "usage_mismatch", "prompt_tokens_details.cached_tokens is -1"),
    ("openai.chat", prompt(image_tokens=600, audio_tokens=600), "usage_mismatch", "more than the whole"),
    ("openai.chat", prompt(text_tokens=5), "usage_mismatch", "text, audio, image and video tokens are 5"),
    ("openai.chat", prompt(cached_tokens=500, image_tokens=600), "usage_mismatch", "no detail says which"),
    ("openai.chat", prompt(**OVERLAP, cached_image_tokens=301), "usage_mismatch", "add up to 301"),
    ("openai.chat", prompt(cached_tokens=9, cached_image_tokens=9), "usage_mismatch", "9 cached image tokens"),
    (
        "openai.chat",
        prompt(**OVERLAP, cached_tokens_details={"image_tokens": 200, "text_tokens": 50}),
        "usage_mismatch",
        "add up to 250",
    ),
    ("openai.chat", chat(prompt_tokens_details=[]), "invalid_event", "expected an object"),
    ("openai.chat", chat(completion_tokens_details={"reasoning_tokens": 101}), "usage_mismatch", "more than the whole"),
    (
        "openai.chat",
        chat(completion_tokens_details={"rejected_prediction_tokens": 101}),
        "usage_mismatch",
        "prediction tokens are 101",
    ),
    ("anthropic", CHAT, "usage_mismatch", "has none of input_tokens"),
    (
        "anthropic",
        {"input_tokens": 1, "cache_creation_input_tokens": 10, "cache_creation": {"ephemeral_5m_input_tokens": 9}},
        "usage_mismatch",
        "add up to 9",
    ),
    ("anthropic", {"input_tokens": 1, "output_tokens": 1, "total_tokens": 3}, "usage_mismatch", "add up to 2"),
    ("deepseek", chat(prompt_cache_hit_tokens=1, prompt_cache_miss_tokens=1), "usage_mismatch", "add up to 2"),
    ("deepseek", chat(prompt_cache_miss_tokens=1001), "usage_mismatch", "more than prompt_tokens"),
    (
        "deepseek",
        chat(prompt_cache_hit_tokens=1, prompt_tokens_details={"cached_tokens": 2}),
        "usage_mismatch",
        "name the same count",
    ),
    ("vllm", prompt(multimodal_tokens={"smell": 1}), "usage_mismatch", "no meter"),
    ("sglang", chat(reasoning_tokens=101), "usage_mismatch", "more than the whole"),
    (
        "sglang",
        chat(reasoning_tokens=5, completion_tokens_details={"reasoning_tokens": 6}),
        "usage_mismatch",
        "name the same count",
    ),
    (
        "otel",
        {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.prompt_tokens": 2},
        "usage_mismatch",
        "name the same count",
    ),
    ("otel", {"gen_ai.usage.input_tokens": 1, "gen_ai.usage.cache_read.input_tokens": 2}, "usage_mismatch", "whole"),
    ("litellm", chat(cache_read_input_tokens=5, prompt_tokens_details={"cached_tokens": 6}), "usage_mismatch", "same"),
    ("parrot", {}, "invalid_event", 'data.usage_dialect is "parrot"'),
]


@pytest.mark.parametrize(("dialect", "usage", "reason", "words"), REFUSED)
def test_what_does_not_add_up_is_refused(dialect: str, usage: dict[str, Any], reason: str, words: str) -> None:
    with pytest.raises(Refused) as problem:
        disjoint_counts(dialect, usage)
    assert problem.value.refusal.code == reason
    assert words in str(problem.value)


SMALL = st.integers(0, 9)
COUNT = st.one_of(SMALL, SMALL, SMALL, st.none(), st.integers(-1, 2**63 - 1))
TOTAL = st.one_of(st.none(), st.integers(0, 20), st.integers(20, 200), st.integers(20, 200))


def objects(*names: str, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any] | None]:
    return st.none() | st.fixed_dictionaries({}, optional={**{name: COUNT for name in names}, **more})  # noqa: C420


LIVES = objects("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens")
MEDIA = ("cached_tokens", "audio_tokens", "image_tokens", "video_tokens", "cached_image_tokens")
OUTPUT = objects("reasoning_tokens", "audio_tokens", "image_tokens", "accepted_prediction_tokens")
INPUTS = {
    "vllm": objects("cached_tokens", "created_cache_tokens", multimodal_tokens=objects("image", "audio", "video")),
    "litellm": objects(*MEDIA, "cache_creation_tokens", cache_creation_token_details=LIVES),
    "deepseek": objects("image_tokens"),
}
OTHER_INPUT = objects(*MEDIA, "cache_write_tokens", cached_tokens_details=objects("text_tokens", "audio_tokens"))


WRITTEN_HERE = ("openai.chat", "openai.responses", "anthropic", "deepseek", "vllm", "sglang", "otel", "litellm")
"""The dialects whose objects are generated here; the others follow from their tables in dialects/."""


@st.composite
def provider_usages(draw: st.DrawFn) -> tuple[str, dict[str, Any], int]:
    """Return usage in some dialect, often inconsistent, and the total that its provider would bill."""
    dialect = draw(st.sampled_from(WRITTEN_HERE))
    received, made = draw(TOTAL), draw(TOTAL)
    inclusive = (received or 0) + (made or 0)
    if dialect == "anthropic":
        read, written = draw(TOTAL), draw(st.integers(1, 40))
        usage: dict[str, Any] = {
            "input_tokens": received,
            "output_tokens": made,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": written,
            "cache_creation": draw(LIVES),
        }
        return dialect, usage, inclusive + (read or 0) + written
    if dialect == "otel":
        names = ("cache_read.input_tokens", "cache_creation.input_tokens", "reasoning.output_tokens")
        usage = {f"gen_ai.usage.{name}": draw(COUNT) for name in names}
        return dialect, {**usage, "gen_ai.usage.input_tokens": received, "gen_ai.usage.output_tokens": made}, inclusive
    words = ("input", "output") if dialect == "openai.responses" else ("prompt", "completion")
    usage = {
        f"{words[0]}_tokens": received,
        f"{words[1]}_tokens": made,
        "total_tokens": draw(st.sampled_from([None, inclusive])),
        f"{words[0]}_tokens_details": draw(INPUTS.get(dialect, OTHER_INPUT)),
        f"{words[1]}_tokens_details": draw(OUTPUT),
    }
    if dialect == "deepseek":
        hit = draw(COUNT)
        miss = draw(st.sampled_from([None, (received or 0) - (hit or 0)]) | COUNT)
        usage |= {"prompt_cache_hit_tokens": hit, "prompt_cache_miss_tokens": miss}
    if dialect == "sglang":
        usage |= {"reasoning_tokens": draw(COUNT), "completion_tokens_details": None}
    return dialect, usage, inclusive


@given(provider_usages())
def test_law_parts_add_up_to_the_total_and_none_is_negative(case: tuple[str, dict[str, Any], int]) -> None:
    dialect, usage, total = case
    try:
        counts = disjoint_counts(dialect, usage)
    except Refused as problem:
        assert problem.refusal.code in ("usage_mismatch", "overflow")
        return
    assert all(count > 0 for _, count in counts)
    assert sum(count for _, count in counts) == total
    assert {meter for meter, _ in counts} <= {*TOKEN_METERS, "video_cache_read"}


@given(st.lists(st.integers(0, 10**9), min_size=9, max_size=9), st.sampled_from(["openai.chat", "sglang", "litellm"]))
def test_what_was_disjoint_comes_back_as_it_was(parts: list[int], dialect: str) -> None:
    text, read, audio, audio_read, image, image_read, out, thought, sound = parts
    prompt_tokens, completion_tokens = text + read + audio + audio_read + image + image_read, out + thought + sound
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": read + audio_read + image_read,
            "audio_tokens": audio + audio_read,
            "image_tokens": image + image_read,
            "cached_tokens_details": {
                "text_tokens": read,
                "audio_tokens": audio_read,
                "image_tokens": image_read,
            },
        },
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": sound},
    }
    names = ("input", "cache_read", "audio_input", "audio_cache_read", "image_input", "image_cache_read")
    expected = dict(zip((*names, "output", "reasoning", "audio_output"), parts, strict=True))
    assert dict(disjoint_counts(dialect, usage)) == {name: count for name, count in expected.items() if count}
