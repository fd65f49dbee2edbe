"""Golden files of explained charges.

One file holds 200 events drawn with a seed, priced by two small books that use every rule of one event. The other holds
a dozen events of one account, priced one after the other by a book with every period rule.

``PYTHONPATH=. .venv/bin/python tests/billing/pricing/explained_golden.py --update`` writes the files again. Review
their diff before it is committed: each changed line is a changed charge.
"""

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

from billing.accounts.extras import Counter
from billing.catalog import Catalog, PriceBook, load_folder
from billing.pricing import Rated, RowIndex, rate, rated_as_json
from billing.pricing.explain import explain
from schemas.meters import canonical_counts
from schemas.times import HOUR_US, parse_time_us
from schemas.usage import UsageEvent, parse_usage

GOLDEN = Path(__file__).with_name("golden")
EXPLAINED = GOLDEN / "explained.jsonl"
EXPLAINED_PERIODS = GOLDEN / "explained_periods.jsonl"
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
_PERIOD_EVENTS: list[tuple[str, str, dict[str, int], dict[str, str]]] = [
    ("2026-11-02T09:00:00+08:00", "deepseek-v3.2", {"input": 60_000, "cache_read": 9_000, "output": 20_000}, {}),
    ("2026-11-02T09:01:00+08:00", "deepseek-v3.2", {"input": 30_000, "output": 100_000}, {"energy_source": "solar"}),
    ("2026-11-02T09:02:00+08:00", "deepseek-v3.2", {"input": 90_000, "reasoning": 7}, {"service_tier": "batch"}),
    ("2026-11-03T09:00:00+08:00", "deepseek-v3.2", {"output": 50_000}, {}),
    ("2026-10-31T23:59:59+08:00", "deepseek-v3.2", {"input": 1_000}, {}),
    ("2026-12-01T00:00:00+08:00", "deepseek-v3.2", {"input": 1_000}, {}),
    ("2026-11-04T12:00:00+08:00", "qwen3-max", {"input": 30_000, "output": 5_000}, {}),
    ("2026-11-08T23:59:59+08:00", "qwen3-max", {"input": 10, "output": 10}, {"energy_source": "wind"}),
    ("2026-11-09T00:00:00+08:00", "qwen3-max", {"input": 10, "output": 10}, {}),
    ("2026-11-05T10:00:00+08:00", "search", {"searches": 1}, {"energy_source": "solar"}),
    ("2026-11-05T10:01:00+08:00", "search", {"searches": 2_500, "requests": 2}, {}),
    ("2026-11-05T10:02:00+08:00", "search", {"searches": 499}, {}),
]
_PLAIN = {"energy_source": "grid", "service_tier": "standard", "outcome": "completed"}
_METERS = ["input", "cache_read", "output", "reasoning", "image_input"]


def books() -> tuple[PriceBook, ...]:
    """Return the versions of the golden price book, by the day they begin; the file is named without its folder."""
    catalog: Catalog = load_folder(GOLDEN / "catalog")
    found = (replace(book, file=Path(book.file).name) for book in catalog.price_books)
    return tuple(sorted(found, key=lambda book: book.effective_from_us))


def events() -> list[UsageEvent]:
    """Return the events, the same every time."""
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
    """Return the expected golden file: for each event the line of ``tokenbill rate --explain``."""
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


def render_periods() -> str:
    """Return the expected golden file of period rules: each event is priced by the counters after those before it."""
    (book,) = load_folder(GOLDEN / "periods").price_books
    index = RowIndex(replace(book, file=Path(book.file).name))
    lines, counters = [], dict[str, Counter]()
    first = events()[0]
    for number, (time, model, counts, dimensions) in enumerate(_PERIOD_EVENTS):
        event = replace(first, id=f"call-{number:02d}", time_us=parse_time_us(time), model=model, **_PLAIN | dimensions)
        event = replace(event, counts=canonical_counts(counts))
        rated = rate(event, index.book, counters)
        if not isinstance(rated, Rated):
            raise TypeError(rated)
        line = rated_as_json(event, rated) | {"explain": explain(event, index, counters)}
        lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")
        counters |= rated.counters
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    EXPLAINED.write_text(render(), encoding="utf-8")
    EXPLAINED_PERIODS.write_text(render_periods(), encoding="utf-8")
    print(f"{EXPLAINED}: {EVENTS} charges; {EXPLAINED_PERIODS}: {len(_PERIOD_EVENTS)}")
