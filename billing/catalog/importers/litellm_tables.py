"""Findings about the tables in LiteLLM's map: ranges that contradict each other, and fields that no rule reads.

A finding does not change the rows. It is listed, so that a person sees what the rows were made of.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any

from billing.catalog.importers.litellm_rates import INPUT, OFF_PEAK_FIELDS, OUTPUT, TIER_FIELDS
from billing.catalog.importers.litellm_source import NO_END, Entry, range_of
from schemas.fields import show

FLAT_BESIDE_TIERS = "a flat price beside tiers, which hold for every prompt size"
OPEN_RANGE = "an open range, taken as far as the prompt sizes go"
EQUAL_RANGES = "a range that another tier has too; the first one is used"
OVERLAPPING_RANGES = "a range that overlaps another one, whose tier is used"
RANGE_GAP = "no tier has the prompt sizes before this range; they cost what the last tier does"
EMPTY_RANGE = "a range without a prompt size"
NO_RANGE = "a tier without a range of prompt sizes"
_TIERS = "tiered_pricing"
_NOT_PRICED = frozenset(
    {
        *("litellm_provider", "mode", "source", "deprecation_date", "comment", "comments", "notes", "metadata"),
        *("rpm", "tpm", "rpd", "tpd", "output_vector_size", "tool_use_system_prompt_tokens", "display_name"),
        *("web_search_billing_unit", "search_free_requests", "uses_embed_content", "tokenizer", "created"),
        *("prompt_cache_min_tokens", "thinking_always_on", "reasoning_effort_levels", "reasoning_contexts"),
        *("reasoning_modes", "use_openai_responses_path", "gemini_native_audio", "gemini_audio_only_live"),
        *("token_count_model", "token_count_framing", "token_count_tokenizer", "vertex_ai_audio_api"),
        *("bedrock_converse_supports_strict_tools", "audio_transcription_config"),
        *("bedrock_output_config_effort_ceiling", "provider_specific_entry", "litellm_params", "model_info"),
    }
)
_NOT_PRICED_PREFIXES = ("max_", "min_", "supports_", "supported_", "default_")
"""Fields that say nothing about money, in LiteLLM 1.109.1."""
_TABLES: Mapping[str, frozenset[str]] = {
    _TIERS: frozenset({"range", "max_results_range", *TIER_FIELDS}),
    "off_peak_pricing": frozenset({"hours_utc", "windows", "weekday_timezone", *OFF_PEAK_FIELDS}),
    "search_context_cost_per_query": frozenset(f"search_context_size_{size}" for size in ("low", "medium", "high")),
}
"""Tables that are read, and their fields."""
_WINDOW_FIELDS = frozenset({"hours_utc", "weekdays"})


def note_tiers(entry: Entry) -> None:
    """Record what is odd about the ranges of prompt sizes of an entry."""
    table = entry.fields.get(_TIERS)
    tiers = table if isinstance(table, list) else []
    ranges: list[tuple[int, int, int]] = []
    for place, tier in enumerate(tiers):
        ends = range_of(tier)
        if ends is None:
            if any(range_of(other) for other in tiers):
                entry.leave_out(f"{_TIERS}[{place}]", NO_RANGE, show(tier))
            continue
        if ends[1] == NO_END or tier["range"][0] is None:
            entry.leave_out(f"{_TIERS}[{place}].range", OPEN_RANGE, _shown(tier["range"]))
        if ends[0] >= ends[1]:
            entry.leave_out(f"{_TIERS}[{place}].range", EMPTY_RANGE, _shown(tier["range"]))
            continue
        ranges.append((*ends, place))
    ranges.sort()
    for (low, high, _), (next_low, next_high, place) in pairwise(ranges):
        reason = None
        if (low, high) == (next_low, next_high):
            reason = EQUAL_RANGES
        elif next_low < high:
            reason = OVERLAPPING_RANGES
        elif next_low > high:
            reason = RANGE_GAP
        if reason is not None:
            entry.leave_out(f"{_TIERS}[{place}].range", reason, _shown(tiers[place]["range"]))
    if ranges and ranges[0][0] > 0:
        place = ranges[0][2]
        entry.leave_out(f"{_TIERS}[{place}].range", RANGE_GAP, _shown(tiers[place]["range"]))
    for name in (INPUT, OUTPUT) if ranges else ():
        if entry.prices.get(name) and any(name in tier for tier in tiers if isinstance(tier, Mapping)):
            entry.leave_out(name, FLAT_BESIDE_TIERS, str(entry.prices[name]))


def unknown_fields(entry: Entry) -> Iterator[tuple[str, str]]:
    """Yield the fields that no rule knows, in tables too, as their path and their value."""
    known = set(entry.price_fields())
    for name, value in entry.fields.items():
        if name in known or entry.was_read(name) or name in _NOT_PRICED or name.startswith(_NOT_PRICED_PREFIXES):
            continue
        yield name, _shown(value)
    whole = {out.field for out in entry.left_out}
    for table, fields in _TABLES.items():
        if table in whole:
            continue
        yield from _unknown_in(table, entry.fields.get(table), fields)


def _unknown_in(path: str, value: object, fields: frozenset[str]) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _unknown_in(f"{path}[{place}]", item, fields)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if name not in fields:
                yield f"{path}.{name}", _shown(inner)
            elif name == "windows":
                yield from _unknown_in(f"{path}.windows", inner, _WINDOW_FIELDS)


def _shown(value: Any) -> str:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return show(value)
