"""Fees, changes of plan, refunds, packs and bills in currencies whose minor unit is not 0.01."""

from typing import Any

import pytest
from billing_samples import Line, MakeCalculator, buy, catalog, clock, line, opened, plan, simulate, top_up, use

from schemas.times import parse_time_us

MONTH = {"kind": "subscription_month", "timezone": "Asia/Tokyo"}


def book(currency: str, price: str = "1000000") -> dict[str, Any]:
    """Return a book in which an output token costs 1 and is one standard token."""
    row = {"model": "*", "per_million": {"output": price}, "standard_tokens": {"output": "1"}}
    return {"kind": "price_book", "name": "b", "version": 1, "currency": currency, "rows": [row]} | {
        "effective_from": "2019-01-01T00:00:00Z"
    }


def priced(name: str, price: str, currency: str, amount: str = "1000", **rest: Any) -> dict[str, Any]:
    return plan(name, amount, **rest) | {"price": {"amount": price, "currency": currency, "tax_rate": "0.1"}}


def run(calculator: MakeCalculator, entries: list[dict[str, Any]], steps: list[Line], until: str) -> dict[str, Any]:
    document = simulate(calculator(), catalog(*entries), steps, parse_time_us(clock(until)))
    assert document["ledger"]["sum"] == "0"
    return document


def test_a_change_of_plan_in_yen_costs_whole_yen(calculator: MakeCalculator) -> None:
    """700 × 16 ÷ 31 is 361.29, so 361 yen; the quota is used up, so nothing is credited."""
    entries = [book("JPY"), priced("p", "1000", "JPY", cycle=MONTH), priced("q", "700", "JPY", "500", cycle=MONTH)]
    changed = {"subscription_id": "s", "plan": "q", "effective": "now"}
    started = {"plan": "p", "subscription_id": "s", "pay_from": "wallet"}
    steps = [
        opened("u", "2025-12-31 23:00", currency="JPY"),
        top_up("10000", "r", "2025-12-31 23:00", "u"),
        line("subscription.started.v1", "u", "2025-12-31 23:00", started),
        use(1000, "2026-01-01 23:00", "u", meter="output"),
        line("subscription.changed.v1", "u", "2026-01-15 23:00", changed),
    ]
    document = run(calculator, entries, steps, "2026-01-16 00:00")
    assert document["accounts"]["u"]["wallet"] == "8639"
    assert document["ledger"]["trial_balance"]["output_vat_pending"] == "-124"  # 91 + 33


@pytest.mark.parametrize(
    ("currency", "price", "net", "tax"),
    [("JPY", "1000", "909", "91"), ("VND", "99000", "90000", "9000"), ("KWD", "9.905", "9.005", "0.9"),
     ("CLF", "1.0005", "0.9095", "0.091"), ("USD", "9.90", "9", "0.9"), ("KRW", "9900", "9000", "900")],
)  # fmt: skip
def test_a_fee_is_split_to_the_minor_unit(
    currency: str, price: str, net: str, tax: str, calculator: MakeCalculator
) -> None:
    entries = [book(currency), priced("p", price, currency)]
    steps = [opened(currency=currency), buy("p", "G")]
    balances = run(calculator, entries, steps, "02 10:00")["ledger"]["trial_balance"]
    assert (balances["contract_liability"], balances["output_vat_pending"]) == (f"-{net}", f"-{tax}")


@pytest.mark.parametrize(
    ("currency", "price", "used", "paid"), [("JPY", "1000", 333, "667"), ("KWD", "9.905", 333, "6.607")]
)
def test_a_refund_is_paid_in_whole_minor_units(
    currency: str, price: str, used: int, paid: str, calculator: MakeCalculator
) -> None:
    entries = [book(currency), priced("p", price, currency)]
    refunded = line("package.refunded.v1", "a", "03 00:00", {"grant_id": "G", "reason": "r"})
    steps = [opened(currency=currency), top_up(price, "t"), buy("p", "G", pay_from="wallet")]
    document = run(calculator, entries, [*steps, use(used, meter="output"), refunded], "09 00:00")
    assert document["accounts"]["a"]["wallet"] == paid


@pytest.mark.parametrize(
    ("currency", "billed", "left"), [("JPY", "1", "-0.5005"), ("KWD", "1.5", "-0.0005"), ("CLF", "1.5005", "0")]
)
def test_a_bill_is_of_whole_minor_units(currency: str, billed: str, left: str, calculator: MakeCalculator) -> None:
    """A token costs 1.5005: what lies below the minor unit waits for the next bill."""
    steps = [opened(currency=currency, payment="postpaid", bill_day=5), use(1, meter="output")]
    document = run(calculator, [book(currency, "1500500")], steps, "06 00:00")
    assert document["accounts"]["a"]["wallet"] == left
    assert document["ledger"]["trial_balance"]["receivables"] == billed
