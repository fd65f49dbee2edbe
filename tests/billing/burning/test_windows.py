"""Windows (docs/reference/plans.md, "Windows"): examples, and a property test against a recount of all burns."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

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
from burn_cases import Case, check_case
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation

from billing.burning.windows import burned_micro
from schemas.times import HOUR_US, parse_time_us
from schemas.topics import RATED_TOPIC
from schemas.units import parse_micro

PAYG = "pay_as_you_go"
FIVE = {"kind": "rolling", "hours": 5, "cap": "10"}
WEEK = {"kind": "fixed", "every": "week", "cap": "10"}
MONTH = {"kind": "fixed", "every": "month", "cap": "10"}
LONG = {"kind": "days", "days": 90}


def capped(name: str, *windows: dict[str, Any], amount: str = "1000", price: str = "1060.00", **rest: Any) -> Any:
    return plan(name, amount, price, windows=list(windows), **{"cycle": LONG} | rest)


CASES = [
    Case("the crossing event is split, the rest is overage", [capped("A", FIVE, overage=PAYG)],
         [buy("A", "G"), use(7), use(7, "02 11:00")], {"G/1": "990 active"}, wallet="-4.24", revenue="14"),
    Case("block absorbs what a window leaves", [capped("A", FIVE)],
         [buy("A", "G"), use(14)], {"G/1": "990 active"}, absorbed="4", absorbed_amount="4.24", revenue="10"),
    Case("what is exactly five hours old is released", [capped("A", FIVE)],
         [buy("A", "G"), use(10), use(3, "02 15:00")], {"G/1": "987 active"}, revenue="13"),
    Case("what is a microsecond younger is not", [capped("A", FIVE)],
         [buy("A", "G"), use(10, "02 10:00:00.000001"), use(3, "02 15:00")],
         {"G/1": "990 active"}, absorbed="3", absorbed_amount="3.18", revenue="10"),
    Case("late usage counts at its own time", [capped("A", FIVE)],
         [buy("A", "G"), use(10, "02 20:00"), use(10, "02 14:59"), use(1, "02 20:30"), use(2, "02 19:00")],
         {"G/1": "980 active"}, absorbed="3", absorbed_amount="3.18", revenue="20"),
    Case("the excess goes to another plan", [capped("A", FIVE, priority=1), plan("B")],
         [buy("A", "A"), buy("B", "B"), use(25)], {"A/1": "990 active", "B/1": "85 active"}, revenue="25"),
    Case("not to another grant of the plan", [capped("A", FIVE), plan("B", priority=200)],
         [buy("A", "A1"), buy("A", "A2"), buy("B", "B"), use(25)],
         {"A1/1": "990 active", "A2/1": "1000 active", "B/1": "85 active"}, revenue="25"),
    Case("several at once: the tightest caps",
         [capped("A", FIVE, {"kind": "rolling", "hours": 1, "cap": "4"},
                 {"kind": "rolling", "hours": 24, "cap": "12"})],
         [buy("A", "G"), use(6), use(6, "02 11:30"), use(6, "02 13:00"), use(6, "02 17:00")],
         {"G/1": "988 active"}, absorbed="12", absorbed_amount="12.72", revenue="12"),
    # 2 November 2026 is a Monday
    Case("a week begins on Monday 00:00 of the zone", [capped("A", WEEK)],
         [buy("A", "G"), use(10, "08 23:59:59.999999"), use(3, "09 00:00"), use(9, "15 23:00")],
         {"G/1": "980 active"}, absorbed="2", absorbed_amount="2.12", revenue="20"),
    Case("a week of another zone", [capped("A", WEEK, cycle=LONG | {"timezone": "UTC"})],
         [buy("A", "G"), use(10, "08 20:00"), use(3, "09 07:59"), use(9, "09 08:00")],
         {"G/1": "981 active"}, absorbed="3", absorbed_amount="3.18", revenue="19"),
    Case("usage later in a fixed week counts for late usage before it", [capped("A", WEEK)],
         [buy("A", "G"), use(10, "08 10:00"), use(3, "03 10:00")],
         {"G/1": "990 active"}, absorbed="3", absorbed_amount="3.18", revenue="10"),
    Case("a month begins on the day of the cycle", [capped("A", MONTH)],
         [buy("A", "G"), use(10, "02 10:00"), use(3, "2026-12-01 23:59"), use(7, "2026-12-02 00:00")],
         {"G/1": "983 active"}, absorbed="3", absorbed_amount="3.18", revenue="17"),
    Case("a month that lacks the day begins on its last", [capped("A", MONTH)],
         [opened("b"), buy("A", "G", "2026-12-31 09:00"), use(10, "2027-01-30 10:00"), use(4, "2027-01-31 00:00"),
          use(7, "2027-02-27 23:59"), use(8, "2027-02-28 00:00")],
         {"G/1": "972 active"}, absorbed="1", absorbed_amount="1.06", revenue="28"),
    Case("a change within the cycle begins no month", [capped("A", MONTH, cycle={"kind": "subscription_month"})],
         [subscribe("A", at="02 00:00"), use(10, "11 00:00"),
          subscription("changed", "17 00:00", plan="A", effective="now"), use(3, "18 00:00"),
          use(4, "2026-12-02 00:00")],
         {"S/1/1": "990 cancelled", "S/1/2": "500 active", "S/2/1": "996 active"},
         absorbed="3", absorbed_amount="3.18", revenue="14", breakage="490"),
    Case("nor where cycles are days",
         [capped("A", MONTH, cycle={"kind": "days", "days": 20}, amount="100", price="106.00")],
         [subscribe("A", at="02 00:00"), use(10, "03 00:00"),
          subscription("changed", "12 00:00", plan="A", effective="now"), use(3, "13 00:00")],
         {"S/1/1": "90 cancelled", "S/1/2": "50 active"}, absorbed="3", absorbed_amount="3.18", revenue="10",
         breakage="40"),
    Case("a refund moves no month", [capped("A", MONTH, cycle={"kind": "subscription_month"})],
         [buy("A", "H", "01 09:00"), use(10, "01 10:00"), buy("A", "G", "02 09:00"),
          line("package.refunded.v1", "a", "20 12:00", {"grant_id": "G", "reason": "r"}), use(4, "19 10:00")],
         {"G/1": "996 active", "H/1": "990 active"}, revenue="14"),
    Case("a calendar month begins on the first", [capped("A", MONTH, cycle={"kind": "calendar_month"})],
         [buy("A", "G"), use(12, "30 23:59")], {"G/1": "990 active"}, absorbed="2", absorbed_amount="2.12",
         revenue="10"),
    Case("windows count standard tokens, not credits",
         [capped("A", {"kind": "rolling", "hours": 5, "cap": "1"}, buckets=[
             {"unit": "CREDIT", "amount": "100", "kind": "periodic", "fee_share": "0.5", "priority": 1},
             {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "fee_share": "0.5"}], price="212.00")],
         [buy("A", "G"), use(100, model="credit"), use(3)],
         {"G/1": "50 active", "G/2": "99 active"}, absorbed="2", absorbed_amount="2.12", revenue="51"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_windows_leave(case: Case, calculator: MakeCalculator) -> None:
    check_case(case, calculator)


WINDOWS = [
    {"kind": "rolling", "hours": 1, "cap": "8"},
    {"kind": "rolling", "hours": 5, "cap": "20.5"},
    {"kind": "rolling", "hours": 30, "cap": "60"},
    {"kind": "fixed", "every": "week", "cap": "90"},
    {"kind": "fixed", "every": "month", "cap": "200"},
]
ZONE = ZoneInfo("Asia/Kathmandu")  # UTC+05:45: local midnight is not on a full hour of UTC
START = datetime(2026, 11, 2, 1, 0, tzinfo=UTC)


def same_window(window: dict[str, Any], now_us: int, then_us: int) -> bool:
    """Return True if a burn at ``then_us`` counts for usage at ``now_us``, computed independently of the rule."""
    if window["kind"] == "rolling":
        return now_us - window["hours"] * HOUR_US < then_us <= now_us
    now, then = (datetime.fromtimestamp(us // 1_000_000, UTC).astimezone(ZONE).date() for us in (now_us, then_us))
    if window["every"] == "week":
        return now.isocalendar()[:2] == then.isocalendar()[:2]
    a_day = timedelta(days=1)  # the cycle begins on the 2nd
    return (now - a_day).replace(day=1) == (then - a_day).replace(day=1)


MINUTES = st.integers(0, 34 * 24 * 60) | st.sampled_from([60, 61, 360, 361, 362, 1860, 8580, 8595, 8600, 42555])


@settings(max_examples=60, deadline=None)
@given(
    usage=st.lists(st.tuples(MINUTES, st.integers(1, 30)), min_size=1, max_size=60),
    chosen=st.lists(st.sampled_from(WINDOWS), min_size=1, max_size=3, unique_by=repr),
    per_commit=st.integers(1, 20),
)
def test_windows_are_what_a_recount_says(
    calculator: MakeCalculator, usage: list[tuple[int, int]], chosen: list[dict[str, Any]], per_commit: int
) -> None:
    """In any order of arrival within 35 days, each event burns exactly what a recount of all earlier burns leaves."""
    entry = capped("A", *chosen, cycle=LONG | {"timezone": ZONE.key}, overage=PAYG)
    times = [(START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ") for minutes, _ in usage]
    steps = [opened(), buy("A", "G", "02 09:00")]
    steps += [use(tokens) | {"time": at} for at, (_, tokens) in zip(times, usage, strict=True)]
    simulation = RecordedSimulation(catalog(entry), calculator(), lines_per_commit=per_commit)
    simulation.feed(encode(steps))
    burned: list[tuple[int, int]] = []
    lines = [rated for event in simulation.published(RATED_TOPIC) for rated in event["data"]["events"]]
    left_micro = parse_micro("1000")
    for at, (_, tokens), rated in zip(times, usage, lines, strict=True):
        now_us = parse_time_us(at)
        rooms = [
            parse_micro(window["cap"]) - sum(micro for then_us, micro in burned if same_window(window, now_us, then_us))
            for window in chosen
        ]
        expected = max(0, min(parse_micro(str(tokens)), left_micro, *rooms))
        found = sum(parse_micro(bucket["standard_tokens"]) for bucket in rated["burned"])
        assert found == expected
        burned.append((now_us, found))
        left_micro -= found
        assert parse_micro(rated["standard_tokens"]) - found == parse_micro(str(tokens)) - expected


def test_burns_are_kept_by_the_hour_and_dropped_when_no_window_reaches_them(calculator: MakeCalculator) -> None:
    entry = capped("A", FIVE, cycle={"kind": "once"})
    steps = [opened(), buy("A", "G"), use(1), use(2), use(3, "02 10:59:59.999999"), use(1, "02 11:00")]
    simulation = RecordedSimulation(catalog(entry), calculator())
    simulation.feed(encode(steps))
    account = simulation.calculator.account("a")
    assert account is not None
    hour = parse_time_us(clock("02 10:00")) // HOUR_US
    assert account.extras.burns == {
        "A": {
            str(hour): "6000000 0:3000000 3599999999:3000000",
            str(hour + 1): "1000000 0:1000000",
        }
    }
    assert burned_micro(account.extras.burns["A"], hour * HOUR_US, hour * HOUR_US) == 3_000_000
    simulation.feed(encode([use(1, "2026-12-07 14:00", id="x"), use(1, "2026-12-07 16:00", id="y")]))
    account = simulation.calculator.account("a")
    assert account is not None
    assert next(iter(account.extras.burns["A"])) == str(hour + 1)
    simulation.feed(encode([use(1, "2027-01-30 10:00", id="z")]))
    account = simulation.calculator.account("a")
    assert account is not None
    assert len(account.extras.burns["A"]) == 1
