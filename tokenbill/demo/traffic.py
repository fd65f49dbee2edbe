"""Traffic of the demo: shapes of usage events, and the commands that open accounts with packages. Sends nothing."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from billing.catalog import Catalog, Plan, PriceBook
from billing.pricing import Combination
from schemas.times import HOUR_US, format_time_us
from tokenbill.demo.trace import Size
from tokenbill.user_errors import UserError

PREFERRED_BOOK = "retail-cn"
SHAPES = 6_000
DEMO_LATE_US = HOUR_US
"""Age of late usage compared with other usage: it stands for a worker that could not send for an hour."""
GRANTS_BEGIN_EARLIER_US = 2 * HOUR_US
PLAN_WEIGHTS = {"token-9.9": 70, "token-29.9": 12, "token-49.9": 4, "pack-1-yuan": 8, "pack-30-days": 6}
OTHER_PLAN_WEIGHT = 2
TOP_UP_EACH = 10
"""One account in this many has money in its wallet."""
TOP_UP_AMOUNT = "20"
POPULARITY_EXPONENT = 0.7
"""Account k is used in proportion to 1 / k^0.7: a few accounts exhaust their package, most use little of it."""


@dataclass(frozen=True, slots=True)
class TrafficKind:
    """One kind of usage with its weight, and the percentages of cached context and of reasoning in the output."""

    combination: Combination
    weight: int
    cached_percent: int = 0
    reasoning_percent: int = 0


def _kind(
    weight: int, cached: int, reasoning: int, model: str, tier: str, source: str, site: str, channel: str, service: str
) -> TrafficKind:
    return TrafficKind(Combination(model, tier, source, site, channel, service), weight, cached, reasoning)


TRAFFIC_KINDS = (
    _kind(16, 60, 0, "deepseek-v3.2", "ascend-910c.supernode384", "solar", "wuxi-tf01", "cloud", "standard"),
    _kind(10, 0, 20, "deepseek-v3.2", "ascend-910b", "grid", "wuxi-tf01", "cloud", "standard"),
    _kind(8, 30, 0, "deepseek-v3.2", "h20", "hydro", "guian-tf02", "cloud", "standard"),
    _kind(6, 0, 0, "deepseek-v3.2", "cambricon.slice.25pct", "wind", "ulanqab-tf03", "cloud", "standard"),
    _kind(8, 0, 0, "deepseek-v3.2", "h20", "hydro", "guian-tf02", "cloud", "batch"),
    _kind(14, 80, 0, "deepseek-flash", "ascend-910c.supernode384", "wind", "ulanqab-tf03", "cloud", "standard"),
    _kind(7, 40, 35, "deepseek-v4-pro", "ascend-910c.supernode384", "solar", "qinghai-tf04", "cloud", "standard"),
    _kind(6, 20, 30, "glm-5", "h20", "grid", "wuxi-tf01", "cloud", "standard"),
    _kind(5, 20, 0, "glm-5.3", "kunlun-p800", "grid", "guian-tf02", "cloud", "standard"),
    _kind(6, 10, 0, "qwen3-max", "ppu-810e", "hydro", "guian-tf02", "cloud", "standard"),
    _kind(9, 0, 0, "telechat3-36b", "ascend-910b", "solar", "qinghai-tf04", "cloud", "standard"),
    _kind(5, 0, 0, "telechat3-1b", "unknown", "battery", "shanghai-ai-phone", "edge", "standard"),
)
"""Kinds of usage, by model, hardware tier, energy source, site, channel and service tier."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One usage that is sent many times: its combination, its counts, and the ``data`` of its events as JSON."""

    combination: Combination
    counts: tuple[tuple[str, int], ...]
    data: bytes


def make_shapes(
    sizes: Sequence[Size], kinds: Sequence[TrafficKind], number: int = SHAPES, seed: int = 1
) -> list[Shape]:
    """Return shapes with sizes taken evenly from ``sizes``. The result is the same in every process."""
    drawn = random.Random(seed).choices(kinds, [kind.weight for kind in kinds], k=number)
    return [_shape(kind, sizes[place * len(sizes) // number]) for place, kind in enumerate(drawn)]


def _shape(kind: TrafficKind, size: Size) -> Shape:
    context, generated = size
    cached = context * kind.cached_percent // 100
    reasoning = generated * kind.reasoning_percent // 100
    usage = {
        "input": context - cached,
        "cache_read": cached,
        "output": generated - reasoning,
        "reasoning": reasoning,
    }
    counts = {meter: count for meter, count in usage.items() if count}
    data = {**kind.combination._asdict(), "usage": counts}
    del data["outcome"], data["attributes"]
    return Shape(kind.combination, tuple(counts.items()), json.dumps(data, separators=(",", ":")).encode())


def popularity(accounts: int) -> list[float]:
    """Return cumulative weights of the accounts for ``random.choices``."""
    return list(itertools.accumulate(rank**-POPULARITY_EXPONENT for rank in range(1, accounts + 1)))


def account_name(run: str, number: int) -> str:
    """Return the name of account ``number`` of a run."""
    return f"demo-{run}-{number:05d}"


def choose_book(catalog: Catalog) -> PriceBook:
    """Return the newest version of the price book that the demo's accounts are bound to.

    Raises:
        UserError: there is no price book, or several and none with the preferred name.
    """
    books = catalog.books
    name = PREFERRED_BOOK if PREFERRED_BOOK in books else books[0] if len(books) == 1 else None
    if name is None:
        found = ", ".join(books) or "none"
        raise UserError("the demo does not know which price book to use", f"the catalogue has {found}", "Keep one.")
    return max((book for book in catalog.price_books if book.name == name), key=lambda book: book.version)


def choose_plans(catalog: Catalog, currency: str) -> list[tuple[Plan, int]]:
    """Return the plans that accounts may buy, each with its weight. Plans for the edge channel alone are left out.

    Raises:
        UserError: no plan is sold in this currency.
    """
    latest = {plan.name: plan for plan in catalog.plans if plan.currency == currency}
    general = [
        plan
        for plan in latest.values()
        if all("cloud" in bucket.scope.get("channel", ("cloud",)) for bucket in plan.buckets)
    ]
    if not general:
        raise UserError("the catalogue has no plan for the demo", f"none is sold in {currency}", "Add a plan.")
    return [(plan, PLAN_WEIGHTS.get(plan.name, OTHER_PLAN_WEIGHT)) for plan in general]


def commands(
    run: str, accounts: int, book: PriceBook, plans: Sequence[tuple[Plan, int]], now_us: int
) -> Iterator[dict[str, Any]]:
    """Yield the commands that open the accounts, sell a package to each, and top up some wallets.

    The identities are the same on every call, so that sending all commands again changes nothing.
    """
    chance = random.Random(run)
    bought = chance.choices([plan for plan, _ in plans], [weight for _, weight in plans], k=accounts)
    starts_at = format_time_us(now_us - GRANTS_BEGIN_EARLIER_US)

    def command(kind: str, number: int, data: dict[str, Any]) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "type": kind,
            "source": f"urn:demo:{run}",
            "id": f"{kind}-{number}",
            "time": format_time_us(now_us),
            "subject": account_name(run, number),
            "data": data,
        }

    for number, plan in enumerate(bought):
        yield command("account.opened.v1", number, {"currency": book.currency, "price_book": book.name})
        yield command(
            "package.purchased.v1",
            number,
            {"plan": plan.name, "plan_version": plan.version, "grant_id": f"g-{number}", "starts_at": starts_at},
        )
        if number % TOP_UP_EACH == 0:
            top_up = {"amount": TOP_UP_AMOUNT, "payment_ref": f"demo-{number}"}
            yield command("wallet.topped_up.v1", number, top_up)


def count_commands(accounts: int) -> int:
    """Return the number of commands that :func:`commands` yields."""
    return 2 * accounts + (accounts + TOP_UP_EACH - 1) // TOP_UP_EACH
