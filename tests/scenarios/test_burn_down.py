"""The table of hand-computed scenarios, through the plain calculator and the compiled one."""

from typing import Any

import pytest
from scenario_files import Scenario, catalogue, scenarios

from billing.catalog import Catalog
from billing.core import CompiledCalculator
from billing.reference.calculator import PlainCalculator
from billing.simulate import Simulation


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalogue()


def left_of(account: dict[str, Any]) -> dict[str, str]:
    return {bucket["grant_id"]: f"{bucket['remaining']} {bucket['status']}" for bucket in account["buckets"]}


@pytest.mark.parametrize("make", [PlainCalculator, CompiledCalculator])
@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda scenario: scenario.name)
def test_what_is_left(scenario: Scenario, make: Any, catalog: Catalog) -> None:
    simulation = Simulation(catalog, make())
    simulation.feed(line for _, line in scenario.lines())
    document: Any = simulation.document(scenario.as_of_us)
    account = document["accounts"]["a"]
    left = left_of(account)
    assert {grant: left.get(grant) for grant in scenario.left} == scenario.left
    assert all("/pack-" in grant for grant in left.keys() - scenario.left.keys())
    for name, buckets in scenario.others.items():
        assert list(left_of(document["accounts"][name]).values()) == buckets
    found = {name: account[name] for name in ("wallet", "absorbed", "absorbed_amount")}
    found |= {"revenue": document["revenue_net"], "breakage": document["breakage"]}
    assert found == {name: getattr(scenario, name) for name in found}
    assert document["ledger"]["sum"] == "0"
    if scenario.events is not None:
        counts = document["events"]
        assert " ".join(f"{counts[kind]} {kind}" for kind in ("rated", "duplicate", "rejected")) == scenario.events
