"""Refunds of an immediate cancellation (docs/reference/plans.md, "Refund at cancellation")."""

from typing import Any

import pytest
from billing_samples import (
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    encode,
    line,
    opened,
    plan,
    subscribe,
    top_up,
    use,
)
from billing_samples import subscription as changed
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

MONTH = {"kind": "calendar_month"}
TEN_DAYS = {"kind": "days", "days": 10}
PACKS = {"mode": "auto_pack", "block": "10", "price": "10.60", "max_packs": 3}
TWO = [
    {"unit": "STD_TOKEN", "amount": "40", "kind": "periodic", "fee_share": "0.4"},
    {"unit": "STD_TOKEN", "amount": "60", "kind": "periodic", "fee_share": "0.6", "priority": 200},
]
UNTAXED = {"amount": "31.00", "currency": "CNY", "tax_rate": "0"}
CATALOG = catalog(
    plan("month", "3100", cycle=MONTH) | {"price": UNTAXED, "cancellation": {"refund": "by_time"}},
    plan("time", cycle=TEN_DAYS, cancellation={"refund": "by_time"}),
    plan("quota", cycle=TEN_DAYS, cancellation={"refund": "by_quota"}),
    plan("silent", cycle=TEN_DAYS),
    plan("none", cycle=TEN_DAYS, cancellation={"refund": "none"}),
    plan("packs", "10", "10.60", cycle=TEN_DAYS, overage=PACKS, cancellation={"refund": "by_time"}),
    plan("two", buckets=TWO, cycle=TEN_DAYS, cancellation={"refund": "by_time"}),
    plan("carried", buckets=[TWO[0] | {"fee_share": "1", "amount": "100", "carry_over_cycles": 1}], cycle=TEN_DAYS,
         cancellation={"refund": "by_quota"}),
    plan("free", price="0.00", cycle=TEN_DAYS, cancellation={"refund": "by_time"}),
)  # fmt: skip


def leave(at: str = "05 00:00") -> Line:
    return changed("cancelled", at, immediately=True)


class Run:
    """The end of a life of account ``a`` that begins on 1 November with 500 yuan in the wallet."""

    def __init__(self, calculator: MakeCalculator, steps: list[Line], as_of: str = "28 00:00") -> None:
        simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=2)
        simulation.feed(encode([opened(), top_up("500", "p", "01 00:00"), *steps]))
        self.document = simulation.document(parse_time_us(clock(as_of)))
        self.account: dict[str, Any] = self.document["accounts"]["a"]
        self.balance: dict[str, str] = self.document["ledger"]["trial_balance"]
        self.events = simulation.published("account.events")

    def refunds(self) -> list[str]:
        return [event["data"]["amount"] for event in self.events if event["type"] == "refund.paid.v1"]


def test_the_days_that_are_left_of_a_month_are_given_back(calculator: MakeCalculator) -> None:
    """21 of the 31 days of January are left."""
    steps = [
        opened(at="2026-01-01 00:00"),
        top_up("31", "p", "2026-01-01 00:00"),
        subscribe("month", at="2026-01-01 00:00", pay_from="wallet"),
        leave("2026-01-11 00:00"),
    ]
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode(steps))
    document = simulation.document(parse_time_us(clock("2026-02-10 00:00")))
    assert document["accounts"]["a"]["wallet"] == "21"
    assert document["accounts"]["a"]["buckets"][0]["status"] == "refunded"
    assert document["ledger"]["trial_balance"] == {"cash": "31", "customer_deposits": "-21", "revenue_breakage": "-10"}


@pytest.mark.parametrize(
    ("plan_name", "used", "given"),
    [
        ("time", 0, "63.6"),  # six of ten days
        ("time", 30, "63.6"),
        ("time", 60, "42.4"),  # only 40 of 100 tokens are left
        ("time", 100, None),
        ("quota", 0, "106"),
        ("quota", 30, "74.2"),
        ("quota", 100, None),
        ("silent", 0, None),
        ("none", 30, None),
        ("free", 30, None),
    ],
)
def test_the_plan_says_what_comes_back(
    calculator: MakeCalculator, plan_name: str, used: int, given: str | None
) -> None:
    steps = [subscribe(plan_name, at="01 00:00", pay_from="wallet"), use(used, "02 00:00"), leave()]
    run = Run(calculator, steps)
    assert run.refunds() == ([] if given is None else [given])
    fee = 0.0 if plan_name == "free" else 106.0
    assert float(run.account["wallet"]) == pytest.approx(500 - fee + float(given or 0))
    assert "contract_liability" not in run.balance and run.document["ledger"]["sum"] == "0"


def test_late_usage_from_before_the_cancellation_lowers_the_refund(calculator: MakeCalculator) -> None:
    steps = [subscribe("time", at="01 00:00", pay_from="wallet"), leave(), use(90, "04 23:00"), use(5, "05 00:00")]
    run = Run(calculator, steps)
    assert run.refunds() == ["10.6"]
    assert run.account["wallet"] == "399.3"  # the 5 tokens after the cancellation cost 5.3 of the wallet


def test_what_time_has_earned_is_breakage_and_tax_follows_the_money(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("time", at="01 00:00", pay_from="wallet"), use(10, "02 00:00"), leave()])
    assert run.balance == {
        "cash": "500", "customer_deposits": "-457.6", "output_vat_pending": "-2.4", "revenue_breakage": "-30",
        "revenue_usage": "-10",
    }  # fmt: skip
    assert (run.document["breakage"], run.document["revenue_net"]) == ("30", "10")


def test_a_fee_paid_elsewhere_goes_back_elsewhere_and_a_gift_as_a_gift(calculator: MakeCalculator) -> None:
    outside = Run(calculator, [subscribe("time", at="01 00:00"), leave()])
    assert (outside.refunds(), outside.account["wallet"], outside.balance["cash"]) == (["63.6"], "500", "542.4")
    steps = [top_up("53", "q", "01 00:00", gift=True), subscribe("time", at="01 00:00", pay_from="wallet"), leave()]
    gifted = Run(calculator, steps)
    (paid,) = [event["data"] for event in gifted.events if event["type"] == "refund.paid.v1"]
    assert (paid["amount"], paid["gift"], paid["paid_to"]) == ("63.6", "31.8", "wallet")


def test_a_second_cancellation_gives_nothing_more(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("time", at="01 00:00", pay_from="wallet"), leave(), leave("06 00:00")])
    assert run.refunds() == ["63.6"]


def test_an_ordered_refund_and_a_cancellation_pay_a_bucket_once(calculator: MakeCalculator) -> None:
    ordered = line("package.refunded.v1", "a", "03 00:00", {"grant_id": "S/1", "reason": "r"})
    run = Run(calculator, [subscribe("time", at="01 00:00", pay_from="wallet"), ordered, leave()])
    assert (run.refunds(), run.account["wallet"]) == (["106"], "500")


def test_time_counts_for_the_buckets_that_were_not_refunded_before(calculator: MakeCalculator) -> None:
    ordered = line("package.refunded.v1", "a", "03 00:00", {"grant_id": "S/1/1", "reason": "r"})
    run = Run(calculator, [subscribe("two", at="01 00:00", pay_from="wallet"), ordered, leave()])
    assert run.refunds() == ["42.4", "38.16"]  # 40 of 106, then six tenths of 63.60


def test_a_cancellation_at_the_end_of_the_cycle_gives_nothing_back(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("time", at="01 00:00", pay_from="wallet"), changed("cancelled", "05 00:00")])
    assert (run.refunds(), run.account["wallet"]) == ([], "394")


def test_a_cycle_that_was_not_granted_gives_nothing_back(calculator: MakeCalculator) -> None:
    steps = [
        subscribe("time", at="01 00:00", pay_from="wallet"),
        buy("time", "G", "02 00:00", pay_from="wallet"),
        buy("time", "H", "02 00:00", pay_from="wallet"),
        buy("time", "I", "02 00:00", pay_from="wallet"),
        leave("12 00:00"),
    ]
    assert Run(calculator, steps).refunds() == []


def test_after_a_change_the_last_payment_and_its_time_count(calculator: MakeCalculator) -> None:
    """The rest of five days costs 53; two and a half days of it are left."""
    steps = [
        subscribe("silent", at="01 00:00", pay_from="wallet"),
        changed("changed", "06 00:00", plan="time", effective="now"),
        leave("08 12:00"),
    ]
    run = Run(calculator, steps)
    assert (run.refunds(), run.account["wallet"]) == (["26.5"], "420.5")


def test_packs_are_given_back_by_their_quota_and_carried_buckets_are_not(calculator: MakeCalculator) -> None:
    steps = [subscribe("packs", at="01 00:00", pay_from="wallet"), use(12, "02 00:00"), leave()]
    assert Run(calculator, steps).refunds() == ["8.48"]
    steps = [subscribe("carried", at="01 00:00", pay_from="wallet"), use(20, "02 00:00"), leave("13 00:00")]
    run = Run(calculator, steps)
    assert run.refunds() == ["106"]  # the second cycle's; the 80 carried over expire
    assert run.document["breakage"] == "80"


def test_a_void_after_the_refund_gives_back_the_rest(calculator: MakeCalculator) -> None:
    void = line("usage.voided.v1", "a", "09 00:00", {"source": "test", "id": "used", "reason": "r"})
    steps = [subscribe("quota", at="01 00:00", pay_from="wallet"), use(50, "02 00:00", id="used"), leave()]
    assert Run(calculator, [*steps, void]).account["wallet"] == "500"
    assert Run(calculator, steps).account["wallet"] == "447"
