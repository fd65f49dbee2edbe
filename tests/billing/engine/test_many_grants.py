"""Many grants on one account: a batch of commands looks at few buckets, and commits what single commands would."""

from collections.abc import Callable
from typing import Any

import pytest
from billing_samples import MakeCalculator, buy, catalog, encode, opened, plan, top_up, use
from hypothesis import HealthCheck, given, settings
from recorded_simulation import RecordedSimulation
from simulation_steps import CATALOG, STEPS

from billing.accounts import account, deduction_order
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.decide import roll_forward
from billing.engine.open_accounts import OpenAccounts
from billing.engine.simulation import Simulation
from schemas.times import parse_time_us

MONTH = catalog(plan("A", cycle={"kind": "days", "days": 30}, overage="pay_as_you_go"))


def changes(steps: Any, calculator: Any) -> list[Any]:
    simulation = RecordedSimulation(CATALOG, calculator(), lines_per_commit=30)
    simulation.feed(encode(steps))
    simulation.document()
    return [(record.changes, [(row.topic, row.payload) for row in record.outbox]) for record in simulation.records]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_accounts_that_stay_open_commit_the_rows_of_accounts_put_back_each_time(steps: Any) -> None:
    quick = [changes(steps, make) for make in (PlainCalculator, CompiledCalculator)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenAccounts, "prepare", lambda *_: False)
        slow = [changes(steps, make) for make in (PlainCalculator, CompiledCalculator)]
    assert quick[0] == slow[0]
    assert quick[1] == slow[1]
    assert [rows for rows, _ in quick[0]] == [rows for rows, _ in quick[1]]


def counted(patch: pytest.MonkeyPatch, module: Any, name: str, calls: list[int]) -> None:
    real: Callable[..., Any] = getattr(module, name)

    def counting(*args: Any) -> Any:
        calls[0] += 1
        return real(*args)

    patch.setattr(module, name, counting)


@pytest.mark.parametrize("pay_from", ["wallet", "external"])
def test_a_thousand_purchases_look_at_no_more_buckets_each_than_ten(
    calculator: MakeCalculator, pay_from: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [0]
    counted(monkeypatch, deduction_order, "deduction_order", calls)
    counted(monkeypatch, roll_forward, "_of_bucket", calls)
    each = []
    for grants in (10, 1_000):
        simulation = Simulation(MONTH, calculator(), keep_history=False)
        steps = [opened(), top_up("1000000", "p"), *[buy("A", f"g{n}", pay_from=pay_from) for n in range(grants)]]
        calls[0] = 0
        simulation.feed(encode(steps))
        each.append(calls[0] / grants)
    assert each[1] < each[0] + 20  # the logarithm of a thousand, and one pass at the end of the batch


def test_a_roll_over_a_thousand_buckets_that_end_together_looks_at_each_a_few_times(
    calculator: MakeCalculator, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulation = Simulation(MONTH, calculator(), keep_history=False)
    simulation.feed(encode([opened(), *[buy("A", f"g{n}") for n in range(1_000)]]))
    calls = [0]
    counted(monkeypatch, roll_forward, "_of_bucket", calls)
    document = simulation.document(parse_time_us("2027-01-10T00:00:00Z"))
    assert {bucket["status"] for bucket in document["accounts"]["a"]["buckets"]} == {"expired"}
    assert calls[0] < 10_000


def test_an_event_that_empties_a_bucket_copies_only_the_buckets_that_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(MONTH, CompiledCalculator(), keep_history=False)
    simulation.feed(encode([opened(), top_up("1", "p"), *[buy("A", f"g{n:03}") for n in range(100)]]))
    made = [0]
    real = account.Bucket.__init__

    def counting(self: Any, *args: Any, **named: Any) -> None:
        made[0] += 1
        real(self, *args, **named)

    monkeypatch.setattr(account.Bucket, "__init__", counting)
    simulation.feed(encode([use(150, "03 10:00", id=f"u{n}") for n in range(67)]))
    monkeypatch.undo()
    document = simulation.document()
    found = document["accounts"]["a"]
    assert {bucket["remaining"] for bucket in found["buckets"]} == {"0"}
    assert found["wallet"] == "-52"  # 50 of 10,050 tokens at 1.06
    assert made[0] <= 3 * 67
