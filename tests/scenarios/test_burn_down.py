"""The scenarios, computed by hand, through the plain calculator and the compiled one."""

from typing import Any

import pytest
from recorded_simulation import RecordedSimulation
from scenario_files import Scenario, catalogue, scenarios
from scenario_outcome import check, outcome_of

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalogue()


@pytest.mark.parametrize("make", [PlainCalculator, CompiledCalculator])
@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda scenario: scenario.name)
def test_what_is_left(scenario: Scenario, make: Any, catalog: Catalog) -> None:
    simulation = RecordedSimulation(catalog, make())
    simulation.feed(record.value for record in scenario.records())
    check(scenario, outcome_of(simulation, scenario.as_of_us()))
