"""Portions: quota granted anew every day, week or month within a cycle, and first cycles that are prorated."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from billing_samples import (
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    encode,
    line,
    opened,
    plan,
    simulate,
    subscribe,
    subscription,
    top_up,
    use,
)
from hypothesis import given
from hypothesis import strategies as st
from recorded_simulation import RecordedSimulation

from billing.catalog.model import Cycle, Plan, PlanBucket
from billing.catalog.portion_counts import most_portions
from billing.packages.cycles import cycle_start_us
from billing.packages.portions import Portion, portions_of, spread
from schemas.currencies import minor_unit_pico
from schemas.times import DAY_US, parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC
from schemas.units import parse_pico

FEN_PICO = minor_unit_pico("CNY")
YEAR = {"kind": "years", "years": 1, "timezone": "Asia/Shanghai"}
MONTHLY = {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "every": "month"}
CATALOG = catalog(
    plan("year", price="106.00", cycle=YEAR, buckets=[MONTHLY]),
    plan("bigger", price="212.00", cycle=YEAR, buckets=[MONTHLY | {"amount": "300"}]),
    plan("half", price="63.60", cycle={"kind": "months", "months": 6}, buckets=[MONTHLY]),
    plan("rolls", price="1272.00", cycle=YEAR, buckets=[MONTHLY | {"carry_over_cycles": 1}], overage="pay_as_you_go"),
    plan(
        "both",
        price="2544.00",
        cycle=YEAR,
        buckets=[MONTHLY | {"fee_share": "0.5"}, {"unit": "REQUEST", "amount": "12", "kind": "total",
                                                  "fee_share": "0.5", "priority": 200}],
    ),
    plan("daily", price="31.80", cycle={"kind": "calendar_month"}, buckets=[MONTHLY | {"every": "day"}]),
    plan("weekly", price="53.00", cycle={"kind": "weeks", "weeks": 4}, buckets=[MONTHLY | {"every": "week"}]),
    plan("part", "310", "31.00", cycle={"kind": "calendar_month"}, proration={"fee": "true", "quota": "true"}),
    plan("part-big", "620", "62.00", cycle={"kind": "calendar_month"}, proration={"fee": "true", "quota": "true"}),
    plan("fee-only", "310", "31.00", cycle={"kind": "calendar_month"}, proration={"fee": "true"}),
    plan("day", "10", "1.06", cycle={"kind": "day"}, overage="pay_as_you_go"),
)  # fmt: skip


class Run:
    """A finished simulation: its document, its buckets and its account events."""

    def __init__(self, make: MakeCalculator, steps: list[Line], as_of: str | None = None) -> None:
        simulation = RecordedSimulation(CATALOG, make())
        simulation.feed(encode([opened(at="2026-01-01 00:00"), *steps]))
        self.document = simulation.document(None if as_of is None else parse_time_us(clock(as_of)))
        self.account = self.document["accounts"]["a"]
        self.buckets = {bucket["grant_id"]: bucket for bucket in self.account["buckets"]}
        self.told = simulation.published(ACCOUNT_EVENT_TOPIC)
        assert self.document["ledger"]["sum"] == "0"

    def left(self, *statuses: str) -> dict[str, str]:
        found = {name: one["remaining"] for name, one in self.buckets.items() if one["status"] in statuses}
        return dict(sorted(found.items(), key=lambda item: [int(part) for part in item[0].split("/")[1:]]))

    def balance(self, name: str) -> str:
        found: str = self.document["ledger"]["trial_balance"].get(name, "0")
        return found

    def events(self, type_name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.told if event["type"] == type_name]


def test_a_yearly_plan_grants_each_month_and_is_paid_once_a_year(calculator: MakeCalculator) -> None:
    steps = [top_up("1000", "p", "2027-03-01 00:00"), subscribe("year", at="2027-03-01 00:00", pay_from="wallet")]
    run = Run(calculator, steps, "2028-03-01 12:00")
    assert run.account["wallet"] == "788"
    assert run.left("active") == {"S/1/12": "100", "S/2/1": "100"}  # the grace of the last month is not over
    assert Run(calculator, steps, "2028-03-02 12:00").left("active") == {"S/2/1": "100"}
    starts = [bucket["valid_from"] for bucket in run.buckets.values() if bucket["status"] != "pending"]
    assert sorted(starts)[:3] == ["2027-02-28T16:00:00Z", "2027-03-31T16:00:00Z", "2027-04-30T16:00:00Z"]
    assert sorted(starts)[-2:] == ["2028-01-31T16:00:00Z", "2028-02-29T16:00:00Z"]
    assert {bucket["amount"] for bucket in run.buckets.values()} == {"100"}
    assert [one["valid_from"] for one in run.events("subscription.renewed.v1")] == ["2028-02-29T16:00:00Z"]


def test_each_month_earns_and_expires_its_own_part_of_the_fee(calculator: MakeCalculator) -> None:
    """100.00 net are 8.34 for the first four months and 8.33 for the others."""
    steps = [subscribe("year", at="2026-03-01 00:00"), use(50, "2026-03-10 10:00"), use(100, "2026-07-10 10:00")]
    run = Run(calculator, steps, "2026-08-02 12:00")
    assert run.left("expired", "used_up") == {"S/1/1": "50", "S/1/2": "100", "S/1/3": "100", "S/1/4": "100",
                                              "S/1/5": "0"}  # fmt: skip
    assert (run.document["revenue_net"], run.document["breakage"]) == ("12.5", "29.19")
    assert run.balance("contract_liability") == "-58.31"
    over = Run(calculator, [*steps, subscription("cancelled", "2026-08-01 00:00")], "2027-03-02 12:00")
    assert over.balance("contract_liability") == "0"
    assert over.document["breakage"] == "87.5"


def test_usage_burns_the_portion_of_its_own_time(calculator: MakeCalculator) -> None:
    steps = [subscribe("year", at="2026-01-31 09:00"), use(7, "2026-03-31 00:00"), use(5, "2026-03-30 23:59")]
    run = Run(calculator, steps)
    assert run.left("active") == {"S/1/2": "95", "S/1/3": "93"}
    assert run.buckets["S/1/2"]["valid_from"] == "2026-02-27T16:00:00Z"


def test_the_29th_of_february_comes_back(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("year", at="2028-02-29 09:00")], "2032-03-01 00:00")
    starts = [run.buckets[f"S/{cycle}/1"]["valid_from"] for cycle in range(1, 6)]
    assert starts == ["2028-02-29T01:00:00Z", "2029-02-27T16:00:00Z", "2030-02-27T16:00:00Z", "2031-02-27T16:00:00Z",
                      "2032-02-28T16:00:00Z"]  # fmt: skip
    assert run.buckets["S/2/2"]["valid_from"] == "2029-03-28T16:00:00Z"
    assert run.buckets["S/4/12"]["valid_until"] == "2032-02-28T16:00:00Z"


def test_the_buckets_of_a_cycle_are_numbered_through(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("both", at="2026-03-01 00:00"), use(103, "2026-04-02 00:00")])
    assert (run.buckets["S/1/12"]["unit"], run.buckets["S/1/13"]["unit"]) == ("STD_TOKEN", "REQUEST")
    assert (run.buckets["S/1/2"]["remaining"], run.buckets["S/1/13"]["remaining"]) == ("0", "11.970874")
    assert run.document["revenue_net"] == "102.9126"


def test_a_quota_a_day_ends_at_local_midnight(calculator: MakeCalculator) -> None:
    steps = [subscribe("daily", at="2026-11-10 15:00"), use(130, "10 23:59:59"), use(40, "11 00:00")]
    run = Run(calculator, steps, "2026-11-12 10:00")
    assert len(run.buckets) == 21
    assert run.left("active", "used_up") == {"S/1/1": "0", "S/1/2": "60", "S/1/3": "100"}
    assert run.account["absorbed"] == "30"
    assert len(Run(calculator, steps, "2026-12-01 00:00").buckets) == 21 + 31


def test_a_quota_a_week_of_four_weeks(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("weekly", at="2026-11-04 15:00")], "2026-12-02 00:00")
    starts = [run.buckets[f"S/{n}"]["valid_from"] for n in ("1/1", "1/2", "1/3", "1/4", "2/1")]
    assert starts == ["2026-11-04T07:00:00Z", "2026-11-10T16:00:00Z", "2026-11-17T16:00:00Z", "2026-11-24T16:00:00Z",
                      "2026-12-01T16:00:00Z"]  # fmt: skip


def test_what_is_left_of_a_month_is_carried_over_to_the_next(calculator: MakeCalculator) -> None:
    steps = [subscribe("rolls", at="2026-01-31 00:00"), use(60, "2026-02-10 00:00"), use(130, "2026-02-28 00:00:01")]
    run = Run(calculator, steps, "2026-03-02 00:00")
    assert run.left("active", "used_up") == {"S/1/1": "0", "S/1/2": "10"}
    run = Run(calculator, steps[:2], "2026-03-02 00:00")
    assert run.buckets["S/1/1"]["valid_until"] == "2026-03-30T16:00:00Z"
    assert run.left("active") == {"S/1/1": "40", "S/1/2": "100"}
    last = Run(calculator, [steps[0], subscription("cancelled", "2026-02-01 00:00")], "2027-02-02 00:00")
    assert last.buckets["S/1/12"]["valid_until"] == "2027-02-27T16:00:00Z"


def test_a_refund_of_the_year_pays_the_months_to_come_back(calculator: MakeCalculator) -> None:
    steps = [top_up("106", "p", "2026-03-01 00:00"), subscribe("year", at="2026-03-01 00:00", pay_from="wallet")]
    refund = line("package.refunded.v1", "a", "2026-06-10 00:00", {"grant_id": "S/1", "reason": "r"})
    run = Run(calculator, [*steps, use(50, "2026-06-02 00:00"), refund], "2026-06-12 00:00")
    # 8.33 x 8 months and half of 8.34 are left of 100.00 net: 106.00 x 70.81 / 100.00
    assert run.account["wallet"] == "75.06"
    assert run.balance("contract_liability") == "0"
    assert len(run.left("refunded")) == 9
    assert run.events("refund.paid.v1")[0]["amount"] == "75.06"


def test_one_month_of_the_year_may_be_refunded(calculator: MakeCalculator) -> None:
    steps = [subscribe("year", at="2026-03-01 00:00")]
    refund = line("package.refunded.v1", "a", "2026-06-10 00:00", {"grant_id": "S/1/5", "reason": "r"})
    run = Run(calculator, [*steps, refund, use(1, "2026-07-03 00:00")], "2026-07-03 00:00")
    assert run.events("refund.paid.v1")[0]["amount"] == "8.83"
    assert run.account["wallet"] == "-1.06"  # no bucket matches in that month
    assert "S/1/6" in run.left("pending")


def test_an_immediate_cancellation_ends_the_months_to_come(calculator: MakeCalculator) -> None:
    steps = [subscribe("year", at="2026-03-01 00:00"), subscription("cancelled", "2026-04-10 00:00", immediately=True)]
    run = Run(calculator, [*steps, use(5, "2026-04-09 00:00"), use(3, "2026-05-05 00:00")], "2026-05-06 00:00")
    assert (len(run.left("cancelled")), run.account["wallet"]) == (11, "-3.18")
    assert run.balance("contract_liability") == "0"
    assert (run.document["breakage"], run.left("cancelled")["S/1/2"]) == ("99.583", "95")


def test_a_change_in_the_year_prorates_the_month_and_keeps_its_days(calculator: MakeCalculator) -> None:
    steps = [subscribe("year", at="2026-03-01 00:00"), use(50, "2026-04-05 00:00")]
    steps += [subscription("changed", "2026-04-16 00:00", plan="bigger", effective="now")]
    run = Run(calculator, steps, "2026-04-20 00:00")
    # 319 of 365 days are left: 185.28 for the rest; half of April's 300, then 300 a month
    assert run.buckets["S/1/13"]["amount"] == "150"
    assert {run.buckets[f"S/1/{n}"]["amount"] for n in range(14, 24)} == {"300"}
    assert run.buckets["S/1/14"]["valid_from"] == "2026-04-30T16:00:00Z"
    assert run.buckets["S/1/23"]["valid_until"] == "2027-02-28T16:00:00Z"
    assert len(run.left("cancelled")) == 11
    # credit by time: 106.00 x 319 / 365 = 92.64 (87.40 net), and 87.49 net are unearned
    assert run.balance("cash") == "198.64"
    late = Run(calculator, [*steps, use(200, "2026-04-21 00:00")], "2026-05-02 00:00")
    assert late.left("active", "used_up") == {"S/1/13": "0", "S/1/14": "300"}


def test_a_change_at_the_cycles_end_goes_on_by_months(calculator: MakeCalculator) -> None:
    steps = [subscribe("half", at="2026-01-31 00:00"), subscription("changed", "2026-02-01 00:00", plan="year")]
    run = Run(calculator, steps, "2026-08-01 00:00")
    assert run.buckets["S/2/1"]["valid_from"] == "2026-07-30T16:00:00Z"
    assert run.buckets["S/2/12"]["valid_until"] == "2027-07-30T16:00:00Z"


def test_suspended_months_go_on_ending(calculator: MakeCalculator) -> None:
    steps = [subscribe("year", at="2026-03-01 00:00"), subscription("suspended", "2026-03-10 00:00")]
    steps += [subscription("resumed", "2026-05-10 00:00"), use(4, "2026-05-11 00:00")]
    run = Run(calculator, steps)
    assert run.left("expired") == {"S/1/1": "100", "S/1/2": "100"}
    assert run.left("active") == {"S/1/3": "96"}
    assert len(run.left("pending")) == 9


def test_a_month_may_be_given_away(calculator: MakeCalculator) -> None:
    steps = [opened("b", "2026-01-01 00:00"), subscribe("rolls", at="2026-01-31 00:00")]
    give = line("package.transferred.v1", "a", "2026-02-10 00:00", {"grant_id": "S/1/1", "amount": "30", "to": "b"})
    run = Run(calculator, [*steps, give], "2026-03-02 00:00")
    (given,) = run.document["accounts"]["b"]["buckets"]
    assert (given["remaining"], given["valid_until"]) == ("30", "2026-03-27T16:00:00Z")  # a month from its end on
    assert run.left("active")["S/1/1"] == "70"


def test_a_package_of_a_year_has_portions_too(calculator: MakeCalculator) -> None:
    run = Run(calculator, [buy("year", "G", "2026-01-31 00:00"), use(7, "2026-03-05 00:00")])
    assert run.left("active") == {"G/2": "93"}


def test_a_first_calendar_month_costs_and_grants_its_part(calculator: MakeCalculator) -> None:
    steps = [top_up("100", "p", "2026-01-16 12:00"), subscribe("part", at="2026-01-16 12:00", pay_from="wallet")]
    run = Run(calculator, steps, "2026-02-01 01:00")
    assert run.left("active") == {"S/1/1": "155", "S/2/1": "310"}
    assert run.account["wallet"] == "53.5"  # 100 - 15.50 - 31.00
    bought = Run(calculator, [buy("part", "G", "2026-01-16 12:00")])
    assert (bought.left("active"), bought.balance("cash")) == ({"G/1": "155"}, "15.5")


def test_a_calendar_month_from_its_first_second_is_whole(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("part", at="2026-02-01 00:00")])
    assert (run.left("active"), run.balance("cash")) == ({"S/1/1": "310"}, "31")


def test_fee_and_quota_are_prorated_apart(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("fee-only", at="2026-01-16 12:00")])
    assert (run.left("active"), run.balance("cash")) == ({"S/1/1": "310"}, "15.5")


def test_a_wallet_pays_a_part_that_it_could_not_pay_whole(calculator: MakeCalculator) -> None:
    steps = [top_up("20", "p", "2026-01-16 12:00"), subscribe("part", at="2026-01-16 12:00", pay_from="wallet")]
    run = Run(calculator, [*steps, top_up("30", "q", "2026-02-10 00:00")], "2026-02-10 00:00")
    assert run.left("active") == {"S/2/1": "310"}  # a later cycle is whole, and paid whole
    assert run.account["wallet"] == "3.5"


def test_a_refund_of_a_prorated_month_gives_no_more_than_was_paid(calculator: MakeCalculator) -> None:
    steps = [buy("part", "G", "2026-01-16 12:00")]
    refund = line("package.refunded.v1", "a", "2026-01-17 00:00", {"grant_id": "G", "reason": "r"})
    run = Run(calculator, [*steps, refund], "2026-01-19 00:00")
    assert (run.balance("cash"), run.balance("contract_liability")) == ("0", "0")


def test_a_change_in_a_prorated_month_prorates_by_the_whole_month(calculator: MakeCalculator) -> None:
    steps = [subscribe("part", at="2026-01-16 12:00")]
    steps += [subscription("changed", "2026-01-24 06:00", plan="part-big", effective="now")]
    run = Run(calculator, steps, "2026-01-24 06:00")
    # a quarter of the month is left: 155 of 620 for 15.50; 7.75 of 15.50 come back
    assert run.buckets["S/1/2"]["amount"] == "155"
    assert run.balance("cash") == "23.25"


def test_a_cycle_of_a_day_begins_at_midnight(calculator: MakeCalculator) -> None:
    steps = [subscribe("day", at="10 15:00"), use(12, "10 20:00"), use(3, "11 00:00"), use(4, "12 09:00")]
    run = Run(calculator, steps)
    assert [run.buckets[f"S/{n}/1"]["remaining"] for n in (1, 2, 3)] == ["0", "7", "6"]
    assert run.account["wallet"] == "-2.12"


@given(
    kind=st.sampled_from(["years", "months", "weeks", "days", "calendar_month", "subscription_month", "day"]),
    length=st.integers(1, 5),
    every=st.sampled_from(["day", "week", "month"]),
    zone=st.sampled_from(["Asia/Shanghai", "America/New_York", "America/Havana", "Australia/Lord_Howe"]),
    first=st.datetimes(datetime(2005, 1, 1), datetime(2035, 12, 31)),
    number=st.integers(1, 4),
    late=st.integers(0, 10**6),
)
def test_portions_cover_their_cycle_and_their_parts_its_fee(
    kind: str, length: int, every: str, zone: str, first: datetime, number: int, late: int
) -> None:
    first_us = (first.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    cycle = Cycle(kind, zone, length * 11, 0 if kind in ("days", "day") or "_" in kind else length)
    rule = PlanBucket("STD_TOKEN", 1, "periodic", 1, 0, {}, 10**6, every)
    plan = Plan("p", 1, {}, 0, "CNY", 0, cycle, (rule,))
    starts_us, ends_us = (cycle_start_us(cycle, first_us, number + ahead) for ahead in (0, 1))
    from_us = starts_us + (ends_us - starts_us - 1) * late // 10**6
    anchor_us = first_us if kind in ("years", "months", "subscription_month") else starts_us
    portions = portions_of(plan, rule, anchor_us, from_us, ends_us, prorated=bool(late))
    assert [one.from_us for one in portions] == [from_us, *(one.until_us for one in portions[:-1])]
    assert portions[-1].until_us == ends_us
    assert 1 <= len(portions) <= most_portions(cycle, every)
    assert all(0 < one.until_us - one.from_us <= 32 * DAY_US for one in portions)
    assert all(0 < one.part <= one.whole for one in portions)
    assert all((one.part, one.whole) == (1, 1) for one in portions[1:])
    parts = spread(parse_pico("99.99"), portions, FEN_PICO)
    assert sum(parts) == parse_pico("99.99")
    assert max(parts[1:], default=0) - min(parts[1:], default=0) <= FEN_PICO


def test_the_fen_that_are_left_go_to_the_earlier_portions() -> None:
    year = [Portion(month, month + 1) for month in range(12)]
    assert spread(parse_pico("100.00"), year, FEN_PICO) == [parse_pico("8.34")] * 4 + [parse_pico("8.33")] * 8
    assert spread(parse_pico("0.05"), year, FEN_PICO) == [FEN_PICO] * 5 + [0] * 7
    half = [Portion(0, 1, 15, 30), *year[1:]]
    assert spread(parse_pico("11.50"), half, FEN_PICO) == [parse_pico("0.50")] + [parse_pico("1.00")] * 11


def test_simulation_of_a_thousand_days_keeps_its_sums(calculator: MakeCalculator) -> None:
    document = simulate(
        calculator(), CATALOG, [opened(at="2026-01-01 00:00"), subscribe("daily", at="2026-01-10 00:00")],
        parse_time_us(clock("2026-12-03 00:00")),
    )  # fmt: skip
    assert document["ledger"]["sum"] == "0"
    assert len(document["accounts"]["a"]["buckets"]) == 22 + 28 + 31 + 30 + 31 + 30 + 31 + 31 + 30 + 31 + 30 + 31


def test_the_room_for_buckets_counts_the_portions(calculator: MakeCalculator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("billing.accounts.account.MAX_BUCKETS", 80)
    run = Run(calculator, [buy("daily", f"G{n}", "2026-01-01 00:00") for n in range(3)])
    assert [one["reason"] for one in run.events("command.rejected.v1")] == ["too_many_buckets"]
    assert len(run.buckets) == 62
