"""A withdrawn plan is no longer sold; existing grants and subscriptions continue."""

from typing import Any

import pytest
from billing_samples import (
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    encode,
    opened,
    plan,
    subscribe,
    subscription,
    top_up,
    use,
)
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC

DAYS_10 = {"kind": "days", "days": 10}
WITHDRAWN = {"version": 2, "withdrawn_from": clock("10 00:00")}
OLD = plan("A", cycle=DAYS_10)
CATALOG = catalog(OLD, OLD | WITHDRAWN, plan("B", cycle=DAYS_10))
BACK = catalog(OLD, OLD | WITHDRAWN, OLD | {"version": 3}, plan("B", cycle=DAYS_10))


def run(make: MakeCalculator, steps: list[Line], book: Any = CATALOG, as_of: str = "10 00:00") -> Any:
    """Return the outcomes of the commands after the opening, and the account at the end."""
    simulation = RecordedSimulation(book, make())
    simulation.feed(encode([opened(), *steps]))
    document = simulation.document(parse_time_us(clock(as_of)))
    assert document["ledger"]["sum"] == "0"
    return simulation.outcomes()[1:], document["accounts"]["a"]


@pytest.mark.parametrize("version", [{}, {"plan_version": 1}, {"plan_version": 2}])
def test_it_is_sold_until_that_time_and_no_longer(version: dict[str, int], calculator: MakeCalculator) -> None:
    steps = [buy("A", "G", "09 23:59:59", **version), buy("A", "H", "10 00:00", **version)]
    outcomes, account = run(calculator, steps)
    assert outcomes == ["accepted", "plan_withdrawn"]
    assert [bucket["grant_id"] for bucket in account["buckets"]] == ["G/1"]


def test_the_time_of_the_decision_counts_not_that_of_the_purchase(calculator: MakeCalculator) -> None:
    late = [use(1, "10 00:00"), buy("A", "G", "09 00:00")]
    ahead = [buy("A", "G", "09 00:00", starts_at="12 00:00")]
    assert run(calculator, late)[0] == ["plan_withdrawn"]
    assert run(calculator, ahead)[0] == ["accepted"]


def test_neither_subscribed_to_nor_changed_to(calculator: MakeCalculator) -> None:
    steps = [
        subscribe("B", at="05 00:00"),
        subscribe("A", "T", at="10 00:00"),
        subscription("changed", "11 00:00", plan="A"),
        subscription("changed", "11 00:00", plan="A", plan_version=1, effective="now"),
    ]
    assert run(calculator, steps)[0] == ["accepted", *["plan_withdrawn"] * 3]


def test_what_was_sold_runs_on(calculator: MakeCalculator) -> None:
    steps = [
        subscribe("A", at="05 00:00", pay_from="wallet"),
        top_up("318", "p", "04 00:00"),
        subscribe("A", at="05 00:00", pay_from="wallet"),
        subscribe("B", "T", at="05 00:00"),
        subscription("changed", "06 00:00", "T", plan="A"),
        use(30, "16 00:00"),
        subscription("suspended", "17 00:00"),
        subscription("resumed", "18 00:00"),
        subscription("changed", "19 00:00", plan="B"),
    ]
    outcomes, account = run(calculator, steps, as_of="26 00:00")
    assert outcomes == ["insufficient_funds", *["accepted"] * 7]
    plans = [(bucket["grant_id"], bucket["plan"]) for bucket in account["buckets"]]
    assert plans == [("S/1/1", "A"), ("S/2/1", "A"), ("S/3/1", "B"), ("T/1/1", "B"), ("T/2/1", "A"), ("T/3/1", "A")]
    assert [bucket["status"] for bucket in account["buckets"]].count("active") == 2


def test_a_later_version_puts_it_on_sale_again(calculator: MakeCalculator) -> None:
    assert run(calculator, [buy("A", "G", "12 00:00", plan_version=1)], BACK)[0] == ["accepted"]


def test_a_version_that_never_was_is_unknown(calculator: MakeCalculator) -> None:
    assert run(calculator, [buy("A", "G", "12 00:00", plan_version=9)])[0] == ["unknown_plan"]


def test_the_detail_says_since_when_and_by_which_version(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode([opened(), buy("A", "G", "12 00:00")]))
    simulation.document()
    [data] = [one["data"] for one in simulation.published(ACCOUNT_EVENT_TOPIC) if "rejected" in one["type"]]
    assert data["detail"] == "plan 'A' is not sold since 2026-11-09T16:00:00Z, by its version 2"
