"""Carry-over with a maximum and a minimum (docs/reference/plans.md, "Cycles")."""

from typing import Any

import pytest
from billing_samples import MakeCalculator, catalog, clock, encode, opened, plan, subscribe, use
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

TEN_DAYS = {"kind": "days", "days": 10}


def carrying(**limits: Any) -> Any:
    bucket = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over": {"cycles": 1} | limits}
    return catalog(plan("A", buckets=[bucket], cycle=TEN_DAYS))


@pytest.mark.parametrize(
    ("limits", "used", "left", "status", "breakage"),
    [
        ({}, 40, "60", "active", "0"),
        ({"max": "20"}, 40, "20", "active", "40"),
        ({"max": "60"}, 40, "60", "active", "0"),
        ({"min": "60"}, 40, "60", "active", "0"),
        ({"min": "60.000001"}, 40, "60", "expired", "60"),
        ({"min": "30", "max": "30"}, 40, "30", "active", "30"),
        ({"min": "30", "max": "30"}, 71, "29", "expired", "29"),
        ({"max": "0.5"}, 0, "0.5", "active", "99.5"),
    ],
)
def test_what_exceeds_the_maximum_or_misses_the_minimum_expires(
    calculator: MakeCalculator, limits: Any, used: int, left: str, status: str, breakage: str
) -> None:
    simulation = RecordedSimulation(carrying(**limits), calculator())
    simulation.feed(encode([opened(), subscribe("A", at="01 00:00"), use(used, "02 00:00")]))
    document = simulation.document(parse_time_us(clock("12 01:00")))
    first = next(one for one in document["accounts"]["a"]["buckets"] if one["grant_id"] == "S/1/1")
    assert (first["remaining"], first["status"], document["breakage"]) == (left, status, breakage)
    assert first["amount"] == "100"
    assert document["ledger"]["sum"] == "0"


def test_the_carried_rest_earns_what_is_left_of_its_fee(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(carrying(max="20"), calculator())
    simulation.feed(encode([opened(), subscribe("A", at="01 00:00"), use(40, "02 00:00"), use(20, "12 12:00")]))
    document = simulation.document(parse_time_us(clock("13 00:00")))
    assert (document["revenue_net"], document["breakage"]) == ("60", "40")
    (carried,) = [one for one in simulation.published("account.events") if one["type"] == "bucket.carried.v1"]
    assert carried["data"]["movements"] == [{
        "purpose": "breakage", "currency": "CNY", "plan": "A@1", "grant_id": "S/1/1", "unit": "STD_TOKEN",
        "quantity": "-40", "granted": "0", "liability": "-40",
    }]  # fmt: skip
