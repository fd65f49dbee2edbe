"""Tests that an imported price book bills what LiteLLM computes: every imported model, every tier, random usage.

LiteLLM counts in binary floating point, so its cost is read back as the decimal that it prints, and the two may differ
by 2e-9 of the cost. Half of that is the rounding that the importer may do. The entry of the map is passed to LiteLLM's
rules, because its look-up by name sometimes prefers another key (``gemini/NAME`` for ``NAME``). One test lets LiteLLM
look up the name.
"""

import json
import os
import random
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # before the import, else LiteLLM downloads a newer map

import litellm
from litellm._internal_context import pinned_billing_time
from litellm.cost_calculator import batch_cost_calculator, cost_per_token, default_image_cost_calculator
from litellm.litellm_core_utils.llm_cost_calc.utils import generic_cost_per_token
from litellm.llms.anthropic.cost_calculation import cost_per_token as anthropic_cost_per_token
from litellm.llms.openai.cost_calculation import video_generation_cost
from litellm.types.utils import (
    CacheCreationTokenDetails,
    CompletionTokensDetailsWrapper,
    PromptTokensDetailsWrapper,
    Usage,
)

from billing.catalog import PriceBook, load_folder
from billing.catalog.importers.litellm import import_price_map
from billing.catalog.importers.write import write_books
from billing.pricing import Rated, Rater
from schemas.meters import canonical_counts
from schemas.usage import UsageEvent

pytestmark = pytest.mark.filterwarnings("ignore:Item:UserWarning")  # raised by LiteLLM's own types
SEED = 20261122
TOLERANCE = Decimal("2e-9")
MAP = Path(litellm.__file__).parent / "model_prices_and_context_window_backup.json"
INPUTS = ("input", "cache_read", "cache_write", "cache_write_1h", "audio_input", "image_input", "video_input")
OUTPUTS = ("output", "reasoning", "audio_output", "image_output", "video_output")
READS = frozenset({"cache_read", "audio_cache_read"})
IMPORTED_AT_LEAST = 4_300


@pytest.fixture(scope="module")
def entries() -> dict[str, dict[str, Any]]:
    """Return the map as LiteLLM reads it."""
    return dict(json.loads(MAP.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> PriceBook:
    """Return the book as a catalogue loads it."""
    imported = import_price_map(MAP.read_text(encoding="utf-8"))
    assert imported.book is not None
    folder = tmp_path_factory.mktemp("litellm")
    (folder / "litellm.yaml").write_text(write_books([imported.book]), encoding="utf-8")
    return load_folder(folder).price_books[0]


def kinds(book: PriceBook) -> dict[str, dict[str, set[str]]]:
    """Return the meters that each model prices in every row, by service tier."""
    found: dict[str, dict[str, set[str]]] = {}
    for row in book.rows:
        meters = set(row.price_pico) | ({"reasoning"} if "output" in row.price_pico else set())
        tiers = found.setdefault(row.model, {})
        tiers[row.service_tier] = tiers.get(row.service_tier, meters) & meters
    return found


def draw(rng: random.Random, meters: set[str]) -> dict[str, int]:
    """Draw random counts of the meters that a model prices, small and large."""
    greatest = rng.choice((50, 3_000, 130_000, 600_000))
    asked = (*INPUTS, *OUTPUTS, "audio_cache_read")
    counts = {meter: rng.randint(1, greatest) for meter in asked if meter in meters and rng.random() < 0.5}
    if "input" in meters:
        counts.setdefault("input", 1)
    return counts


def as_usage(counts: Mapping[str, int]) -> Usage:
    """Return disjoint counts as LiteLLM's usage, in which parts are included in their totals."""
    count = counts.get
    audio_read = count("audio_cache_read", 0)
    prompt = sum(count(meter, 0) for meter in INPUTS) + audio_read
    made = sum(count(meter, 0) for meter in OUTPUTS)
    short, long = count("cache_write", 0), count("cache_write_1h", 0)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=made,
        total_tokens=prompt + made,
        prompt_tokens_details=PromptTokensDetailsWrapper(
            text_tokens=count("input", 0),
            cached_tokens=count("cache_read", 0) + audio_read,
            cache_creation_tokens=short + long,
            cache_creation_token_details=CacheCreationTokenDetails(
                ephemeral_5m_input_tokens=short, ephemeral_1h_input_tokens=long
            ),
            audio_tokens=count("audio_input", 0) + audio_read,
            image_tokens=count("image_input", 0),
            video_tokens=count("video_input", 0),
            cached_tokens_details={"audio_tokens": audio_read, "text_tokens": 0, "image_tokens": 0},
        ),
        completion_tokens_details=CompletionTokensDetailsWrapper(
            text_tokens=count("output", 0),
            reasoning_tokens=count("reasoning", 0),
            audio_tokens=count("audio_output", 0),
            image_tokens=count("image_output", 0),
            video_tokens=count("video_output", 0),
        ),
    )


def ours(rater: Rater, model: str, tier: str, when: datetime, counts: Mapping[str, int]) -> Decimal:
    """Return the cost that the book bills."""
    texts = ("unknown", "unknown", "unknown", "cloud", tier, "completed")
    time_us = (when - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    event = UsageEvent("s", "e", None, time_us, "a", model, *texts, None, None, None, None, canonical_counts(counts))
    rated = rater.rate(event)
    assert isinstance(rated, Rated), (model, tier, counts, rated)
    return Decimal(rated.amount_pico).scaleb(-12)


def quantised(cost: tuple[float, float]) -> Decimal:
    """Return LiteLLM's two binary numbers as the decimals that they print."""
    return sum((Decimal(repr(part)) for part in cost), Decimal(0))


def agrees(left: Decimal, right: Decimal) -> bool:
    """Return True if two costs are equal except for rounding."""
    return abs(left - right) <= max(left, right) * TOLERANCE


def moments(rng: random.Random) -> Iterator[datetime]:
    """Draw random instants of one month, so that every hour and weekday of off-peak windows occurs."""
    while True:
        yield datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(30 * 86_400))


def theirs(entry: dict[str, Any], key: str, tier: str, usage: Usage) -> Decimal:
    """Return the cost that LiteLLM's general rule computes from exactly this entry of its map."""
    provider = entry["litellm_provider"]
    if tier == "batch":  # LiteLLM may not know a provider by its own name; the rule only checks for xai
        known = "xai" if provider == "xai" else "openai"
        return quantised(batch_cost_calculator(usage, key, known, model_info=entry))
    specific = entry.get("provider_specific_entry") or {}
    if tier == "fast" and provider == "anthropic" and "fast" in specific:
        usage.speed = "fast"
        return quantised(anthropic_cost_per_token(key, usage, model_info=entry))
    tier_of_litellm = None if tier == "*" else tier
    return quantised(generic_cost_per_token(key, usage, provider, tier_of_litellm, model_info=entry))


def comparable(entry: dict[str, Any], tier: str, counts: dict[str, int]) -> dict[str, int]:
    """Remove usage that LiteLLM bills as free only because it has no price, which the book does not repeat.

    In a batch without batch prices these are cached tokens of a model without a price for them. Models priced only by a
    table of prompt sizes have no batch price, in LiteLLM or in the book.
    """
    if tier == "batch":
        if "input_cost_per_token_batches" not in entry:
            dropped = READS if "cache_read_input_token_cost" not in entry else {"audio_cache_read"}
            counts = {meter: count for meter, count in counts.items() if meter not in dropped}
        elif "cache_read_input_token_cost_batches" not in entry:
            counts = {meter: count for meter, count in counts.items() if meter != "audio_cache_read"}
    return counts


def test_every_imported_model_costs_what_litellm_computes(book: PriceBook, entries: dict[str, dict[str, Any]]) -> None:
    rng = random.Random(SEED)
    rater, times = Rater(book), moments(rng)
    compared: set[str] = set()
    different: list[object] = []
    for model, tiers in kinds(book).items():
        for tier, meters in tiers.items():
            for _ in range(2):
                counts = comparable(entries[model], tier, draw(rng, meters))
                if not counts:
                    continue
                when = next(times)
                mine = ours(rater, model, "standard" if tier == "*" else tier, when, counts)
                with pinned_billing_time(when):
                    cost = theirs(entries[model], model, tier, as_usage(counts))
                compared.add(model)
                if not agrees(mine, cost):
                    different.append((model, tier, when.isoformat(), counts, str(mine), str(cost)))
    assert not different, (SEED, len(different), different[:5])
    priced = {model for model, tiers in kinds(book).items() if tiers["*"] & {*INPUTS, *OUTPUTS}}
    assert compared == priced
    assert len(kinds(book)) >= IMPORTED_AT_LEAST


def test_the_same_by_litellms_own_look_up_of_the_name(book: PriceBook, entries: dict[str, dict[str, Any]]) -> None:
    """Providers whose calculator ignores prices of the map are left out: perplexity bills no cache price."""
    rng = random.Random(SEED + 1)
    rater, times = Rater(book), moments(rng)
    compared = 0
    different: list[object] = []
    for model, tiers in kinds(book).items():
        provider = {"bedrock_converse": "bedrock"}.get(
            entries[model]["litellm_provider"], entries[model]["litellm_provider"]
        )
        provider = "vertex_ai" if provider.startswith("vertex_ai") else provider
        counts = draw(rng, tiers["*"])
        if not counts or provider == "perplexity" or (f"{provider}/{model}" in entries):
            continue
        when = next(times)
        with pinned_billing_time(when):
            cost = quantised(cost_per_token(model, custom_llm_provider=provider, usage_object=as_usage(counts)))
        compared += 1
        mine = ours(rater, model, "standard", when, counts)
        if not agrees(mine, cost):
            different.append((model, when.isoformat(), counts, str(mine), str(cost)))
    assert not different, (SEED, len(different), different[:5])
    assert compared > 3_000


def test_images_and_seconds_cost_what_litellm_computes(book: PriceBook, entries: dict[str, dict[str, Any]]) -> None:
    """Keys that price images received and made are excluded: there LiteLLM's choice varies by provider."""
    rng = random.Random(SEED + 2)
    rater, when = Rater(book), datetime(2026, 11, 22, tzinfo=UTC)
    compared = {"images": 0, "milliseconds": 0}
    different: list[object] = []
    for model, tiers in kinds(book).items():
        entry = entries[model]
        for meter in sorted(tiers["*"]):
            count = rng.randint(1, 50)
            if meter.startswith("milliseconds") and entry.get("mode") == "video_generation":
                resolution = meter.partition("_")[2] or None
                cost = video_generation_cost(model, count, model_info=entry, video_resolution=resolution)
                quantity, kind = count * 1000, "milliseconds"
            elif meter == "images" and not {"input_cost_per_image", "output_cost_per_image"} <= set(entry):
                size = re.search(r"\d+-x-\d+", model)
                shape = size[0] if size else "1024-x-1024"
                cost = default_image_cost_calculator("none", n=count, size=shape, model_info=entry)
                quantity, kind = count, "images"
            else:
                continue
            compared[kind] += 1
            mine = ours(rater, model, "standard", when, {meter: quantity})
            if not agrees(mine, Decimal(repr(cost))):
                different.append((model, meter, quantity, str(mine), cost))
    assert not different, (SEED, len(different), different[:5])
    assert min(compared.values()) > 50, compared
