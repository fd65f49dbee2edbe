"""Samples for tests of the rules: a small catalogue in whole numbers, lines of usage and commands.

One token of model ``m`` costs 1.06 yuan, 1.00 without tax, and is one standard token; a plan of 100 tokens for 106.00
yuan earns 1.00 a token. So every expectation of a test can be checked in the head.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from billing.calculator.interface import Calculator
from billing.catalog import Catalog, load_folder
from billing.engine.simulation import Simulation

MakeCalculator = Callable[[], Calculator]
Line = dict[str, Any]

BOOK: dict[str, Any] = {
    "kind": "price_book",
    "name": "retail",
    "version": 1,
    "currency": "CNY",
    "effective_from": "2020-01-01T00:00:00+08:00",
    "rows": [
        {
            "model": "m",
            "per_million": {"input": "1060000", "output": "2120000"},
            "standard_tokens": {"input": "1", "output": "2"},
        },
        {"model": "half", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "0.5"}},
        {"model": "third", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "0.333333"}},
        {"model": "uncounted", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "0"}},
        {"model": "free", "per_million": {"input": "0"}, "standard_tokens": {"input": "1"}},
        {
            "model": "credit",
            "per_million": {"input": "1060000", "output": "2120000", "images": "1060000", "requests": "0"},
            "standard_tokens": {"input": "1", "output": "2", "images": "0", "requests": "0"},
            "units": {"CREDIT": {"input": "0.5", "output": "2", "images": "10"}},
        },
        {"model": "odd", "per_million": {"input": "1.234567"}, "standard_tokens": {"input": "1.1"}},
    ],
}
DOLLARS: dict[str, Any] = BOOK | {"name": "dollars", "currency": "USD", "tax_rate": "0.06"}


def plan(
    name: str,
    amount: str = "100",
    price: str = "106.00",
    *,
    kind: str = "periodic",
    priority: int = 100,
    cycle: dict[str, Any] | None = None,
    scope: dict[str, Any] | None = None,
    buckets: list[dict[str, Any]] | None = None,
    overage: str | dict[str, Any] = "block",
    **rest: Any,
) -> dict[str, Any]:
    """A plan as in YAML; one bucket unless ``buckets`` are given, and a cycle of 7 days unless ``cycle`` is."""
    one = {"unit": "STD_TOKEN", "amount": amount, "kind": kind, "priority": priority, "scope": scope or {}}
    return {
        "kind": "plan",
        "name": name,
        "version": 1,
        "title": {"en": name},
        "price": {"amount": price, "currency": "CNY", "tax_rate": "0.06"},
        "cycle": cycle or {"kind": "days", "days": 7},
        "buckets": buckets or [one],
        "overage": {"mode": overage} if isinstance(overage, str) else overage,
    } | rest


def catalog(*entries: dict[str, Any]) -> Catalog:
    """Catalogue of these entries, read from files; it contains the book ``retail`` unless a book is given."""
    has_book = any(entry["kind"] == "price_book" for entry in entries)
    with TemporaryDirectory() as folder:
        for number, entry in enumerate(entries if has_book else (BOOK, *entries)):
            Path(folder, f"{number:03}.yaml").write_text(yaml.safe_dump(entry, allow_unicode=True), encoding="utf-8")
        return load_folder(folder)


def clock(text: str) -> str:
    """Read ``02 10:00`` as a time of November 2026 in China; ``2026-01-31 10:00`` names another month."""
    day, _, hour = text.partition(" ")
    day = day if "-" in day else f"2026-11-{day}"
    return f"{day}T{hour if hour.count(':') == 2 else hour + ':00'}+08:00"


def line(type_name: str, account: str, at: str, data: dict[str, Any], **attributes: Any) -> Line:
    """One CloudEvent; :func:`encode` gives it an id unless it has one."""
    head = {"specversion": "1.0", "type": type_name, "source": "test", "time": clock(at), "subject": account}
    return head | attributes | {"data": data}


def opened(account: str = "a", at: str = "01 00:00", **data: Any) -> Line:
    return line("account.opened.v1", account, at, {"currency": "CNY"} | data)


def top_up(amount: str, ref: str, at: str = "02 08:00", account: str = "a", **data: Any) -> Line:
    return line("wallet.topped_up.v1", account, at, {"amount": amount, "payment_ref": ref} | data)


def buy(plan_name: str, grant: str, at: str = "02 09:00", account: str = "a", **data: Any) -> Line:
    if "starts_at" in data:
        data["starts_at"] = clock(data["starts_at"])
    return line("package.purchased.v1", account, at, {"plan": plan_name, "grant_id": grant} | data)


def subscribe(plan_name: str, name: str = "S", at: str = "02 09:00", account: str = "a", **data: Any) -> Line:
    if "starts_at" in data:
        data["starts_at"] = clock(data["starts_at"])
    return line("subscription.started.v1", account, at, {"plan": plan_name, "subscription_id": name} | data)


def subscription(
    verb: str, at: str, name: str = "S", account: str = "a", *, until: str | None = None, **data: Any
) -> Line:
    """``subscription.VERB.v1``: cancelled (``until`` is its ``at``), changed, suspended or resumed."""
    if until is not None:
        data["at"] = clock(until)
    return line(f"subscription.{verb}.v1", account, at, {"subscription_id": name} | data)


def closed(at: str = "02 12:00", account: str = "a") -> Line:
    return line("account.closed.v1", account, at, {"reason": "asked"})


def use(
    tokens: int,
    at: str = "02 10:00",
    account: str = "a",
    *,
    model: str = "m",
    meter: str = "input",
    number: int | None = None,
    data: dict[str, Any] | None = None,
    **attributes: Any,
) -> Line:
    """Usage of some tokens of one meter; numbered sources give a ``number``."""
    if number is not None:
        attributes["sequence"] = str(number)
    body = {"model": model, "usage": {meter: tokens}} | (data or {})
    return line("token.usage.v1", account, at, body, **attributes)


def encode(steps: Iterable[Line | bytes]) -> list[bytes]:
    """Encode lines as bytes; a step without id gets one from its index."""
    return [
        step if isinstance(step, bytes) else json.dumps({"id": f"e{number}"} | step, ensure_ascii=False).encode()
        for number, step in enumerate(steps)
    ]


def simulate(
    calculator: Calculator,
    book: Catalog,
    steps: Sequence[Line | bytes],
    as_of_us: int | None = None,
    lines_per_commit: int = 1_000,
) -> dict[str, Any]:
    """The document of a run."""
    simulation = Simulation(book, calculator, lines_per_commit=lines_per_commit)
    simulation.feed(encode(steps))
    return simulation.document(as_of_us)
