"""The calculators that every test of the rules runs with; the plain one is the specification that others must equal."""

import pytest
from billing_samples import MakeCalculator

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator

CALCULATORS: dict[str, MakeCalculator] = {"plain": PlainCalculator, "compiled": CompiledCalculator}


@pytest.fixture(params=list(CALCULATORS), scope="session")
def calculator(request: pytest.FixtureRequest) -> MakeCalculator:
    """Makes one calculator; a test makes as many as it needs."""
    return CALCULATORS[request.param]
