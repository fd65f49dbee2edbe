"""Cases that users of other billing systems reported, with the value that is right here."""

from typing import Any

import pytest
from billing_samples import (
    BOOK,
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
    subscription,
    top_up,
    use,
)
from recorded_simulation import RecordedSimulation

from schemas.times import parse_time_us

MONTH = {"kind": "calendar_month"}
BY_TIME = {"refund": "by_time"}
ROLLING = [{"unit": "STD_TOKEN", "amount": "40", "kind": "periodic", "carry_over_cycles": 1}]
DEAL = {"kind": "commitment", "amount": "106"}
ROW = {"model": "d", "per_million": {"input": "10600000"}, "periods": "deal"}
COMMITTED = BOOK | {"periods": {"deal": DEAL}, "rows": [*BOOK["rows"], ROW]}
PLANS = (
    plan("time", price="31.80", cycle=MONTH, cancellation=BY_TIME, overage="pay_as_you_go"),
    plan("owe", "1500", "10.60", cycle=MONTH, overage="owe"),
    plan("rolling", buckets=ROLLING, price="10.60", cycle=MONTH),
    plan("flat", "40", "10.60", cycle=MONTH, priority=50),
)


def end(
    calculator: MakeCalculator, steps: list[Line], as_of: str = "2026-12-20 00:00", *books: Any
) -> tuple[dict[str, Any], RecordedSimulation]:
    simulation = RecordedSimulation(catalog(*(books or (BOOK,)), *PLANS), calculator())
    simulation.feed(encode([opened(), *steps]))
    document = simulation.document(parse_time_us(clock(as_of)))
    assert document["ledger"]["sum"] == "0"
    return document, simulation


def test_a_fee_that_was_given_back_before_is_not_given_back_again(calculator: MakeCalculator) -> None:
    """https://github.com/getlago/lago-api/pull/738"""
    refund = line("package.refunded.v1", "a", "05 00:00", {"grant_id": "S/1", "reason": "r"})
    steps = [top_up("100", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet"), refund]
    document, _ = end(calculator, [*steps, subscription("cancelled", "16 00:00", immediately=True)])
    assert document["accounts"]["a"]["wallet"] == "100"


def test_a_cycle_that_was_not_paid_is_not_credited(calculator: MakeCalculator) -> None:
    """https://github.com/getlago/lago/issues/212"""
    steps = [top_up("31.8", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet")]
    document, _ = end(calculator, [*steps, subscription("cancelled", "2026-12-10 00:00", immediately=True)])
    assert document["accounts"]["a"]["wallet"] == "0"  # December was never paid


def test_usage_of_the_first_day_is_charged_when_the_plan_is_cancelled_that_day(calculator: MakeCalculator) -> None:
    """https://github.com/getlago/lago-api/pull/1863: half of the first of 30 days has passed."""
    steps = [top_up("100", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet")]
    steps += [use(110, "01 10:00"), subscription("cancelled", "01 12:00", immediately=True)]
    document, _ = end(calculator, steps)
    assert document["accounts"]["a"]["wallet"] == "57.6"  # 100 − 31.80 − 10 × 1.06: the quota was used up
    steps[2] = use(1, "01 10:00")
    document, _ = end(calculator, steps)
    assert document["accounts"]["a"]["wallet"] == "99.47"  # 31.80 × 29.5 ÷ 30 = 31.27, less than 99 of 100 tokens


def test_the_day_of_the_cancellation_is_counted_once(calculator: MakeCalculator) -> None:
    """https://github.com/getlago/lago-api/pull/5522: a credit was short by one day."""
    steps = [top_up("100", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet")]
    document, _ = end(calculator, [*steps, subscription("cancelled", "16 00:00", immediately=True)])
    assert document["accounts"]["a"]["wallet"] == "84.1"  # 15 of 30 days


def test_a_cancellation_at_the_start_gives_back_the_whole_fee(calculator: MakeCalculator) -> None:
    """https://github.com/killbill/killbill/issues/2068"""
    steps = [top_up("31.8", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet")]
    document, _ = end(calculator, [*steps, subscription("cancelled", "01 00:00", immediately=True)])
    assert document["accounts"]["a"]["wallet"] == "31.8"
    assert document["ledger"]["trial_balance"] == {"cash": "31.8", "customer_deposits": "-31.8"}


def test_an_end_with_the_term_prorates_nothing(calculator: MakeCalculator) -> None:
    """https://github.com/killbill/killbill/issues/698"""
    steps = [top_up("31.8", "p", "01 00:00"), subscribe("time", at="01 00:00", pay_from="wallet")]
    document, simulation = end(calculator, [*steps, subscription("cancelled", "16 00:00")])
    assert document["accounts"]["a"]["wallet"] == "0"
    assert not [e for e in simulation.published("account.events") if e["type"] == "refund.paid.v1"]


@pytest.mark.parametrize(("used", "charged"), [(0, "106"), (3, "74.2"), (10, None), (12, None)])
def test_what_is_missing_to_the_minimum_is_charged_also_without_usage(
    calculator: MakeCalculator, used: int, charged: str | None
) -> None:
    """https://github.com/getlago/lago-api/pull/1669 and https://github.com/flexprice/flexprice/pull/2000"""
    steps = [use(used, "05 00:00", model="d")] if used else []
    _, simulation = end(calculator, steps, "2026-12-02 00:00", COMMITTED)
    (ended,) = [e["data"] for e in simulation.published("account.events") if e["type"] == "commitment.ended.v1"]
    assert ended["charged"] == (charged or "0")


def test_usage_that_was_voided_does_not_count_towards_the_minimum(calculator: MakeCalculator) -> None:
    """https://github.com/openmeterio/openmeter/pull/2627"""
    void = line("usage.voided.v1", "a", "06 00:00", {"source": "test", "id": "u", "reason": "r"})
    document, _ = end(calculator, [use(12, "05 00:00", model="d", id="u"), void], "2026-12-02 00:00", COMMITTED)
    assert document["accounts"]["a"]["wallet"] == "-106"


def test_a_debt_is_taken_from_the_next_allowance_and_never_forgiven(calculator: MakeCalculator) -> None:
    """https://github.com/2witstudios/PageSpace/pull/1544: an allowance of 1,500 and a debt of 300 leave 1,200."""
    document, _ = end(calculator, [subscribe("owe", at="01 00:00"), use(1_800, "05 00:00")])
    assert [one["remaining"] for one in document["accounts"]["a"]["buckets"]] == ["0", "1200"]
    document, _ = end(calculator, [subscribe("owe", at="01 00:00"), use(4_000, "05 00:00")])
    assert document["accounts"]["a"]["owed"] == {"owe": "1000"}  # more than an allowance goes on to the cycle after


def test_what_a_package_carries_over_survives_the_cycle_of_a_subscription_without(calculator: MakeCalculator) -> None:
    """https://github.com/polarsource/polar/issues/10513"""
    steps = [subscribe("flat", at="01 00:00"), buy("rolling", "G", "02 00:00"), use(50, "05 00:00")]
    document, _ = end(calculator, steps)
    left = {one["grant_id"]: (one["remaining"], one["status"]) for one in document["accounts"]["a"]["buckets"]}
    assert left == {"S/1/1": ("0", "used_up"), "S/2/1": ("40", "active"), "G/1": ("30", "active")}
