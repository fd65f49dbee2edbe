"""Cycles, windows and quotas where sellers of such plans have gone wrong elsewhere, each with its right value."""

import pytest
from billing_samples import (
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
    use,
)
from recorded_simulation import RecordedSimulation

from billing.burning.window_status import window_statuses
from billing.catalog.model import Cycle
from billing.packages.cycles import cycle_at, cycle_start_us
from schemas.times import HOUR_US, format_time_us, parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC

YEAR = {"kind": "years", "years": 1}
MONTHLY = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "every": "month"}


def run(make: MakeCalculator, entries: list[object], steps: list[object], as_of: str | None = None) -> object:
    simulation = RecordedSimulation(catalog(*entries), make())  # type: ignore[arg-type]
    simulation.feed(encode([opened(at="2026-01-01 00:00"), *steps]))  # type: ignore[list-item]
    document = simulation.document(None if as_of is None else parse_time_us(clock(as_of)))
    return simulation, document["accounts"]["a"], document


def starts(cycle: Cycle, first: str, number: int) -> list[str]:
    first_us = parse_time_us(first)
    return [format_time_us(cycle_start_us(cycle, first_us, one))[:10] for one in range(1, number + 1)]


@pytest.mark.parametrize(
    ("cycle", "first", "expected"),
    [
        (Cycle("subscription_month", "UTC"), "2023-01-31T00:00:00Z", ["2023-01-31", "2023-02-28", "2023-03-31"]),
        (Cycle("months", "UTC", length=1), "2024-01-30T00:00:00Z", ["2024-01-30", "2024-02-29", "2024-03-30"]),
        (Cycle("months", "UTC", length=3), "2025-11-30T00:00:00Z", ["2025-11-30", "2026-02-28", "2026-05-30"]),
        (Cycle("months", "UTC", length=6), "2025-08-31T00:00:00Z", ["2025-08-31", "2026-02-28", "2026-08-31"]),
        (Cycle("years", "UTC", length=1), "2024-02-29T00:00:00Z", ["2024-02-29", "2025-02-28", "2026-02-28"]),
        (Cycle("weeks", "UTC", length=2), "2026-12-24T00:00:00Z", ["2026-12-24", "2027-01-07", "2027-01-21"]),
    ],
)
def test_cycles_on_a_clamped_day_follow_without_gap_or_overlap(cycle: Cycle, first: str, expected: list[str]) -> None:
    """Each time has the same cycle whenever it is asked for: found from the time itself, and from a month before it."""
    assert starts(cycle, first, 3) == expected
    first_us = parse_time_us(first)
    for number in range(2, 60):
        begins_us = cycle_start_us(cycle, first_us, number)
        assert cycle_at(cycle, first_us, begins_us) == number
        assert cycle_at(cycle, first_us, begins_us - 1) == number - 1


def test_a_year_begun_on_a_months_last_day_is_paid_once(calculator: MakeCalculator) -> None:
    entries = [plan("year", price="106.00", cycle=YEAR, buckets=[MONTHLY])]
    _, account, document = run(calculator, entries, [subscribe("year", at="2026-03-31 00:00")], "2027-03-30 23:59")
    assert document["ledger"]["trial_balance"]["cash"] == "106"
    april = next(bucket for bucket in account["buckets"] if bucket["grant_id"] == "S/1/2")
    assert (april["valid_from"], april["valid_until"]) == ("2026-04-29T16:00:00Z", "2026-05-30T16:00:00Z")


def test_a_cycle_begun_on_the_31st_goes_on_after_february(calculator: MakeCalculator) -> None:
    entries = [plan("month", cycle={"kind": "subscription_month"})]
    _, account, _ = run(calculator, entries, [subscribe("month", at="2027-01-31 00:00")], "2027-05-01 00:00")
    assert [bucket["valid_from"][5:10] for bucket in account["buckets"]] == ["01-30", "02-27", "03-30", "04-29"]


def test_a_pack_that_is_carried_over_outlives_a_plan_that_is_not(calculator: MakeCalculator) -> None:
    """A cycle of the subscription begins with its quota, and what is left of the pack is still there."""
    carried = {"unit": "STD_TOKEN", "amount": "50", "kind": "total", "priority": 200, "carry_over_cycles": 2}
    entries = [
        plan("token", cycle={"kind": "subscription_month"}),
        plan("pack", price="53.00", cycle={"kind": "subscription_month"}, buckets=[carried]),
    ]
    steps = [subscribe("token", at="2026-01-05 00:00"), buy("pack", "P", "2026-01-05 00:00")]
    steps += [use(120, "2026-01-20 00:00"), use(110, "2026-02-05 00:00:01")]
    _, account, _ = run(calculator, entries, steps)
    left = {bucket["grant_id"]: bucket["remaining"] for bucket in account["buckets"]}
    assert left == {"S/1/1": "0", "S/2/1": "0", "P/1": "20"}
    assert account["absorbed"] == "0"


def test_what_is_granted_again_expires_by_its_own_begin(calculator: MakeCalculator) -> None:
    """Not by that of the subscription: the third month's quota is there until the third month ends."""
    entries = [plan("month", cycle={"kind": "subscription_month"}, expiry_alert_days=[3])]
    simulation, account, _ = run(calculator, entries, [subscribe("month", at="2026-01-10 00:00")], "2026-04-09 23:59")
    third = next(bucket for bucket in account["buckets"] if bucket["grant_id"] == "S/3/1")
    assert (third["status"], third["remaining"]) == ("active", "100")
    told = [one for one in simulation.published(ACCOUNT_EVENT_TOPIC) if one["type"] == "expiry.near.v1"]
    assert [one["data"]["grant_id"] for one in told] == ["S/1/1", "S/2/1", "S/3/1"]


def window_end(simulation: RecordedSimulation, at: str) -> tuple[str | None, str]:
    account = simulation.calculator.account("a")
    assert account is not None
    plan_of = simulation.catalog.plans_by_key().__getitem__
    (status,) = window_statuses(account, parse_time_us(clock(at)), plan_of)
    ends = None if status.ends_us is None else format_time_us(status.ends_us)
    return ends, str(status.left_micro // 10**6)


def test_the_end_of_a_week_from_first_use_does_not_move_while_it_is_used(calculator: MakeCalculator) -> None:
    week = {"kind": "from_first_use", "hours": 168, "cap": "50"}
    entries = [plan("A", "1000", "1060.00", cycle={"kind": "days", "days": 90}, windows=[week])]
    steps = [buy("A", "G", "2026-11-01 00:00")]
    seen = []
    for day, tokens in ((2, 10), (4, 20), (6, 25), (9, 1)):
        steps.append(use(tokens, f"2026-11-{day:02} 09:30"))
        simulation, account, _ = run(calculator, entries, list(steps))
        seen.append((*window_end(simulation, f"2026-11-{day:02} 09:31"), account["absorbed"]))
    assert seen == [
        ("2026-11-09T01:30:00Z", "40", "0"),
        ("2026-11-09T01:30:00Z", "20", "0"),
        ("2026-11-09T01:30:00Z", "0", "5"),
        ("2026-11-16T01:30:00Z", "49", "5"),
    ]


def test_a_window_of_five_hours_ends_within_five_hours_and_begins_unused(calculator: MakeCalculator) -> None:
    five = {"kind": "from_first_use", "hours": 5, "cap": "50"}
    entries = [plan("A", "1000", "1060.00", cycle={"kind": "days", "days": 90}, windows=[five])]
    steps = [buy("A", "G", "2026-11-01 00:00"), use(50, "2026-11-02 03:05"), use(1, "2026-11-02 08:08:34")]
    simulation, account, _ = run(calculator, entries, steps)
    assert account["absorbed"] == "0"
    ends, left = window_end(simulation, "2026-11-02 08:26")
    assert (ends, left) == ("2026-11-02T05:08:34Z", "49")
    assert parse_time_us(str(ends)) - parse_time_us(clock("2026-11-02 08:08:34")) == 5 * HOUR_US


@pytest.mark.parametrize("kind", ["bucket", "window"])
def test_a_quota_a_day_is_new_at_local_midnight_and_only_then(calculator: MakeCalculator, kind: str) -> None:
    """07:47 in China is the day before in UTC; usage in the first hours of a day resets nothing a second time."""
    month = {"kind": "subscription_month", "timezone": "Asia/Shanghai"}
    daily = {"unit": "STD_TOKEN", "amount": "10", "kind": "periodic", "every": "day"}
    window = {"kind": "fixed", "every": "day", "cap": "10"}
    entries = [
        plan("A", cycle=month, buckets=[daily]) if kind == "bucket" else plan("A", cycle=month, windows=[window])
    ]
    steps = [subscribe("A", at="2026-09-01 00:00"), use(12, "2026-09-08 23:00"), use(8, "2026-09-09 00:00")]
    steps += [use(3, "2026-09-09 07:47"), use(3, "2026-09-09 08:30"), use(3, "2026-09-09 23:59:59")]
    _, account, _ = run(calculator, entries, steps)
    assert account["absorbed"] == str(2 + 1 + 3 + 3)


def test_a_part_of_a_month_is_a_share_of_the_whole_month(calculator: MakeCalculator) -> None:
    """After an upgrade in the first, short cycle too: the denominator is the month, not what is left of it."""
    parts = {"fee": "true", "quota": "true"}
    entries = [
        plan("small", "310", "31.00", cycle={"kind": "calendar_month"}, proration=parts),
        plan("large", "3100", "310.00", cycle={"kind": "calendar_month"}, proration=parts),
    ]
    steps = [subscribe("small", at="2026-05-21 00:00")]
    steps += [subscription("changed", "2026-05-31 00:00", plan="large", effective="now")]
    _, account, document = run(calculator, entries, steps, "2026-05-31 00:00")
    assert [bucket["amount"] for bucket in account["buckets"]] == ["110", "100"]
    assert document["ledger"]["trial_balance"]["cash"] == "20"  # 11 - 1 + 10


def test_a_refund_after_four_months_of_a_year_gives_eight_back(calculator: MakeCalculator) -> None:
    entries = [plan("year", price="1272.00", cycle=YEAR, buckets=[MONTHLY])]
    refund = line("package.refunded.v1", "a", "2026-05-01 00:00", {"grant_id": "S/1", "reason": "r"})
    steps = [subscribe("year", at="2026-01-01 00:00"), refund]
    _, _, document = run(calculator, entries, steps, "2026-05-03 00:00")
    # April's grace is not over at the refund, so its quota of 106.00 may still be used or paid back
    assert document["ledger"]["trial_balance"]["cash"] == "318"
