"""Samples for tests of holds: three plans, accounts with buckets, contexts. A token of model m costs 1.06 yuan.

A seat costs so much that a count of seats may exceed what an event can cost.
"""

from typing import Any

from billing_samples import BOOK, catalog, plan

from billing.accounts.account import ACTIVE, NO_END_US, Account, Bucket
from billing.accounts.deduction_order import sort_buckets
from billing.accounts.held import NOTHING
from billing.catalog.model import Catalog
from billing.reservations.hold import HOLD_OPEN, RESERVATION, Hold, Terms, usage_event
from billing.reservations.operations import HoldContext, reserve
from billing.reservations.tariff import Tariff
from schemas.units import MILLION

YUAN = 10**12
NOW_US = 1_795_000_000_000_000
MINUTE_US = 60_000_000
DIMENSIONS = {
    "model": "m",
    "hardware_tier": "unknown",
    "energy_source": "unknown",
    "site": "unknown",
    "channel": "cloud",
    "service_tier": "standard",
    "outcome": "completed",
}
DEAR_SEATS = BOOK["rows"][0] | {"per_million": BOOK["rows"][0]["per_million"] | {"seats": "9000000000000000"}}
CATALOG = catalog(
    BOOK | {"rows": [DEAR_SEATS, *BOOK["rows"][1:]]},
    plan("blocked"),
    plan("goes-on", overage="pay_as_you_go", priority=50),
    plan("edge", overage="pay_as_you_go", scope={"channel": ["edge"]}, priority=10),
)
TARIFF = Tariff(CATALOG)


def bucket(name: str, tokens: int, grant: str = "g/1") -> Bucket:
    return Bucket(
        *(grant, name, 1, 1, "STD_TOKEN", tokens * MILLION, tokens * MILLION, tokens * YUAN),
        *(NOW_US - 1, NO_END_US, NO_END_US, 0, ACTIVE),
    )


def account(wallet: int = 0, *buckets: Bucket, **more: Any) -> Account:
    made = Account("a", "CNY", "retail", **({"payment": "prepaid", "credit_limit_pico": 0} | more))
    made.wallet_pico = wallet * YUAN
    made.buckets = list(buckets)
    sort_buckets(made, TARIFF.plan)
    return made


def event(tokens: int, meter: str = "input", **dimensions: str) -> Any:
    return usage_event("a", Terms(DIMENSIONS | dimensions), ((meter, tokens),), NOW_US, frozenset())


def context(of: Account | None, now_us: int = NOW_US, *holds: Hold, prices: Catalog = CATALOG) -> HoldContext:
    made = HoldContext(now_us, of, NOTHING, {}, Tariff(prices))
    for hold in holds:
        made.put(hold)
    made.changed.clear()
    return made


def wanted(name: str = "r", kind: str = RESERVATION) -> Hold:
    return Hold(name, "a", kind, HOLD_OPEN, NOTHING, Terms(DIMENSIONS), 0, 0)


def reserved(stage: HoldContext, tokens: int, name: str = "r", **options: Any) -> Hold:
    hold = reserve(stage, wanted(name), (("input", tokens),), 5 * MINUTE_US, "body", options.get("partial", False))
    assert isinstance(hold, Hold), hold
    return hold
