"""Reader of the scenarios in this folder: short lines of steps, and the expected state, computed by hand."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml

from billing.catalog import Catalog, load_folder
from schemas.cloudevents import write_structured
from schemas.commands import PassTime
from schemas.routing import partition_of
from schemas.times import parse_time_us
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC

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
    "consent": "overage.consented.v1",
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
    "consent": ("plan",),
    "use": ("input",),
}
CLOCK = "urn:scenario:clock"
"""Source of the commands that only let time pass; a closed account refuses them."""
ALWAYS: dict[str, dict[str, str]] = {
    "open": {"currency": "CNY"},
    "refund": {"reason": "asked"},
    "close": {"reason": "asked"},
    "void": {"reason": "wrong"},
    "correct": {"reason": "wrong"},
    "adjust": {"reason": "goodwill", "requested_by": "li", "approved_by": "wang"},
}


class Record(NamedTuple):
    """One record as it is in Kafka's log."""

    log_us: int
    topic: str
    account: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Scenario:
    """The steps of account ``a`` (and of others, ``b> ...``), and the state they must lead to, computed by hand."""

    name: str
    steps: tuple[str, ...]
    as_of: str | None
    """Time of the expected state; None for the time of the last step."""
    left: dict[str, str]
    """"remaining status" of each bucket of account ``a``, by bucket id.

    Packs that were bought automatically are left out. A bucket that another account gave is ``received/1``.
    """
    others: dict[str, list[str]]
    """"remaining status" of each bucket of the other accounts, by account."""
    wallets: dict[str, str]
    """Wallets of the other accounts that are not 0, by account."""
    wallet: str
    absorbed: str
    absorbed_amount: str
    revenue: str
    breakage: str
    events: str
    """Counts of the usage events. By default, every event is rated."""
    rejected: list[str]
    """Reasons of the rejected usage events."""
    refused: list[str]
    """Reasons of the refused commands."""
    findings: list[str]

    @property
    def accounts(self) -> list[str]:
        """All accounts of the scenario, ``a`` first."""
        names = {"a": None}
        for step in self.steps:
            account, verb, arguments = _words(step)
            named = dict(zip(POSITIONAL.get(verb, ()), arguments, strict=False))
            names |= {account: None} | ({named["to"]: None} if "to" in named else {})
        return list(names)

    def records(self, names: dict[str, str] | None = None, years: int = 0) -> list[Record]:
        """Return the log of these steps, in which time never goes back.

        ``names`` maps account names to other names; ``years`` are added to every time.
        """
        log_us, found = 0, list[Record]()
        for number, step in enumerate(self.steps):
            time_us, topic, account, value = _record(step, number, names or {}, years)
            log_us = max(log_us, time_us)
            found.append(Record(log_us, topic, account, value))
        return found

    def as_of_us(self, years: int = 0) -> int:
        """Return the time of the expected state."""
        if self.as_of is None:
            return self.records(years=years)[-1].log_us
        return parse_time_us(_time(self.as_of, years))


def tick(account: str, log_us: int) -> Record:
    """Return a command that only lets time pass for the account."""
    value = write_structured(PassTime.TYPE, CLOCK, f"tick-{account}-{log_us}", log_us, account, {})
    return Record(log_us, COMMAND_TOPIC, account, value)


def _time(text: str, years: int) -> str:
    then = datetime.fromisoformat(text).replace(tzinfo=CHINA)
    return then.replace(year=then.year + years).isoformat()


def _words(step: str) -> tuple[str, str, list[str]]:
    """Return the account, the verb and the arguments of a step."""
    _, _, *words = step.split()
    account = words.pop(0).removesuffix(">") if words[0].endswith(">") else "a"
    return account, words[0], words[1:]


def _record(step: str, number: int, names: dict[str, str], years: int) -> Record:
    account, verb, arguments = _words(step)
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
        data["starts_at"] = _time(named.pop("starts"), years)
    if "to" in data:
        data["to"] = names.get(data["to"], data["to"])
    time = _time(" ".join(step.split()[:2]), years)
    subject = names.get(account, account)
    event = {"specversion": "1.0", "type": KINDS[verb], "source": f"urn:scenario:{subject}", "id": event_id}
    value = json.dumps(event | {"time": time, "subject": subject, "data": data | named}).encode()
    return Record(parse_time_us(time), USAGE_TOPIC if verb == "use" else COMMAND_TOPIC, subject, value)


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario of ``burn_down.yaml``."""
    nothing = dict.fromkeys(("wallet", "absorbed", "absorbed_amount", "revenue", "breakage"), "0")
    for item in yaml.safe_load((FOLDER / "burn_down.yaml").read_text(encoding="utf-8")):
        steps = tuple(item.pop("steps").strip().splitlines())
        as_of = item.pop("as_of", None)
        uses = sum(_words(step)[1] == "use" for step in steps)
        yield Scenario(
            steps=steps,
            as_of=None if as_of is None else str(as_of),
            left={grant: str(left) for grant, left in item.pop("left", {}).items()},
            others=item.pop("others", {}),
            wallets=item.pop("wallets", {}),
            events=item.pop("events", f"{uses} rated 0 duplicate 0 rejected"),
            rejected=item.pop("rejected", []),
            refused=item.pop("refused", []),
            findings=item.pop("findings", []),
            **(nothing | item),
        )


def accounts_on(partitions: int) -> list[str]:
    """Return, for each partition, the name of an account that belongs to it."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < partitions:
        name = f"a{number}"
        found.setdefault(partition_of(name, partitions), name)
        number += 1
    return [found[partition] for partition in range(partitions)]


def catalogue() -> Catalog:
    """Return the price book of the scenarios and the plans of ``plans.yaml``, read as a publisher's folder is."""
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
