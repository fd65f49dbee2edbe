"""The golden file of explained charges: 200 events drawn with a seed, priced by two small books that use every rule.

``PYTHONPATH=. .venv/bin/python tests/pricing/explained_golden.py --update`` writes the file anew; look at its diff
before it is committed: each changed line is a charge that somebody would see differently.
"""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from billing.catalog import Catalog, PriceBook, load_folder
from billing.pricing import RowIndex, rate, rated_as_json
from billing.pricing.explain import explain
from schemas.times import HOUR_US, parse_time_us
from schemas.usage import UsageEvent, parse_usage

GOLDEN = Path(__file__).with_name("golden")
EXPLAINED = GOLDEN / "explained.jsonl"
EVENTS = 200
_SEED = 20261122
_YEAR_US = (parse_time_us("2026-01-01T00:00:00+08:00"), parse_time_us("2027-01-01T00:00:00+08:00"))
_CHOICES = {
    "model": [*["deepseek-v3.2"] * 5, *["deepseek-flash"] * 3, *["qwen3-max"] * 3, "tts-hd", "unheard-of"],
    "hardware_tier": ["ascend-910c.supernode384", "ascend-910b", "cambricon.slice.25pct", "unknown"],
    "energy_source": ["solar", "wind", "grid", "unknown"],
    "site": ["wuxi-tf01", "hohhot-tf02", "unknown"],
    "channel": ["cloud", "edge"],
    "service_tier": ["standard", "batch"],
    "outcome": [*["completed"] * 20, "partial", "failed"],
}
_METERS = ["input", "cache_read", "output", "reasoning", "image_input"]


def books() -> tuple[PriceBook, ...]:
    """The versions of the golden price book, by the day they begin; the file is named without its folder."""
    catalog: Catalog = load_folder(GOLDEN / "catalog")
    found = (replace(book, file=Path(book.file).name) for book in catalog.price_books)
    return tuple(sorted(found, key=lambda book: book.effective_from_us))


def events() -> list[UsageEvent]:
    """The events, the same every time."""
    dice = random.Random(_SEED)
    drawn: list[UsageEvent] = []
    for number in range(EVENTS):
        data: dict[str, object] = {name: dice.choice(values) for name, values in _CHOICES.items()}
        counts = {meter: dice.choice([1, 7, 900, 31_999, 64_000]) for meter in dice.sample(_METERS, dice.randrange(4))}
        if data["model"] == "tts-hd":
            counts = {"characters": dice.randrange(1, 3000)}
        time_us = dice.randrange(*_YEAR_US, HOUR_US // 2)
        event = parse_usage(
            json.dumps(
                {
                    "specversion": "1.0",
                    "type": "token.usage.v1",
                    "source": "golden",
                    "id": f"call-{number:03d}",
                    "time": "2026-01-01T00:00:00Z",
                    "subject": "acct-1",
                    "data": data | {"usage": counts},
                }
            ).encode()
        )
        if not isinstance(event, UsageEvent):
            raise TypeError(event)
        drawn.append(replace(event, time_us=time_us))
    return drawn


def render() -> str:
    """The golden file as it should be: for each event the line of ``tokenbill rate --explain``."""
    versions = [RowIndex(book) for book in books()]
    lines = []
    for event in events():
        index = max(
            (index for index in versions if index.book.effective_from_us <= event.time_us),
            key=lambda index: index.book.effective_from_us,
        )
        line = rated_as_json(event, rate(event, index.book)) | {"explain": explain(event, index)}
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    EXPLAINED.write_text(render(), encoding="utf-8")
    print(f"{EXPLAINED}: {EVENTS} charges")
