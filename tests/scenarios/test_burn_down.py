"""The scenarios, computed by hand, through the plain calculator and the compiled one."""

from typing import Any

import pytest
from rebuilt_accounts import Rebuilt
from recorded_simulation import RecordedSimulation
from scenario_files import Scenario, catalogue, scenarios
from scenario_outcome import check, outcome_of

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog
from schemas.topics import ACCOUNT_EVENT_TOPIC, RATED_TOPIC


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return catalogue()


@pytest.mark.parametrize("make", [PlainCalculator, CompiledCalculator])
@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda scenario: scenario.name)
def test_what_is_left(scenario: Scenario, make: Any, catalog: Catalog) -> None:
    simulation = RecordedSimulation(catalog, make())
    simulation.feed(record.value for record in scenario.records())
    check(scenario, outcome_of(simulation, scenario.as_of_us()))


@pytest.mark.parametrize("make", [PlainCalculator, CompiledCalculator])
@pytest.mark.parametrize("scenario", list(scenarios()), ids=lambda scenario: scenario.name)
def test_the_topics_tell_what_is_left(scenario: Scenario, make: Any, catalog: Catalog) -> None:
    simulation = RecordedSimulation(catalog, make())
    simulation.feed(record.value for record in scenario.records())
    document = simulation.document(scenario.as_of_us())
    rebuilt = Rebuilt()
    rebuilt.add_usage(simulation.published(RATED_TOPIC))
    rebuilt.add_notices(simulation.published(ACCOUNT_EVENT_TOPIC))
    assert {name: rebuilt.accounts[name].differences(one) for name, one in document["accounts"].items()} == {
        name: [] for name in document["accounts"]
    }
