"""Reads the scenarios of this folder: short lines of what happened, and what a person computed must be left."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from billing.catalog import Catalog, load_folder
from schemas.times import parse_time_us

FOLDER = Path(__file__).parent
CHINA = timezone(timedelta(hours=8))
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
            "units": {"CREDIT": {"input": "3"}},
        },
        {"model": "half", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "0.5"}},
        {"model": "uncounted", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "0"}},
        {"model": "free", "per_million": {"input": "0"}, "standard_tokens": {"input": "1"}},
    ],
}
KINDS = {
    "open": "account.opened.v1",
    "top": "wallet.topped_up.v1",
    "buy": "package.purchased.v1",
    "subscribe": "subscription.started.v1",
    "cancel": "subscription.cancelled.v1",
    "refund": "package.refunded.v1",
    "transfer": "package.transferred.v1",
    "adjust": "balance.adjusted.v1",
    "close": "account.closed.v1",
    "void": "usage.voided.v1",
    "correct": "usage.corrected.v1",
    "use": "token.usage.v1",
}
POSITIONAL = {
    "top": ("amount", "payment_ref"),
    "buy": ("plan", "grant_id"),
    "subscribe": ("plan", "subscription_id"),
    "cancel": ("subscription_id",),
    "refund": ("grant_id",),
    "transfer": ("grant_id", "amount", "to"),
    "adjust": ("target", "amount"),
    "void": ("id",),
    "correct": ("id", "input"),
    "use": ("input",),
}
ALWAYS: dict[str, dict[str, str]] = {
    "open": {"currency": "CNY"},
    "refund": {"reason": "asked"},
    "close": {"reason": "asked"},
    "void": {"reason": "wrong"},
    "correct": {"reason": "wrong"},
    "adjust": {"reason": "goodwill", "requested_by": "li", "approved_by": "wang"},
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story of account ``a`` (and of others, ``b> ...``), and what is left of it."""

    name: str
    steps: tuple[str, ...]
    as_of_us: int | None
    left: dict[str, str]
    """Bucket to "remaining status" of account ``a``; packs that bought themselves are not named."""
    others: dict[str, list[str]]
    wallet: str
    absorbed: str
    absorbed_amount: str
    revenue: str
    breakage: str
    events: str | None = field(default=None)

    def lines(self, names: dict[str, str] | None = None) -> list[tuple[int, bytes]]:
        """(time in microseconds, CloudEvent) of each step; ``names`` replaces account names."""
        return [_line(step, number, names or {}) for number, step in enumerate(self.steps)]


def _time(text: str) -> str:
    return datetime.fromisoformat(text).replace(tzinfo=CHINA).isoformat()


def _line(step: str, number: int, names: dict[str, str]) -> tuple[int, bytes]:
    day, clock, *words = step.split()
    account = words.pop(0).removesuffix(">") if words[0].endswith(">") else "a"
    verb, *arguments = words
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    plain = [argument for argument in arguments if "=" not in argument]
    data: dict[str, Any] = ALWAYS.get(verb, {}) | dict(zip(POSITIONAL.get(verb, ()), plain, strict=True))
    event_id = named.pop("id", f"e{number}")
    if verb == "use":
        usage = {"input": int(data.pop("input")), "output": int(named.pop("output", 0))}
        data |= {"model": "m", "usage": usage}
    if verb in ("void", "correct"):
        data["source"] = f"urn:scenario:{names.get(account, account)}"
    if verb == "correct":
        data["usage"] = {"input": int(data.pop("input"))}
    if "starts" in named:
        data["starts_at"] = named.pop("starts")
    if "to" in data:
        data["to"] = names.get(data["to"], data["to"])
    time = _time(f"{day} {clock}")
    subject = names.get(account, account)
    event = {"specversion": "1.0", "type": KINDS[verb], "source": f"urn:scenario:{subject}", "id": event_id}
    return parse_time_us(time), json.dumps(event | {"time": time, "subject": subject, "data": data | named}).encode()


def scenarios() -> Iterator[Scenario]:
    """Every scenario of ``burn_down.yaml``."""
    for item in yaml.safe_load((FOLDER / "burn_down.yaml").read_text(encoding="utf-8")):
        as_of = item.pop("as_of", None)
        defaults = {"wallet": "0", "absorbed": "0", "absorbed_amount": "0", "revenue": "0", "breakage": "0"}
        yield Scenario(
            steps=tuple(item.pop("steps").strip().splitlines()),
            as_of_us=None if as_of is None else parse_time_us(_time(str(as_of))),
            left={grant: str(left) for grant, left in item.pop("left", {}).items()},
            others=item.pop("others", {}),
            **(defaults | item),
        )


def catalogue() -> Catalog:
    """The book of the scenarios and the plans of ``plans.yaml``, read as a publisher's folder is."""
    bucket = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic"}
    with TemporaryDirectory() as folder:
        Path(folder, "book.yaml").write_text(yaml.safe_dump(BOOK), encoding="utf-8")
        for name, own in yaml.safe_load((FOLDER / "plans.yaml").read_text(encoding="utf-8")).items():
            plan = {
                "kind": "plan",
                "name": name,
                "version": 1,
                "title": {"en": name},
                "price": {"amount": own.pop("price", "106.00"), "currency": "CNY", "tax_rate": "0.06"},
                "cycle": {"kind": "subscription_month"},
                "buckets": [bucket],
            }
            Path(folder, f"{name}.yaml").write_text(yaml.safe_dump(plan | own), encoding="utf-8")
        return load_folder(folder)
