"""Log time of a simulation: every event of an account moves it, rated or not (docs/reference/principles.md)."""

from typing import Any

import pytest
from billing_samples import MakeCalculator, buy, catalog, encode, line, opened, plan, use
from recorded_simulation import RecordedSimulation

from billing.engine.simulation import Simulation
from schemas.times import parse_time_us

CATALOG = catalog(plan("A", cycle={"kind": "days", "days": 7}))
USED = use(5, "03 00:00", id="u")
LATER = "2026-11-12T10:00:00+08:00"


@pytest.mark.parametrize(
    "step",
    [
        use(1, "12 10:00", id="new"),
        use(1, "12 10:00", id="new", meter="images"),
        use(1, "12 10:00", id="new", model="nobody's"),
        USED | {"time": LATER},
        USED | {"time": LATER, "data": {"model": "m", "usage": {"input": 6}}},
    ],
    ids=["rated", "unpriced", "unknown model", "resend", "conflict"],
)
def test_every_event_of_an_account_moves_its_clock(calculator: MakeCalculator, step: Any) -> None:
    simulation = Simulation(CATALOG, calculator())
    simulation.feed(encode([opened(), opened("b"), buy("A", "G"), USED, step]))
    account, other = simulation.calculator.account("a"), simulation.calculator.account("b")
    assert account is not None and other is not None
    assert account.clock_us == parse_time_us(LATER)
    assert other.clock_us == parse_time_us("2026-11-01T00:00:00+08:00")


def test_a_command_is_decided_after_the_rejected_usage_before_it(calculator: MakeCalculator) -> None:
    """The bucket has ended by the time of the rejected event, so a refund finds nothing."""
    refund = line("package.refunded.v1", "a", "04 00:00", {"grant_id": "G", "reason": "r"})
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(1, "12 10:00", meter="images"), refund]))
    told = [event["data"] for event in simulation.published("account.events")]
    assert told[-1]["reason"] == "nothing_to_refund"


def test_a_correction_replays_the_clock_that_rejected_usage_moved(calculator: MakeCalculator) -> None:
    void = line("usage.voided.v1", "a", "04 00:00", {"source": "test", "id": "u", "reason": "r"})
    late = use(7, "05 00:00", id="late")
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode([opened(), buy("A", "G"), USED, use(1, "12 10:00", meter="images"), late, void]))
    told = [event["data"] for event in simulation.published("account.events") if event["type"] == "command.rejected.v1"]
    assert told == []
    assert simulation.document()["accounts"]["a"]["buckets"][0]["remaining"] == "100"
