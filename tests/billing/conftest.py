"""The calculators that every test of the rules runs with: the plain one, and the compiled one that must equal it."""

import pytest
from billing_samples import MakeCalculator

from billing.reference.calculator import PlainCalculator

CALCULATORS: dict[str, MakeCalculator] = {"plain": PlainCalculator}


@pytest.fixture(params=sorted(CALCULATORS, reverse=True), scope="session")
def calculator(request: pytest.FixtureRequest) -> MakeCalculator:
    """Makes one calculator; a test makes as many as it needs."""
    return CALCULATORS[request.param]
