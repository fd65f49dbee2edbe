"""Windows of other units than standard tokens, windows that begin with a first use, daily windows, and their alerts."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billing_samples import MakeCalculator, buy, catalog, clock, encode, line, opened, plan, simulate, subscribe, use
from burn_cases import Case, check_case
from hypothesis import given, settings
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation

from billing.burning.window_status import window_statuses
from billing.catalog import Catalog
from billing.commits.output_documents import balance_object, window_object
from schemas.times import HOUR_US, parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC, RATED_TOPIC
from schemas.units import parse_micro

LONG = {"kind": "days", "days": 90}
REQUESTS = [{"unit": "REQUEST", "amount": "100", "kind": "periodic"}]
CREDITS = [{"unit": "CREDIT", "amount": "100", "kind": "periodic"}]
FIVE = {"kind": "rolling", "hours": 5, "cap": "2"}
FIRST = {"kind": "from_first_use", "hours": 5, "cap": "10"}
DAY = {"kind": "fixed", "every": "day", "cap": "10"}


def capped(name: str, *windows: dict[str, Any], amount: str = "1000", price: str = "1060.00", **rest: Any) -> Any:
    return plan(name, amount, price, windows=list(windows), **{"cycle": LONG} | rest)


def requests(name: str, *windows: dict[str, Any], **rest: Any) -> Any:
    return capped(name, *windows, buckets=REQUESTS, price="106.00", **rest)


CASES = [
    Case("a cap without a unit counts the unit of the plan's buckets", [requests("A", FIVE)],
         [buy("A", "G"), use(7), use(7), use(7, "02 11:00"), use(7, "02 15:00")],
         {"G/1": "97 active"}, absorbed="7", absorbed_amount="7.42", revenue="3"),
    Case("a cap of requests on a plan of credits counts both units apart",
         [capped("A", {**FIVE, "cap": "15"}, {**FIVE, "unit": "REQUEST"}, buckets=CREDITS, price="106.00")],
         [buy("A", "G"), use(10, model="credit"), use(10, model="credit"), use(10, model="credit")],
         {"G/1": "90 active"}, absorbed="10", absorbed_amount="10.6", revenue="10"),
    Case("what a window of credits leaves is split exactly", [capped("A", {**FIVE, "cap": "7"}, buckets=CREDITS,
         price="106.00", overage="pay_as_you_go")],
         [buy("A", "G"), use(20, model="credit")], {"G/1": "93 active"}, wallet="-6.36", revenue="13"),
    Case("an event of several requests is split at the cap", [requests("A", {**FIVE, "cap": "3"})],
         [buy("A", "G"), use(10, model="credit", data={"usage": {"input": 10, "requests": 4}})],
         {"G/1": "97 active"}, absorbed="2.5", absorbed_amount="2.65", revenue="3"),
    Case("money is capped too", [capped("A", {"kind": "rolling", "hours": 5, "cap": "5.30"}, price="106.00",
         buckets=[{"unit": "CNY", "amount": "106", "kind": "total"}])],
         [buy("A", "G"), use(10)], {"G/1": "100.7 active"}, absorbed="5", absorbed_amount="5.3", revenue="5"),
    Case("requests beyond the cap go to another plan",
         [requests("A", FIVE, ), plan("B", priority=200)],
         [buy("A", "A"), buy("B", "B"), use(5), use(5), use(5)],
         {"A/1": "98 active", "B/1": "95 active"}, revenue="7"),
    Case("a plan of tokens may cap requests", [capped("A", {**FIVE, "unit": "REQUEST"})],
         [buy("A", "G"), use(5), use(5), use(5)], {"G/1": "990 active"}, absorbed="5", absorbed_amount="5.3",
         revenue="10"),
    Case("members may be capped in requests", [plan("A", buckets=REQUESTS, members={"cap": "2", "unit": "REQUEST"})],
         [buy("A", "G"), *[use(5, data={"member": "x"}) for _ in range(3)], use(5, data={"member": "y"})],
         {"G/1": "97 active"}, absorbed="5", absorbed_amount="5.3", revenue="3"),
    Case("a window begins with its first use and lasts its hours", [capped("A", FIRST)],
         [buy("A", "G"), use(4, "02 10:30"), use(10, "02 15:29:59.999999"), use(10, "02 15:30"), use(1, "02 20:29")],
         {"G/1": "980 active"}, absorbed="5", absorbed_amount="5.3", revenue="20"),
    Case("the next window begins with the next use, not when the one before ended", [capped("A", FIRST)],
         [buy("A", "G"), use(10, "02 10:00"), use(10, "02 17:00"), use(1, "02 21:59"), use(5, "02 22:00")],
         {"G/1": "975 active"}, absorbed="1", absorbed_amount="1.06", revenue="25"),
    Case("usage that the plan does not pay opens no window", [capped("A", FIRST, scope={"model": "m"})],
         [buy("A", "G"), use(3, "02 09:30", model="half"), use(10, "02 10:00"), use(4, "02 14:45")],
         {"G/1": "990 active"}, wallet="-3.18", absorbed="4", absorbed_amount="4.24", revenue="13"),
    Case("late usage from before the window opens one of its own", [capped("A", FIRST)],
         [buy("A", "G"), use(10, "02 20:00"), use(10, "02 17:00"), use(3, "02 19:59"), use(2, "02 20:30"),
          use(1, "03 01:00")],
         {"G/1": "979 active"}, absorbed="5", absorbed_amount="5.3", revenue="21"),
    Case("late usage within the open window is in it", [capped("A", FIRST)],
         [buy("A", "G"), use(6, "02 10:00"), use(6, "02 14:00"), use(6, "02 12:00")],
         {"G/1": "990 active"}, absorbed="8", absorbed_amount="8.48", revenue="10"),
    Case("a daily window ends at local midnight", [capped("A", DAY)],
         [buy("A", "G"), use(10, "02 23:59:59.999999"), use(12, "03 00:00")],
         {"G/1": "980 active"}, absorbed="2", absorbed_amount="2.12", revenue="20"),
    Case("a daily window of another zone", [capped("A", DAY, cycle=LONG | {"timezone": "UTC"})],
         [buy("A", "G"), use(10, "03 07:00"), use(2, "03 07:59"), use(3, "03 08:00")],
         {"G/1": "987 active"}, absorbed="2", absorbed_amount="2.12", revenue="13"),
    Case("windows of a yearly plan begin on its day, in each month's portion too",
         [plan("A", price="1272.00", cycle={"kind": "years", "years": 1}, buckets=[
             {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "every": "month"}],
             windows=[{"kind": "fixed", "every": "month", "cap": "10"}])],
         [buy("A", "G", "2027-01-31 09:00"), use(10, "2027-02-27 10:00"), use(10, "2027-02-28 10:00"),
          use(1, "2027-03-30 10:00"), use(10, "2027-03-31 10:00")],
         absorbed="1", absorbed_amount="1.06"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES[:-1], ids=lambda case: case.name)
def test_what_windows_leave(case: Case, calculator: MakeCalculator) -> None:
    check_case(case, calculator)


def test_windows_of_a_yearly_plan_begin_on_its_day(calculator: MakeCalculator) -> None:
    case = CASES[-1]
    account = simulate(calculator(), catalog(*case.plans), [opened(), *case.steps])["accounts"]["a"]
    left = {bucket["grant_id"]: bucket["remaining"] for bucket in account["buckets"][:12]}
    assert account["absorbed"] == "1"
    assert (left["G/1"], left["G/2"], left["G/3"]) == ("90", "90", "90")


CODING_PLAN = plan(
    "lite",
    price="40.00",
    cycle={"kind": "subscription_month"},
    buckets=[{"unit": "REQUEST", "amount": "180", "kind": "periodic"}],
    windows=[{"kind": "rolling", "hours": 5, "cap": "12"}],
)


def test_a_coding_plan_burns_twelve_requests_in_five_hours(calculator: MakeCalculator) -> None:
    steps = [opened(), subscribe("lite", at="01 00:00")]
    steps += [use(1400, f"02 09:{minute:02}") for minute in range(13)]
    account = simulate(calculator(), catalog(CODING_PLAN), steps)["accounts"]["a"]
    assert [bucket["remaining"] for bucket in account["buckets"]] == ["168"]
    assert (account["absorbed"], account["wallet"]) == ("1400", "0")


def test_what_is_absorbed_of_requests_is_told_in_requests(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(CODING_PLAN), calculator())
    steps = [opened(), subscribe("lite", at="01 00:00")]
    steps += [use(1, f"02 09:{minute:02}") for minute in range(13)]
    simulation.feed(encode(steps))
    lines = [rated for event in simulation.published(RATED_TOPIC) for rated in event["data"]["events"]]
    assert [one.get("absorbed_unit") for one in lines] == [None] * 12 + [{"unit": "REQUEST", "amount": "1"}]
    account = simulation.calculator.account("a")
    assert account is not None
    assert balance_object(account)["absorbed_units"] == {"REQUEST": "1"}


@pytest.mark.parametrize("overage", ["block", {"mode": "pay_as_you_go", "cap": "1.59"}])
def test_of_a_capped_overage_the_rest_is_absorbed_in_requests(calculator: MakeCalculator, overage: Any) -> None:
    simulation = RecordedSimulation(catalog(requests("A", FIVE, overage=overage)), calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(3), use(3), use(3)]))
    account = simulation.calculator.account("a")
    assert account is not None
    absorbed_micro = 1_000_000 if overage == "block" else 500_000
    assert account.extras.absorbed_units == {"REQUEST": absorbed_micro}


def told(simulation: RecordedSimulation) -> list[dict[str, Any]]:
    return [one["data"] for one in simulation.published(ACCOUNT_EVENT_TOPIC) if one["type"] == "window.reached.v1"]


def test_a_share_of_a_window_is_reported_when_it_is_reached_and_again_in_the_next(calculator: MakeCalculator) -> None:
    entry = capped("A", FIRST | {"alerts": ["0.8", "1.0"]})
    simulation = RecordedSimulation(catalog(entry), calculator())
    steps = [buy("A", "G"), use(7), use(1, "02 10:30"), use(9, "02 11:00"), use(1, "02 12:00"), use(8, "02 15:00")]
    simulation.feed(encode([opened(), *steps]))
    assert [(one["threshold"], one["used"], one["ends"]) for one in told(simulation)] == [
        ("0.8", "8", "2026-11-02T07:00:00Z"),
        ("1", "10", "2026-11-02T07:00:00Z"),
        ("0.8", "8", "2026-11-02T12:00:00Z"),
    ]
    assert told(simulation)[0]["begins"] == "2026-11-02T02:00:00Z"


def test_a_rolling_window_tells_when_its_oldest_burn_leaves_it(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(requests("A", FIVE | {"alerts": ["1"]})), calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(1), use(1, "02 11:30"), use(1, "02 12:00")]))
    assert [(one["unit"], one["used"], one["begins"], one["ends"]) for one in told(simulation)] == [
        ("REQUEST", "2", None, "2026-11-02T07:00:00Z")
    ]


def statuses(simulation: RecordedSimulation, book: Catalog, at: str) -> list[dict[str, Any]]:
    account = simulation.calculator.account("a")
    assert account is not None
    plan_of = book.plans_by_key().__getitem__
    return [window_object(one) for one in window_statuses(account, parse_time_us(clock(at)), plan_of)]


def test_owners_see_what_windows_leave_and_when_they_end(calculator: MakeCalculator) -> None:
    book = catalog(capped("A", FIRST, {"kind": "rolling", "hours": 5, "cap": "6"}, DAY))
    simulation = RecordedSimulation(book, calculator())
    simulation.feed(encode([opened(), buy("A", "G"), use(4, "02 10:00"), use(1, "02 11:00")]))
    seen = [(one["left"], one["begins"], one["ends"]) for one in statuses(simulation, book, "02 12:00")]
    assert seen == [
        ("5", "2026-11-02T02:00:00Z", "2026-11-02T07:00:00Z"),
        ("1", None, "2026-11-02T07:00:00Z"),
        ("5", "2026-11-01T16:00:00Z", "2026-11-02T16:00:00Z"),
    ]
    seen = [(one["left"], one["begins"], one["ends"]) for one in statuses(simulation, book, "02 15:30")]
    assert seen[:2] == [("10", None, None), ("5", None, "2026-11-02T08:00:00Z")]
    assert [one["left"] for one in statuses(simulation, book, "03 15:30")] == ["10", "6", "10"]


START = datetime(2026, 11, 2, 1, 0, tzinfo=UTC)


@settings(max_examples=60, deadline=None)
@given(
    usage=st.lists(st.tuples(st.integers(0, 3 * 24 * 60), st.integers(1, 9)), min_size=1, max_size=40),
    hours=st.sampled_from([1, 5, 24]),
    per_commit=st.integers(1, 20),
)
def test_windows_of_a_first_use_are_those_of_a_plain_recount(
    calculator: MakeCalculator, usage: list[tuple[int, int]], hours: int, per_commit: int
) -> None:
    """Usage in any order of arrival burns what a list of windows, kept apart, leaves for it."""
    entry = capped("A", {"kind": "from_first_use", "hours": hours, "cap": "10"}, overage="pay_as_you_go")
    times = [(START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ") for minutes, _ in usage]
    steps = [opened(), buy("A", "G", "02 09:00")]
    steps += [use(tokens) | {"time": at} for at, (_, tokens) in zip(times, usage, strict=True)]
    simulation = RecordedSimulation(catalog(entry), calculator(), lines_per_commit=per_commit)
    simulation.feed(encode(steps))
    windows: list[list[int]] = []  # start, end, used
    lines = [rated for event in simulation.published(RATED_TOPIC) for rated in event["data"]["events"]]
    for at, (_, tokens), rated in zip(times, usage, lines, strict=True):
        now_us = parse_time_us(at)
        found = next((one for one in windows if one[0] <= now_us < one[1]), None)
        if found is None:
            later = [one[0] for one in windows if one[0] > now_us]
            found = [now_us, min([now_us + hours * HOUR_US, *later]), 0]
            windows.append(found)
        expected = min(tokens, 10 - found[2])
        found[2] += expected
        assert sum(parse_micro(one["standard_tokens"]) for one in rated["burned"]) == parse_micro(str(expected))


def test_windows_of_a_first_use_are_forgotten_when_no_usage_can_reach_them(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(capped("A", FIRST, cycle={"kind": "once"})), calculator())
    steps = [use(1, f"2026-11-{day:02} 10:00", id=f"u{day}") for day in range(2, 30)]
    simulation.feed(encode([opened(), buy("A", "G"), *steps, use(1, "2026-12-20 10:00", id="z")]))
    account = simulation.calculator.account("a")
    assert account is not None
    (starts,) = account.extras.openings.values()
    assert starts[0] == parse_time_us(clock("2026-11-15 10:00"))


def test_a_void_gives_the_window_back(calculator: MakeCalculator) -> None:
    simulation = RecordedSimulation(catalog(requests("A", FIVE)), calculator())
    void = line("usage.voided.v1", "a", "02 12:00", {"source": "test", "id": "u", "reason": "r"})
    simulation.feed(encode([opened(), buy("A", "G"), use(1, id="u"), use(1, id="v"), use(1, id="w"), void]))
    account = simulation.calculator.account("a")
    assert account is not None
    assert (account.buckets[0].remaining_micro, account.absorbed_micro) == (98_000_000, 0)
    assert account.extras.absorbed_units == {}
