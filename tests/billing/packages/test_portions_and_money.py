"""Plans of a year with monthly portions, carried quota and windows, with refunds, debts and limits of a carry-over."""

from typing import Any

import pytest
from billing_samples import (
    Line,
    MakeCalculator,
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
from recorded_simulation import RecordedSimulation

from billing.catalog.model import Catalog
from schemas.times import parse_time_us

YEAR = {"kind": "years", "years": 1, "timezone": "Asia/Shanghai"}
TEN_DAYS = {"kind": "days", "days": 10}
MONTHLY = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "every": "month"}
YEN: dict[str, Any] = {
    "kind": "price_book",
    "name": "b",
    "version": 1,
    "currency": "JPY",
    "effective_from": "2019-01-01T00:00:00Z",
    "rows": [{"model": "*", "per_million": {"input": "1000000"}, "standard_tokens": {"input": "1"}}],
}


def in_yen(name: str, refund: str) -> dict[str, Any]:
    price = {"price": {"amount": "12000", "currency": "JPY", "tax_rate": "0.1"}}
    return plan(name, buckets=[MONTHLY], cycle=YEAR, cancellation={"refund": refund}) | price


LEAVING = catalog(YEN, in_yen("time", "by_time"), in_yen("quota", "by_quota"))


def carrying(**limits: Any) -> Catalog:
    bucket = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over": {"cycles": 1} | limits}
    return catalog(plan("A", buckets=[bucket], cycle=TEN_DAYS))


OWING = catalog(
    plan("year", buckets=[MONTHLY], cycle=YEAR, overage="owe"),
    plan(
        "asks",
        cycle=TEN_DAYS,
        overage={"mode": "owe", "max_owed": "15"},
        windows=[{"kind": "rolling", "hours": 5, "cap": "2", "unit": "REQUEST"}],
    ),
)


class Run:
    """A finished simulation of account ``a``."""

    def __init__(self, make: MakeCalculator, book: Catalog, steps: list[Line], as_of: str) -> None:
        simulation = RecordedSimulation(book, make(), lines_per_commit=2)
        simulation.feed(encode(steps))
        self.document = simulation.document(parse_time_us(clock(as_of)))
        self.account: dict[str, Any] = self.document["accounts"]["a"]
        self.buckets = {bucket["grant_id"]: bucket for bucket in self.account["buckets"]}
        self.events = simulation.published("account.events")
        assert self.document["ledger"]["sum"] == "0"

    def left(self, *names: str) -> list[str]:
        return [self.buckets[name]["remaining"] for name in names]

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.events if event["type"] == kind]


def void(at: str) -> Line:
    return line("usage.voided.v1", "a", at, {"source": "test", "id": "wrong", "reason": "r"})


def year_in_yen(name: str, used: int, left_at: str = "2026-07-02 12:00") -> list[Line]:
    leave = {"subscription_id": "S", "immediately": True}
    return [
        opened(at="2026-01-01 00:00", currency="JPY"),
        top_up("12000", "p", "2026-01-01 00:00"),
        subscribe(name, at="2026-01-01 00:00", pay_from="wallet"),
        use(used, "2026-07-01 12:00"),
        line("subscription.cancelled.v1", "a", left_at, leave),
    ]


@pytest.mark.parametrize(
    ("name", "used", "given"),
    [
        ("time", 0, "5999"),  # half a year is 6000, of which 5455 net; six portions of 909 are 5454
        ("time", 50, "5499"),
        ("time", 100, "5000"),
        ("quota", 0, "5999"),
        ("quota", 50, "5499"),
    ],
)
def test_a_cancelled_year_gives_back_its_portions_to_come_in_whole_yen(
    calculator: MakeCalculator, name: str, used: int, given: str
) -> None:
    run = Run(calculator, LEAVING, year_in_yen(name, used), "2026-07-05 00:00")
    assert run.told("refund.paid.v1")[0]["amount"] == given
    assert run.account["wallet"] == given
    balance = run.document["ledger"]["trial_balance"]
    assert all("." not in amount for code, amount in balance.items() if code in ("customer_deposits", "cash"))
    assert "contract_liability" not in balance
    statuses = [run.buckets[f"S/1/{number}"]["status"] for number in range(1, 13)]
    seventh = "refunded" if used < 100 else "used_up"
    assert statuses == ["expired"] * 6 + [seventh] + ["refunded"] * 5


def test_a_portion_within_its_grace_expires_and_is_not_given_back(calculator: MakeCalculator) -> None:
    """184.5 of 365 days are 6066; the six portions to come are 5454 of 10909 net, so 5999."""
    for name in ("time", "quota"):
        run = Run(calculator, LEAVING, year_in_yen(name, 0, "2026-07-01 12:00"), "2026-07-05 00:00")
        assert [paid["amount"] for paid in run.told("refund.paid.v1")] == ["5999"]
        assert run.buckets["S/1/6"]["status"] == "cancelled"


def test_a_portion_that_was_refunded_before_is_a_twelfth_of_the_fee(calculator: MakeCalculator) -> None:
    steps = year_in_yen("time", 0, "2026-01-01 12:00")
    refunded = line("package.refunded.v1", "a", "2026-01-01 01:00", {"grant_id": "S/1/12", "reason": "r"})
    run = Run(calculator, LEAVING, [*steps[:3], refunded, steps[-1]], "2026-01-05 00:00")
    # 909 of 10909 net are 1000; 364.5 of 365 days of eleven twelfths of the fee are 10985
    assert [paid["amount"] for paid in run.told("refund.paid.v1")] == ["1000", "10985"]


@pytest.mark.parametrize(
    ("limits", "ahead", "during", "after"),
    [
        ({"max": "20"}, 15, ["45", "100"], ["5", "100"]),
        ({"max": "20"}, 30, ["40", "90"], ["40", "90"]),  # none of the 20 is left, so the rest expires
        ({"min": "30"}, 50, ["10", "100"], ["10", "100"]),
        ({"min": "61"}, 10, ["60", "90"], ["60", "90"]),  # too little is left to be carried over
        ({"min": "30", "max": "50"}, 20, ["40", "100"], ["30", "100"]),
    ],
)
def test_the_limits_of_a_carry_over_hold_from_the_first_second(
    calculator: MakeCalculator, limits: Any, ahead: int, during: list[str], after: list[str]
) -> None:
    """60 of 100 are left at the end of the cycle; the rest of its usage is of the next one, within the grace."""
    steps = [opened(), subscribe("A", at="01 00:00"), use(40, "05 00:00"), use(ahead, "11 00:00:01")]
    run = Run(calculator, carrying(**limits), steps, "11 01:00")
    assert run.left("S/1/1", "S/2/1") == during
    run = Run(calculator, carrying(**limits), steps, "12 01:00")
    assert run.left("S/1/1", "S/2/1") == after
    wrong = [*steps[:3], use(7, "05 01:00", id="wrong"), steps[3], void("11 02:00")]
    corrected = Run(calculator, carrying(**limits), wrong, "12 01:00")
    assert corrected.left("S/1/1", "S/2/1") == after
    assert corrected.document["breakage"] == run.document["breakage"]


def test_late_usage_lowers_what_is_carried_over_beside_what_was_used_ahead(calculator: MakeCalculator) -> None:
    steps = [opened(), subscribe("A", at="01 00:00"), use(40, "05 00:00"), use(15, "11 00:00:01"), use(25, "10 23:00")]
    run = Run(calculator, carrying(max="20"), steps, "12 01:00")
    assert run.left("S/1/1", "S/2/1") == ["5", "100"]  # 35 were left, of which 20 are carried over and 15 were used
    run = Run(calculator, carrying(max="20"), [*steps, use(18, "10 23:30")], "12 01:00")
    assert run.left("S/1/1", "S/2/1") == ["2", "100"]


def test_what_is_owed_is_paid_by_the_next_portion(calculator: MakeCalculator) -> None:
    steps = [opened(at="2026-01-01 00:00"), subscribe("year", at="2026-01-01 00:00"), use(130, "2026-01-05 00:00")]
    run = Run(calculator, OWING, steps, "2026-01-20 00:00")
    assert (run.account["owed"], run.left("S/1/1", "S/1/2", "S/1/3")) == ({"year": "30"}, ["0", "100", "100"])
    run = Run(calculator, OWING, steps, "2026-02-02 00:00")
    assert ("owed" in run.account, run.left("S/1/1", "S/1/2", "S/1/3")) == (False, ["0", "70", "100"])
    (paid,) = run.told("debt.paid.v1")
    assert (paid["grant_id"], paid["paid"], paid["owed"]) == ("S/1/2", "30", "0")
    assert [(one["purpose"], one["quantity"]) for one in paid["movements"]] == [("debt", "-30")]
    large = [*steps, use(150, "2026-01-06 00:00")]
    run = Run(calculator, OWING, large, "2026-03-02 00:00")
    assert run.left("S/1/1", "S/1/2", "S/1/3", "S/1/4") == ["0", "0", "20", "100"]
    corrected = Run(calculator, OWING, [*steps, use(9, "2026-01-07 00:00", id="wrong"), void("2026-02-02 00:00")],
                    "2026-02-03 00:00")  # fmt: skip
    assert corrected.left("S/1/1", "S/1/2", "S/1/3") == ["0", "70", "100"]


def test_a_portion_that_was_ended_before_it_began_pays_no_debt(calculator: MakeCalculator) -> None:
    leave = line("subscription.cancelled.v1", "a", "2026-01-31 12:00", {"subscription_id": "S", "immediately": True})
    steps = [opened(at="2026-01-01 00:00"), subscribe("year", at="2026-01-01 00:00"), use(130, "2026-01-05 00:00")]
    run = Run(calculator, OWING, [*steps, leave], "2026-02-05 00:00")
    assert (run.account["owed"], run.told("debt.paid.v1")) == ({"year": "30"}, [])


def test_what_a_window_of_requests_keeps_out_is_owed(calculator: MakeCalculator) -> None:
    asked = [use(10, f"05 00:0{minute}") for minute in range(4)]
    steps = [opened(), subscribe("asks", at="01 00:00"), *asked]
    run = Run(calculator, OWING, steps, "06 00:00")
    account = run.account
    assert (account["owed"], account["absorbed"], run.left("S/1/1")) == ({"asks": "15"}, "5", ["80"])
    run = Run(calculator, OWING, steps, "12 00:00")
    assert ("owed" in run.account, run.left("S/2/1")) == (False, ["85"])
    wrong = [*steps[:2], use(1, "04 23:59", id="wrong"), *asked, void("06 00:00")]
    corrected = Run(calculator, OWING, wrong, "12 00:00")
    assert (corrected.left("S/1/1", "S/2/1"), corrected.account["absorbed"]) == (["80", "85"], "5")
