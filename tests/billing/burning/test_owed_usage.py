"""Overage that is owed, and paid first by the next grant of its plan (docs/reference/plans.md, "Overage")."""

from typing import Any

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
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

TWO = [
    {"unit": "STD_TOKEN", "amount": "20", "kind": "periodic", "fee_share": "0.5"},
    {"unit": "STD_TOKEN", "amount": "80", "kind": "total", "fee_share": "0.5", "priority": 5},
]
TEN_DAYS = {"kind": "days", "days": 10}
CATALOG = catalog(
    plan("owe", overage="owe", cycle=TEN_DAYS),
    plan("some", overage={"mode": "owe", "max_owed": "50"}, cycle=TEN_DAYS),
    plan("two", overage="owe", buckets=TWO, cycle=TEN_DAYS),
    plan("other", cycle=TEN_DAYS),
)


def end(calculator: MakeCalculator, steps: list[Line], as_of: str = "20 00:00") -> tuple[dict[str, Any], Any]:
    simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=2)
    simulation.feed(encode([opened(), top_up("500", "p", "01 00:00"), *steps]))
    return simulation.document(parse_time_us(clock(as_of))), simulation


def left(document: dict[str, Any]) -> dict[str, str]:
    return {bucket["grant_id"]: bucket["remaining"] for bucket in document["accounts"]["a"]["buckets"]}


def test_the_next_cycle_pays_what_is_owed_first(calculator: MakeCalculator) -> None:
    steps = [subscribe("owe", at="01 00:00"), use(130, "05 00:00")]
    before, simulation = end(calculator, steps, "06 00:00")
    account = before["accounts"]["a"]
    assert (account["owed"], account["absorbed"], account["wallet"]) == ({"owe": "30"}, "0", "500")
    assert before["revenue_net"] == "100"
    (event,) = simulation.published("usage.rated")[0]["data"]["events"]
    assert (event["owed"], event["charged"], event["absorbed"]) == ("30", "0", "0")
    after, simulation = end(calculator, steps, "12 00:00")
    account = after["accounts"]["a"]
    assert "owed" not in account
    assert left(after) == {"S/1/1": "0", "S/2/1": "70"}
    assert account["buckets"][1]["amount"] == "100"
    assert after["ledger"]["trial_balance"] == {
        "cash": "712", "contract_liability": "-70", "customer_deposits": "-500", "output_vat_pending": "-12",
        "revenue_debt": "-30", "revenue_usage": "-100",
    }  # fmt: skip
    renewed = next(e for e in simulation.published("account.events") if e["type"] == "subscription.renewed.v1")
    assert renewed["data"]["movements"][-1] == {
        "purpose": "debt", "currency": "CNY", "plan": "owe@1", "grant_id": "S/2/1", "unit": "STD_TOKEN",
        "quantity": "-30", "granted": "0", "liability": "-30",
    }  # fmt: skip


def test_a_debt_larger_than_a_grant_is_paid_by_several(calculator: MakeCalculator) -> None:
    document, _ = end(calculator, [buy("owe", "G", "01 00:00"), use(350, "02 00:00"), buy("owe", "H", "03 00:00")])
    assert document["accounts"]["a"]["owed"] == {"owe": "150"}
    assert left(document) == {"G/1": "0", "H/1": "0"}
    assert [one["status"] for one in document["accounts"]["a"]["buckets"]] == ["used_up", "used_up"]
    steps = [buy("owe", "G", "01 00:00"), use(350, "02 00:00"), *[buy("owe", f"H{n}", "03 00:00") for n in range(3)]]
    document, _ = end(calculator, steps, "04 00:00")
    assert left(document) == {"G/1": "0", "H0/1": "0", "H1/1": "0", "H2/1": "50"}


def test_beyond_the_most_that_may_be_owed_usage_is_absorbed(calculator: MakeCalculator) -> None:
    document, _ = end(calculator, [buy("some", "G", "01 00:00"), use(180, "02 00:00"), use(7, "02 01:00")])
    account = document["accounts"]["a"]
    assert (account["owed"], account["absorbed"], account["absorbed_amount"]) == ({"some": "50"}, "37", "39.22")


def test_only_a_grant_of_the_plan_pays_and_the_buckets_pay_in_deduction_order(calculator: MakeCalculator) -> None:
    steps = [buy("two", "G", "01 00:00"), use(190, "02 00:00"), buy("other", "O", "03 00:00")]
    document, _ = end(calculator, steps, "04 00:00")
    assert (document["accounts"]["a"]["owed"], left(document)["O/1"]) == ({"two": "90"}, "100")
    document, _ = end(calculator, [*steps, buy("two", "H", "04 00:00")], "05 00:00")
    assert left(document) == {"G/1": "0", "G/2": "0", "H/1": "10", "H/2": "0", "O/1": "100"}


def test_a_void_takes_the_debt_back_before_and_after_it_is_paid(calculator: MakeCalculator) -> None:
    steps = [subscribe("owe", at="01 00:00"), use(130, "05 00:00", id="used")]
    for at in ("06 00:00", "12 00:00"):
        void = line("usage.voided.v1", "a", at, {"source": "test", "id": "used", "reason": "r"})
        document, _ = end(calculator, [*steps, void], "12 12:00")
        assert left(document)["S/2/1"] == "100"
        assert "owed" not in document["accounts"]["a"]
        assert "revenue_debt" not in document["ledger"]["trial_balance"]


def test_a_refund_of_the_grant_that_paid_gives_back_what_it_has_left(calculator: MakeCalculator) -> None:
    refund = line("package.refunded.v1", "a", "03 01:00", {"grant_id": "H", "reason": "r"})
    steps = [buy("owe", "G", "01 00:00"), use(130, "02 00:00"), buy("owe", "H", "03 00:00", pay_from="wallet"), refund]
    document, _ = end(calculator, steps)
    assert document["accounts"]["a"]["wallet"] == "468.2"  # 70 of 106 come back
