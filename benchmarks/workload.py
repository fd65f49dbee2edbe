"""The workload of every benchmark: numbered sources, accounts with one package each, 12 combinations.

It is seeded, so that two runs and two implementations get the same bytes. Sizes are drawn from log-normal distributions
around the medians of a public trace (about 1,000 tokens in and 130 out).
"""

import json
import random
from collections.abc import Iterator
from pathlib import Path

from billing.accounts.account import Account
from billing.accounts.deduction_order import PlanOf
from billing.accounts.extras import Subscription
from billing.catalog import Catalog, load_folder
from billing.catalog.model import Plan
from billing.decide.roll_forward import next_due_us
from billing.ledger import Postings
from billing.packages import subscriptions
from billing.packages.grants import grant_package
from schemas.routing import partition_of
from schemas.times import parse_time_us

PARTITIONS = 4
"""Partitions of the stack that a benchmark starts."""
CATALOG_DIR = Path(__file__).resolve().parent / "catalog"
START_US = parse_time_us("2026-11-22T00:00:00Z")
PLAN, MONTHLY_PLAN = "bench", "bench-month"
COMBINATIONS = [
    (model, tier, energy)
    for model in ("deepseek-v3.2", "glm-5", "qwen3-max")
    for tier in ("ascend-910c.supernode384", "cambricon.slice.25pct")
    for energy in ("solar", "grid")
]


def catalog() -> Catalog:
    """Return the price books and plans of the benchmarks."""
    return load_folder(CATALOG_DIR)


def account_names(count: int, start: int = 0) -> list[str]:
    """Return the names of ``count`` accounts, ``acct-000000`` and so on, from number ``start``."""
    return [f"acct-{number:06d}" for number in range(start, start + count)]


def accounts(names: list[str], plans: Catalog) -> Iterator[Account]:
    """Yield one open account with one package for each name."""
    plan = _plan(plans, PLAN)
    for name in names:
        account = Account(name, "CNY", "bench", "prepaid", 0)
        grant_package(account, plan, "g", START_US, START_US, "external", Postings())
        account.next_due_us = next_due_us(account, lambda _: plan)
        yield account


def subscribers(names: list[str], plans: Catalog) -> Iterator[Account]:
    """Yield one open account for each name, with a subscription in its first cycle, paid from the wallet."""
    plan = _plan(plans, MONTHLY_PLAN)
    for number, name in enumerate(names):
        subscription = Subscription(f"sub-{name}", plan.name, plan.version, "wallet", START_US + number * 997)
        yield subscriber(name, subscription, 100 * plan.price_pico, lambda _: plan)


def subscriber(name: str, subscription: Subscription, wallet_pico: int, plan_of: PlanOf) -> Account:
    """Return an open account on which a subscription started at its anchor, with no change since."""
    account = Account(name, "CNY", "bench", "prepaid", 0, wallet_pico=wallet_pico)
    subscriptions.start(account, subscription, subscription.anchor_us, plan_of, Postings())
    account.next_due_us = next_due_us(account, plan_of)
    return account


def _plan(plans: Catalog, name: str) -> Plan:
    plan = plans.plan(name)
    if plan is None:
        raise LookupError(f"the benchmark catalogue has no plan {name}")
    return plan


def commands(names: list[str]) -> Iterator[dict[str, object]]:
    """Yield the commands that open the accounts and buy their packages."""
    for name in names:
        envelope = {"specversion": "1.0", "source": "urn:bench", "time": "2026-11-22T00:00:00Z", "subject": name}
        yield envelope | {"type": "account.opened.v1", "id": f"open-{name}", "data": {"currency": "CNY"}}
        purchase = {"plan": PLAN, "grant_id": "g", "starts_at": "2026-11-01T00:00:00Z"}
        yield envelope | {"type": "package.purchased.v1", "id": f"buy-{name}", "data": purchase}


def event_data(chance: random.Random) -> bytes:
    """Return the ``data`` of one event as JSON."""
    model, tier, energy = chance.choice(COMBINATIONS)
    tokens_in, tokens_out = int(chance.lognormvariate(6.9, 0.9)) + 1, int(chance.lognormvariate(4.9, 0.8)) + 1
    cached = tokens_in // 3
    return (
        b'{"model":"%b","hardware_tier":"%b","energy_source":"%b","site":"wuxi-tf01","channel":"cloud",'
        b'"service_tier":"standard","request_id":"r-%d","reservation":null,'
        b'"usage":{"input":%d,"cache_read":%d,"output":%d,"reasoning":%d}}'
        % (
            model.encode(),
            tier.encode(),
            energy.encode(),
            chance.randrange(10**9),
            tokens_in - cached,
            cached,
            tokens_out,
            tokens_out // 4,
        )
    )


def events(count: int, names: list[str], partition: int, partitions: int, seed: int = 1) -> list[bytes]:
    """Return structured usage events of one partition's accounts, from one numbered source, as Kafka record values."""
    chance = random.Random(seed)
    own = [name for name in names if partition_of(name, partitions) == partition]
    values = []
    for number in range(1, count + 1):
        account = chance.choice(own)
        second, micro = divmod(number * 37, 1_000_000)
        values.append(
            b'{"specversion":"1.0","type":"token.usage.v1","source":"urn:worker:wuxi-tf01:node-17#p%d",'
            b'"id":"call-%012d","sequence":"%d","time":"2026-11-22T01:%02d:%02d.%06dZ","subject":"%b","data":%b}'
            % (
                partition,
                number,
                number,
                second // 60 % 60,
                second % 60,
                micro,
                account.encode(),
                event_data(chance),
            )
        )
    return values


def in_dialects(values: list[bytes]) -> list[bytes]:
    """Return the same events with their usage as three providers write it: by turns OpenAI, Anthropic and DeepSeek."""
    return [_in_dialect(value, number % 3) for number, value in enumerate(values)]


def _in_dialect(value: bytes, turn: int) -> bytes:
    head, _, rest = value.partition(b'"usage":')
    counts = json.loads(rest[: rest.index(b"}") + 1])
    fresh, cached, thought = counts["input"], counts["cache_read"], counts["reasoning"]
    made = counts["output"] + thought
    details = b'"completion_tokens_details":{"reasoning_tokens":%d}' % thought
    chat = b'"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d' % (
        fresh + cached,
        made,
        fresh + cached + made,
    )
    name, usage = (
        (
            b"openai.chat",
            b'{%b,"prompt_tokens_details":{"cached_tokens":%d,"audio_tokens":0},%b}' % (chat, cached, details),
        ),
        (
            b"anthropic",
            b'{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":%d,"cache_creation":'
            b'{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":%d,"output_tokens_details":'
            b'{"thinking_tokens":%d},"service_tier":"standard"}' % (fresh, cached, made, thought),
        ),
        (
            b"deepseek",
            b'{%b,"prompt_cache_hit_tokens":%d,"prompt_cache_miss_tokens":%d,%b}' % (chat, cached, fresh, details),
        ),
    )[turn]
    return b'%b"usage_dialect":"%b","usage":%b}}' % (head, name, usage)
