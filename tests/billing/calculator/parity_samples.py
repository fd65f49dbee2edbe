"""Random samples for parity tests: price books with bands, plans with scopes and alerts, accounts, events."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from dialect_samples import dialect_data

from billing.accounts.account import (
    ACCOUNT_CLOSED,
    ACTIVE,
    CANCELLED,
    EXPIRED,
    NO_END_US,
    PENDING,
    REFUNDED,
    SUSPENDED,
    Account,
    Bucket,
)
from billing.accounts.alerts import wallet_alert
from billing.accounts.extras import Bill, Consent, Counter, Extras, Subscription
from billing.catalog.model import (
    Adjustment,
    Catalog,
    Cycle,
    Members,
    Overage,
    Plan,
    PlanBucket,
    PlanKey,
    PriceBook,
    PriceRow,
    TimeBand,
    Window,
)
from billing.catalog.period_rules import PeriodRule, Tier
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, Column, Form, account_values, bucket_values
from billing.commits.input_batch import PlainRecord
from billing.commits.stored_accounts import StoredAccounts
from billing.decide.roll_forward import next_due_us
from schemas.times import DAY_US, HOUR_US, parse_time_us

T0_US = parse_time_us("2026-11-22T00:00:00Z")
MICRO = 10**6
PICO = 10**12
ANY_ROW: dict[str, Any] = {
    "hardware_tier": "*",
    "energy_source": "*",
    "site": "*",
    "channel": "*",
    "service_tier": "*",
    "outcome": ("completed",),
    "time_band": None,
    "context": None,
    "units": {},
    "declared": ("*", "*"),
}


def price_row(
    index: int, model: str, prices: Mapping[str, int], coefficients: Mapping[str, int], **fixed: Any
) -> PriceRow:
    return PriceRow(index=index, model=model, price_pico=prices, coefficient_micro=coefficients, **(ANY_ROW | fixed))


def price_books() -> tuple[PriceBook, ...]:
    rows = (
        price_row(
            0,
            "deepseek-v3.2",
            {"input": 2 * MICRO, "cache_read": 200_000, "output": 3_000_001},
            {"input": MICRO, "cache_read": 100_000, "output": 1_500_000},
            units={"CREDIT": {"input": 333_333, "output": 2 * MICRO}},
        ),
        price_row(1, "qwen*", {"input": 4 * MICRO + 7, "output": 9 * MICRO}, {"input": 1_333_333, "output": 2 * MICRO}),
        price_row(2, "qwen*", {"input": 8 * MICRO, "output": 9 * MICRO}, {"input": MICRO}, context=(1000, None)),
        price_row(3, "free", {"input": 0, "output": 0, "requests": 0}, {}, outcome=("completed", "partial")),
        price_row(4, "dear", {"input": 2**62, "output": PICO, "tiles": 5}, {"input": 1, "output": 2**61}),
        price_row(5, "paid-only", {"input": 3 * MICRO, "requests": PICO // 100}, {}),
        price_row(6, "banded", {"input": 2 * MICRO, "output": 5}, {"input": MICRO}),
        price_row(7, "banded", {"input": 3 * MICRO, "output": 7}, {"input": MICRO}, time_band="peak"),
        price_row(8, "banded", {"input": 4 * MICRO, "output": 9}, {"input": 9}, time_band="odd", context=(128, 8001)),
        price_row(9, "least", {"input": 1, "output": 1}, {}, minimum_charge_pico=PICO // 3, context=(0, 641)),
        price_row(10, "least", {"input": 1, "output": 1}, {}, context=(641, None)),
        price_row(11, "metered", {"input": 5 * MICRO, "output": 7}, {"input": MICRO}, periods=("monthly", "deal")),
        price_row(12, "metered", {"input": 5 * MICRO, "output": 7}, {}, periods=("daily",), context=(0, 129)),
    )
    sliced = {"input": 2 * MICRO, "cache_read": 7, "output": 5 * MICRO}
    short: dict[str, Any] = {"output_context": (0, 640), "context": (0, 8001)}
    rows += (
        price_row(13, "sliced", sliced, {"input": MICRO}, **short),
        price_row(14, "sliced", {"input": 3, "output": 9}, {}, output_context=(640, None), time_band="peak"),
        price_row(15, "sliced", {"input": 4, "output": 8}, {}, output_context=(0, 8000), outcome=("completed",)),
        price_row(
            16,
            "rounded",
            sliced | {"requests": 5},
            {"input": MICRO},
            increments={"input": (100, 60), "requests": (0, 3)},
        ),
        price_row(17, "pixels", sliced, {"input": MICRO}, declared=("1080p", "*")),
        price_row(18, "pixels", {"input": 5, "output": 6}, {"input": 9}, declared=("*", "true"), site="wuxi*"),
        price_row(19, "pixels", {"input": 3, "output": 8}, {"input": MICRO}, declared=("10*", "unknown")),
        price_row(20, "pixels", {"input": 2, "output": 9}, {}, channel="edge"),
        price_row(21, "vast", {"input": 3 * 10**19, "output": 390_000 * MICRO}, {"input": MICRO, "output": 7}),
        price_row(22, "whole", {"input": 5 * MICRO, "output": 7}, {"input": MICRO}, periods=("whole",)),
        price_row(23, "aside", {"input": 5 * MICRO, "output": 7}, {"input": MICRO}, periods=("aside",)),
    )
    periods = {
        "monthly": PeriodRule(
            "monthly", "graduated", "calendar_month", "Asia/Shanghai", ("input", "output"),
            (Tier(1_000), Tier(2_000, PICO // 3), Tier(None, price_pico={"input": 3})),
        ),
        "daily": PeriodRule("daily", "blocks", "day", "UTC", ("output",), block_units=500, block_price_pico=PICO // 7),
        "deal": PeriodRule("deal", "commitment", "day", "UTC", amount_pico=5_000 * MICRO, multiply_pico=PICO // 2),
        "whole": PeriodRule(
            "whole", "volume", "day", "UTC", ("input",), (Tier(700), Tier(2_000, PICO // 3), Tier(None, 0)),
            settle="at_end",
        ),
        "aside": PeriodRule(
            "aside", "commitment", "day", "UTC", amount_pico=9_000 * MICRO, overflow_pico=PICO // 7,
            included_usage="out",
        ),
    }  # fmt: skip
    adjustments = (
        Adjustment({"energy_source": ("solar", "wind*")}, 950_000_000_000, "green"),
        Adjustment({"resolution": ("4k", "7*"), "model": ("d*", "pixels")}, 3 * PICO, "fine"),
        Adjustment({"model": ("banded", "qwen3")}, 333_333_333_333, "off-peak", time_bands=("peak",)),
        Adjustment({"model": ("qwen*",)}, 777_777_777_777, "long", context=(640, None)),
        Adjustment({"model": ("qwen*", "sliced")}, 1_500_000_000_000, "wordy", output_context=(128, None)),
    )
    days = tuple(range(7))
    bands = {
        "peak": TimeBand("peak", "Asia/Shanghai", days, ((9 * 60, 12 * 60),)),
        "odd": TimeBand("odd", "Asia/Shanghai", days, ((9 * 60 + 10, 9 * 60 + 20), (10 * 60, 2 * 60))),
    }
    common: dict[str, Any] = {
        "name": "retail",
        "currency": "CNY",
        "tax_rate_micro": 60_000,
        "standard_token_price_pico_per_million": None,
        "time_bands": bands,
        "adjustments": adjustments,
        "meters": ("tiles",),
        "periods": periods,
        "dimensions": {"resolution": "resolution", "video": "has_video"},
    }
    return (
        PriceBook(version=1, effective_from_us=T0_US - 40 * DAY_US, rows=rows, **common),
        PriceBook(version=2, effective_from_us=T0_US + 2 * HOUR_US, rows=rows[:2], **common | {"tax_rate_micro": 0}),
        PriceBook(version=1, effective_from_us=0, rows=rows[:1], **common | {"name": "usd", "currency": "USD"}),
    )


def plan(name: str, mode: str, alerts: tuple[int, ...], *buckets: PlanBucket) -> Plan:
    return Plan(
        name, 1, {}, 10 * PICO, "CNY", 60_000, Cycle("days", "Asia/Shanghai", 30), buckets, (), Overage(mode), 24,
        "at_expiry", alerts,
    )  # fmt: skip


def bucket_rule(priority: int = 100, kind: str = "periodic", scope: Any = None, unit: str = "STD_TOKEN") -> PlanBucket:
    return PlanBucket(unit, 10**13, kind, priority, 0, scope or {}, MICRO)


PACKS = Overage("auto_pack", block_micro=700 * MICRO, price_pico=99 * 10**10, max_packs=3)
CAPPED = Overage("pay_as_you_go", cap_pico=PICO // 1000, consent_required=True)
WINDOWS = (Window("rolling", 1, "", 900 * MICRO), Window("fixed", 0, "week", 2_000 * MICRO))


PLANS = (
    plan("token-9.9", "pay_as_you_go", (800_000, MICRO), bucket_rule()),
    plan("blocked", "block", (), bucket_rule(200, "total")),
    plan(
        "edge",
        "pay_as_you_go",
        (500_000, 500_001),
        bucket_rule(50, scope={"channel": ("edge",), "model": ("q*", "d*")}),
    ),
    plan("two", "block", (MICRO,), bucket_rule(10), bucket_rule(300, "total", {"site": ("wuxi*",)})),
    replace(plan("later", "pay_as_you_go", (MICRO // 2,), bucket_rule(40)), activation="first_use"),
    replace(
        plan("soon", "block", (), bucket_rule(45), bucket_rule(46)),
        activation="first_use",
        activate_within_days=1,
        expiry_alert_days=(30, 2),
    ),
    plan("carried", "block", (), replace(bucket_rule(60), carry_over_cycles=2)),
    replace(plan("monthly", "pay_as_you_go", (), bucket_rule(70)), expiry_alert_days=(40, 7, 3)),
    plan("units", "pay_as_you_go", (800_000,), bucket_rule(20, unit="CREDIT"), bucket_rule(30, unit="CNY")),
    plan("requests", "block", (MICRO,), bucket_rule(20, unit="REQUEST")),
    replace(plan("windows", "block", (500_000,), bucket_rule(15)), windows=WINDOWS),
    replace(plan("packs", "block", (MICRO,), bucket_rule()), overage=PACKS),
    replace(
        plan("opened", "block", (500_000,), bucket_rule(16, unit="CREDIT"), bucket_rule(17)),
        windows=(
            Window("from_first_use", 1, "", 900 * MICRO, "CREDIT", (500_000, MICRO)),
            Window("fixed", 0, "day", 700 * MICRO, "STD_TOKEN", (MICRO,)),
            Window("rolling", 5, "", 7 * MICRO, "REQUEST"),
        ),
    ),
    replace(
        plan("portions", "block", (), replace(bucket_rule(18), every="day", carry_over_cycles=1)),
        members=Members(0, 500 * MICRO, "CREDIT"),
    ),
    replace(plan("capped", "block", (), bucket_rule()), overage=CAPPED),
    replace(plan("shared", "pay_as_you_go", (), bucket_rule(60)), members=Members(1, 1_000 * MICRO)),
    replace(plan("owing", "block", (), bucket_rule(55)), overage=Overage("owe", max_owed_micro=900 * MICRO)),
    plan(
        "limited",
        "pay_as_you_go",
        (),
        replace(bucket_rule(56), carry_over_cycles=1, carry_max_micro=300 * MICRO, carry_min_micro=100 * MICRO),
    ),
)
PLAN_OF = {PlanKey(one.name, one.version): one for one in PLANS}.__getitem__
CATALOG = Catalog(price_books=price_books(), plans=PLANS)

AMOUNTS = (1, 999_999, 5 * MICRO, 700 * MICRO, 2_000 * MICRO, 10**13, 10**30)


def buckets(rng: Random, number: int) -> Bucket:
    chosen = rng.choice(PLANS)
    amount = rng.choice(AMOUNTS)
    left = rng.choice([0, 1, 2, 3])
    starts = rng.choice([T0_US - DAY_US, T0_US, T0_US + 90 * 60 * MICRO])
    ends = rng.choice([T0_US + HOUR_US, T0_US + DAY_US, NO_END_US])
    bucket_no = rng.randint(1, len(chosen.buckets))
    return Bucket(
        grant_id=f"g{number}/" + rng.choice(["1", "2", '"', "\\"]),
        plan=chosen.name,
        plan_version=1,
        bucket_no=bucket_no,
        unit=chosen.buckets[bucket_no - 1].unit,
        amount_micro=amount,
        remaining_micro=amount * left // 3,
        liability_pico=rng.choice([0, 1, 9_340_000_000_000, 2**63, 10**37]),
        valid_from_us=starts,
        valid_until_us=ends,
        lapse_at_us=rng.choice([T0_US + 2 * HOUR_US, T0_US + DAY_US]) if ends < NO_END_US else NO_END_US,
        alerts_fired=0,
        status=rng.choice([ACTIVE] * 6 + [PENDING] * 3 + [EXPIRED, SUSPENDED, REFUNDED, CANCELLED]),
    )


def subscription(rng: Random, number: int) -> Subscription:
    return Subscription(
        f"s{number}",
        rng.choice(["monthly", "carried"]),
        1,
        rng.choice(["wallet", "external"]),
        anchor_us=T0_US - 30 * DAY_US + rng.choice([1, HOUR_US, DAY_US]),
        cycle=1,
        granted=rng.choice([True, False]),
        status=rng.choice(["active", "active", "unpaid", "suspended", "ended"]),
        last_cycle=rng.choice([0, 0, 1, 2]),
        next_plan=rng.choice(["", "", "blocked"]),
        next_plan_version=1,
    )


def bill(paid_pico: int) -> Bill:
    return Bill(f"b/{paid_pico}", 9, T0_US - 40 * DAY_US, T0_US - 9 * DAY_US, T0_US + 90 * DAY_US, paid_pico)


def accounts(rng: Random, name: str) -> Account:
    account = Account(
        account=name,
        currency=rng.choice(["CNY", "USD"]),
        price_book=rng.choice(["retail", "retail", "retail", "usd", "nowhere"]),
        payment="prepaid",
        credit_limit_pico=rng.choice([0, 10**37]),
        wallet_pico=rng.choice([0, -5, 10**36, 2**44 + 10**10]),
        status=rng.choice(["open"] * 9 + [ACCOUNT_CLOSED]),
        buckets=[buckets(rng, number) for number in range(rng.randint(0, 3))],
        extras=Extras(
            gift_pico=rng.choice([0, 0, 0, 7, 10**13]),
            subscriptions=[subscription(rng, number) for number in range(rng.choice([0, 0, 1, 2]))],
            counters=rng.choice([{}, COUNTERS]),
            wallet_alert_pico=rng.choice([None, None, 0, 10**13, 10**36 - 10**7]),
            consents=rng.choice([{}, {"capped": Consent(T0_US, T0_US + HOUR_US)}]),
            bills=rng.choice([[], [], [bill(0), bill(7)], [bill(9)]]),
        ),
    )
    wallet_alert(account)
    account.next_due_us = next_due_us(account, PLAN_OF)
    return account


def lively(rng: Random, name: str) -> Account:
    """Return an open account with valid buckets of plans that have less common rules."""
    account = replace(accounts(rng, name), currency="CNY", price_book="retail", status="open", buckets=[])
    account.wallet_pico, account.extras.gift_pico = rng.choice([0, 3 * PICO, 10**36]), 0
    for number in range(rng.randint(1, 3)):
        chosen = rng.choice(PLANS[4:])
        for bucket_no, rule in enumerate(chosen.buckets, start=1):
            amount = rng.choice([50 * MICRO, 900 * MICRO, 20_000 * MICRO])
            account.buckets.append(
                Bucket(
                    grant_id=f"g{number}/{bucket_no}",
                    plan=chosen.name,
                    plan_version=1,
                    bucket_no=bucket_no,
                    unit=rule.unit,
                    amount_micro=amount,
                    remaining_micro=amount,
                    liability_pico=rng.choice([0, 9_340_000_000_000]),
                    valid_from_us=T0_US - DAY_US,
                    valid_until_us=T0_US + 9 * DAY_US,
                    lapse_at_us=T0_US + 10 * DAY_US,
                    alerts_fired=0,
                    status=ACTIVE,
                )
            )
    wallet_alert(account)
    account.next_due_us = next_due_us(account, PLAN_OF)
    return account


def commanded(rng: Random, account: Account) -> Account:
    """Return the account as a command could leave it: columns that usage never changes may differ."""
    for bucket in account.buckets:
        bucket.amount_micro += rng.choice([0, 0, 1])
        bucket.carried_cycles += rng.choice([0, 0, 1])
        bucket.valid_from_us += rng.choice([0, 0, 1])
        if bucket.valid_until_us < NO_END_US:
            bucket.valid_until_us += rng.choice([0, 0, DAY_US])
            bucket.lapse_at_us += rng.choice([0, 0, DAY_US])
    account.credit_limit_pico += rng.choice([0, 0, 1])
    account.wallet_pico += rng.choice([0, 1])
    account.extras.gift_pico = rng.choice([account.extras.gift_pico, 0, 9])
    wallet_alert(account)
    account.next_due_us = next_due_us(account, PLAN_OF)
    return account


COUNTERS = {
    "deal@2026-11-21": Counter(4_999 * MICRO, T0_US, T0_US + HOUR_US),
    "monthly@2026-11-01": Counter(1_990 * MICRO, T0_US + 9 * DAY_US),
}
NAMES = ["acct-1", "acct-2", "acct-3", "acct-4", 'odd "name"', "词元", "never-opened"]

COUNTS = (0, 1, 3, 128, 640, 1200, 8000, 10**7, 2**40, 2**62, 2**63 - 1)
MODELS = (
    ("deepseek-v3.2",) * 5
    + ("banded", "banded", "least", "metered", "metered", "sliced", "sliced", "rounded", "vast", "pixels", "pixels")
    + ("whole", "aside")
    + ("qwen3", "qwen-max", "free", "dear", "paid-only", "nobody")
)
RESOLUTIONS: tuple[Any, ...] = ("1080p", "1024", "4k", "720p", "", 1080, "高清", 1.5, None)
OPTIONAL: dict[str, tuple[str | None, ...]] = {
    "energy_source": ("solar", "wind-2", "grid"),
    "channel": ("cloud", "edge"),
    "hardware_tier": ("ascend-910c", "unknown", 'h"20'),
    "service_tier": ("standard", "batch"),
    "site": ("wuxi-tf01", "无锡"),
    "outcome": ("completed", "partial", None),
    "request_id": ("r", "", 'r"\\\n', "无锡", "0123456789abcdef" * 12, None),
    "member": ("x", "y", 'm"', "", None),
    "reservation": ("rsv-1", "rsv-2", None),
}


def data(rng: Random) -> dict[str, Any]:
    meters = rng.sample(["input", "cache_read", "output", "reasoning", "requests", "tiles"], rng.randint(0, 4))
    body: dict[str, Any] = {
        "model": rng.choice(MODELS),
        "usage": {meter: rng.choice(COUNTS[: rng.choice((7, 8, 11))]) for meter in meters},
    }
    if rng.random() < 0.15:
        body |= dialect_data(rng)
    for name, values in OPTIONAL.items():
        if rng.random() < 0.3:
            body[name] = rng.choice(values)
    if rng.random() < 0.3:
        values = {
            "resolution": rng.choice(RESOLUTIONS),
            "has_video": rng.choice([True, False, "true", None]),
            "trace": 7,
        }
        body["attributes"] = {name: values[name] for name in rng.sample(list(values), rng.randint(0, 3))}
    return body


def records(rng: Random, offset: int) -> PlainRecord:
    number = rng.choice([None, *range(1, 30)] * 3 + [999, 1_040, 2**62, 2**63 - 1])
    body = {
        "specversion": "1.0",
        "type": "token.usage.v1",
        "source": rng.choice(["numbered#p0", "other", "plain", 'sö"urce']),
        "id": rng.choice([f"id-{number}"] * 4 + ["id-a", "id-b", 'i"d']),
        "time": rng.choice(
            ["2026-11-22T00:30:00Z"] * 3
            + [
                "2026-11-22T09:15:00.5+08:00",
                "2026-11-22T09:19:59.999999+08:00",
                "2026-11-22T09:20:00+08:00",
                "2026-11-22T00:45:00Z",
                "2026-11-22T02:30:00Z",
                "2026-10-01T00:00:00Z",
                "2026-11-23T03:00:00Z",
            ]
        ),
        "subject": rng.choice(NAMES),
        "data": data(rng),
    }
    if number is not None:
        body["sequence"] = str(number)
    body = rng.choice([body] * 20 + [body | {"time": "yesterday"}, {}, body | {"sequence": 5}])
    minutes = rng.choice([30, 31, 60, 151, 1500])
    return PlainRecord(offset, (T0_US + minutes * 60 * MICRO) // 1000, None, json.dumps(body).encode())


def as_stored(held: Sequence[Account]) -> StoredAccounts:
    """Return accounts as SQL returns them: rows in the order of names, and of grant ids."""
    ordered = sorted(held, key=lambda account: account.account)
    buckets = [bucket_values(account.account, bucket) for account in ordered for bucket in account.buckets]
    return StoredAccounts(
        [_selected(ACCOUNT_COLUMNS, account_values(account)) for account in ordered],
        sorted((_selected(BUCKET_COLUMNS, row) for row in buckets), key=lambda row: row[:2]),
    )


def _selected(columns: Sequence[Column], values: Sequence[str | int | None]) -> tuple[str | int | None, ...]:
    """Return the values of a row as they are selected: numbers of 128 bits as text."""
    return tuple(
        str(value) if column.form is Form.EXACT else value for column, value in zip(columns, values, strict=True)
    )
