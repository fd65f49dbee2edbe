"""Subscriptions: cycles, fees, unpaid renewals, cancellation, change, suspension, carry-over, first use, alerts."""

from typing import Any

import pytest
from billing_samples import (
    Line,
    MakeCalculator,
    buy,
    catalog,
    clock,
    closed,
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
from recorded_simulation import RecordedSimulation

from schemas.currencies import part_to_minor_unit
from schemas.times import parse_time_us
from schemas.topics import ACCOUNT_EVENT_TOPIC
from schemas.units import divide_half_even, parse_pico

DAYS_10 = {"kind": "days", "days": 10}
CATALOG = catalog(
    plan("A", cycle=DAYS_10),
    plan("B", "200", "212.00", cycle=DAYS_10),
    plan("C", "100", "106.00", cycle=DAYS_10, overage="pay_as_you_go", grace_hours=0),
    plan("month", cycle={"kind": "subscription_month"}),
    plan("ever", cycle={"kind": "once"}),
    plan("gratis", price="0", cycle=DAYS_10),
    plan(
        "carry",
        cycle=DAYS_10,
        buckets=[{"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over_cycles": 1}],
    ),
    plan(
        "month-carry",
        cycle={"kind": "subscription_month"},
        buckets=[{"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "carry_over_cycles": 1}],
    ),
    plan("lazy", activation="first_use"),
    plan("lazy-5", activation="first_use", activate_within_days=5),
    plan("told", cycle=DAYS_10, expiry_alert_days=[3, 1]),
    plan(
        "two",
        cycle=DAYS_10,
        buckets=[
            {"unit": "STD_TOKEN", "amount": "7", "kind": "periodic", "fee_share": "0.25"},
            {"unit": "STD_TOKEN", "amount": "11", "kind": "total", "fee_share": "0.75"},
        ],
    ),
)


class Run:
    """A finished simulation: its document, its buckets and its account events."""

    def __init__(self, make: MakeCalculator, steps: list[Line], as_of: str | None = None) -> None:
        simulation = RecordedSimulation(CATALOG, make())
        simulation.feed(encode([opened(), *steps]))
        self.document = simulation.document(None if as_of is None else parse_time_us(clock(as_of)))
        self.account = self.document["accounts"]["a"]
        self.buckets = {bucket["grant_id"]: bucket for bucket in self.account["buckets"]}
        self.told = simulation.published(ACCOUNT_EVENT_TOPIC)
        account = simulation.calculator.account("a")
        assert account is not None
        self.gift_pico = account.extras.gift_pico
        assert self.document["ledger"]["sum"] == "0"

    def left(self) -> dict[str, str]:
        return {name: bucket["remaining"] for name, bucket in self.buckets.items()}

    def statuses(self) -> dict[str, str]:
        return {name: bucket["status"] for name, bucket in self.buckets.items()}

    def events(self, type_name: str) -> list[dict[str, Any]]:
        return [event["data"] for event in self.told if event["type"] == type_name]

    def refusals(self) -> list[str]:
        return [data["reason"] for data in self.events("command.rejected.v1")]


def test_a_subscription_grants_each_cycle_when_it_begins(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("A", at="01 09:00"), use(30, "05 00:00"), use(40, "12 00:00")], "25 00:00")
    assert run.left() == {"S/1/1": "70", "S/2/1": "60", "S/3/1": "100"}
    assert run.statuses() == {"S/1/1": "expired", "S/2/1": "expired", "S/3/1": "active"}
    assert run.buckets["S/2/1"]["valid_from"] == "2026-11-11T01:00:00Z"
    assert run.buckets["S/2/1"]["valid_until"] == "2026-11-21T01:00:00Z"
    assert [event["cycle"] for event in run.events("subscription.renewed.v1")] == [2, 3]
    # 30 + 40 are used, 70 + 60 expired, 100 is still a liability; each fee of 106.00 is 100.00 net and 6.00 tax
    assert (run.document["revenue_net"], run.document["breakage"]) == ("70", "130")
    assert run.document["ledger"]["trial_balance"]["cash"] == "318"


def test_months_begin_at_midnight_on_the_day_of_the_first(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("month", at="2026-11-30 09:00")], "2027-04-02 00:00")
    starts = [bucket["valid_from"] for bucket in run.buckets.values()]
    assert starts == [
        "2026-11-30T01:00:00Z",
        "2026-12-29T16:00:00Z",
        "2027-01-29T16:00:00Z",
        "2027-02-27T16:00:00Z",
        "2027-03-29T16:00:00Z",
    ]


def test_late_usage_burns_the_cycle_of_its_own_time_within_grace(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 00:00"), use(10, "11 12:00"), use(5, "10 23:59"), use(1, "12 01:00")]
    run = Run(calculator, [*steps, use(7, "10 23:59")], "12 02:00")
    assert run.left() == {"S/1/1": "95", "S/2/1": "89"}
    assert run.account["absorbed"] == "7"  # after the grace the usage matches a bucket that has ended


def test_a_subscription_that_begins_later_is_pending(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("A", at="01 00:00", starts_at="05 00:00"), use(3, "04 00:00")], "04 00:00")
    assert run.statuses() == {"S/1/1": "pending"}
    assert run.account["wallet"] == "-3.18"


def test_a_subscription_that_began_in_the_past_grants_every_cycle_since(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("A", at="28 00:00", starts_at="01 00:00"), use(1, "28 01:00")])
    assert run.statuses() == {"S/1/1": "expired", "S/2/1": "expired", "S/3/1": "active"}
    assert run.left()["S/3/1"] == "99"


def test_an_unpaid_renewal_is_not_granted_until_a_top_up_pays_it(calculator: MakeCalculator) -> None:
    steps = [top_up("150", "p1", "01 00:00"), subscribe("A", at="01 00:00", pay_from="wallet")]
    steps += [use(2, "22 00:00"), top_up("60", "p2", "24 00:00"), top_up("10", "p3", "25 00:00"), use(3, "26 00:00")]
    run = Run(calculator, steps)
    assert run.left() == {"S/1/1": "100", "S/3/1": "97"}
    assert run.buckets["S/3/1"]["valid_from"] == "2026-11-20T16:00:00Z"  # start of the current cycle, not the top-up
    assert [event["cycle"] for event in run.events("renewal.unpaid.v1")] == [2, 3]
    assert {event["reason"] for event in run.events("renewal.unpaid.v1")} == {"renewal_unpaid"}
    assert [event["cycle"] for event in run.events("subscription.renewed.v1")] == [3]
    # 150 + 60 + 10, less two fees, less 2.12 for usage while no cycle was granted
    assert run.account["wallet"] == "5.88"


def test_a_credit_limit_pays_a_renewal(calculator: MakeCalculator) -> None:
    steps = [opened("b", payment="postpaid", credit_limit="250")]
    steps += [subscribe("A", at="01 00:00", account="b", pay_from="wallet")]
    simulation = RecordedSimulation(CATALOG, calculator())
    simulation.feed(encode(steps))
    account = simulation.document(parse_time_us(clock("28 00:00")))["accounts"]["b"]
    assert [bucket["grant_id"] for bucket in account["buckets"]] == ["S/1/1", "S/2/1"]
    assert account["wallet"] == "-212"


@pytest.mark.parametrize(
    ("at", "cancel_at", "cycles"), [("05 00:00", None, 1), ("05 00:00", "15 00:00", 2), ("15 00:00", "02 00:00", 2)]
)
def test_a_cancelled_subscription_ends_with_a_cycle(
    calculator: MakeCalculator, at: str, cancel_at: str | None, cycles: int
) -> None:
    steps = [subscribe("A", at="01 00:00"), subscription("cancelled", at, until=cancel_at)]
    run = Run(calculator, steps, "2026-12-30 00:00")
    assert len(run.buckets) == cycles
    assert [event["cycle"] for event in run.events("subscription.ended.v1")] == [cycles]


def test_a_cancelled_unpaid_subscription_ends_at_once(calculator: MakeCalculator) -> None:
    steps = [top_up("106", "p1", "01 00:00"), subscribe("A", at="01 00:00", pay_from="wallet")]
    steps += [subscription("cancelled", "13 00:00"), top_up("500", "p2", "14 00:00")]
    run = Run(calculator, steps, "28 00:00")
    assert list(run.buckets) == ["S/1/1"]
    assert run.account["wallet"] == "500"


def test_cancelled_immediately_ends_the_buckets_with_their_grace(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 00:00"), subscription("cancelled", "04 00:00", immediately=True)]
    steps += [use(5, "04 12:00"), use(7, "03 23:00")]
    run = Run(calculator, steps, "04 13:00")
    assert run.left() == {"S/1/1": "93"}
    assert run.buckets["S/1/1"]["valid_until"] == "2026-11-03T16:00:00Z"
    assert run.account["wallet"] == "-5.3"
    run = Run(calculator, steps, "28 00:00")
    assert run.statuses() == {"S/1/1": "cancelled"}
    assert run.document["breakage"] == "93"
    assert run.events("subscription.ended.v1") == [{"account": "a", "subscription_id": "S", "plan": "A", "cycle": 1}]


def test_a_change_at_the_cycles_end_moves_no_money_before(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 00:00"), subscription("changed", "04 00:00", plan="B")]
    run = Run(calculator, steps, "15 00:00")
    assert {name: bucket["amount"] for name, bucket in run.buckets.items()} == {"S/1/1": "100", "S/2/1": "200"}
    assert run.document["ledger"]["trial_balance"]["cash"] == "318"


def test_a_change_to_other_cycles_counts_them_from_its_own_begin(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 09:00"), subscription("changed", "04 00:00", plan="month")]
    run = Run(calculator, steps, "2026-12-20 00:00")
    starts = [bucket["valid_from"] for bucket in run.buckets.values()]
    assert starts == ["2026-11-01T01:00:00Z", "2026-11-11T01:00:00Z", "2026-12-10T16:00:00Z"]


def test_an_upgrade_now_shares_fee_and_quota_by_time(calculator: MakeCalculator) -> None:
    steps = [top_up("400", "p", "01 00:00"), subscribe("A", at="01 00:00", pay_from="wallet"), use(20, "02 00:00")]
    steps += [subscription("changed", "05 00:00", plan="B", effective="now"), use(30, "05 01:00"), use(1, "04 23:00")]
    run = Run(calculator, steps, "10 00:00")
    # Six of ten days are left: 63.60 of 106.00 is credited, 127.20 of 212.00 is charged for 120 of 200 tokens.
    assert run.account["wallet"] == "230.4"
    assert {name: bucket["amount"] for name, bucket in run.buckets.items()} == {"S/1/1": "100", "S/1/2": "120"}
    assert run.left() == {"S/1/1": "79", "S/1/2": "90"}
    assert run.statuses() == {"S/1/1": "cancelled", "S/1/2": "active"}
    # 20 tokens earn 1.00 each; the late token earns 0.25, because a liability of 20 is left for 80; 30 tokens earn 1.00
    # each; the rest of the old bucket expires.
    assert (run.document["revenue_net"], run.document["breakage"]) == ("50.25", "19.75")
    assert run.document["ledger"]["trial_balance"]["output_vat_pending"] == "-9.6"
    later = Run(calculator, steps, "12 00:00")
    assert later.buckets["S/2/1"]["amount"] == "200"


def test_a_downgrade_gives_back_no_more_than_what_was_not_used(calculator: MakeCalculator) -> None:
    steps = [subscribe("B", at="01 00:00"), use(190, "02 00:00")]
    run = Run(calculator, [*steps, subscription("changed", "03 00:00", plan="A", effective="now")], "03 00:00")
    # The credit by time is 169.60 (160.00 net), but only 10.00 is unearned: 10.00 + 0.60. The new plan costs 84.80.
    assert run.document["ledger"]["trial_balance"]["cash"] == "286.2"
    assert run.buckets["S/1/2"]["amount"] == "80"
    assert run.document["ledger"]["trial_balance"]["contract_liability"] == "-80"


@pytest.mark.parametrize(
    ("starts_at", "begins"),
    [
        (None, "2026-11-02T01:00:07Z"),
        ("02 09:00:07.9", "2026-11-02T01:00:07Z"),
        ("02 09:00:08.1", "2026-11-02T01:00:08.100000Z"),
        ("02 09:00:06.9", "2026-11-02T01:00:06.900000Z"),
    ],
)
def test_a_plan_covers_the_whole_second_in_which_it_was_sold(
    starts_at: str | None, begins: str, calculator: MakeCalculator
) -> None:
    given = {} if starts_at is None else {"starts_at": starts_at}
    steps = [subscribe("A", at="02 09:00:07.345678", **given), buy("A", "G", "02 09:00:07.345678", **given)]
    run = Run(calculator, [*steps, use(30, "02 09:00:07")], "02 12:00")
    assert {bucket["valid_from"] for bucket in run.buckets.values()} == {begins}
    assert sum(float(left) for left in run.left().values()) == (200 if begins > "2026-11-02T01:00:07Z" else 170)


@pytest.mark.parametrize("used", [8_100_000, 8_284_000, 9_999_999, 3_333_333])
def test_a_change_gives_back_what_a_refund_gives_back(used: int, calculator: MakeCalculator) -> None:
    """Both round the unused part of the fee to fen once: net part and tax rounded down apart would lose a fen."""
    book = catalog(plan("li", "10000000", "9.90"), plan("gratis", price="0.00"))
    steps = [subscribe("li", at="02 09:00"), use(used, "02 10:00", model="free")]
    given = []
    for step in (
        subscription("changed", "02 11:00", plan="gratis", effective="now"),
        line("package.refunded.v1", "a", "02 11:00", {"grant_id": "S/1", "reason": "r"}),
    ):
        document = simulate(calculator(), book, [opened(), *steps, step], parse_time_us(clock("08 00:00")))
        given.append(parse_pico("9.90") - parse_pico(document["ledger"]["trial_balance"]["cash"]))
        assert document["ledger"]["sum"] == "0"
    net_pico = parse_pico("9.34")
    unearned_pico = net_pico - divide_half_even(net_pico * used, 10_000_000)
    assert given == 2 * [part_to_minor_unit(parse_pico("9.90"), unearned_pico, net_pico, "CNY")]


def test_a_wallet_below_zero_pays_what_costs_nothing(calculator: MakeCalculator) -> None:
    """Cover a downgrade that credits money, and a free plan."""
    owed = use(10, "02 00:00", model="uncounted")
    steps = [top_up("212", "p1", "01 00:00"), subscribe("B", at="01 00:00", pay_from="wallet"), owed]
    run = Run(calculator, [*steps, subscription("changed", "03 00:00", plan="A", effective="now")], "03 00:00")
    assert run.account["wallet"] == "74.2"  # -10.60 + 169.60 - 84.80
    run = Run(calculator, [subscribe("gratis", at="01 00:00", pay_from="wallet"), owed], "12 00:00")
    assert (run.account["wallet"], run.left()) == ("-10.6", {"S/1/1": "100", "S/2/1": "100"})


def test_a_change_gives_gift_money_back_as_a_gift(calculator: MakeCalculator) -> None:
    """53 of the fee of 106 were gift money. 63.60 are credited for six of ten days, 31.80 of them as gift money."""
    steps = [top_up("53", "p", "01 00:00"), top_up("53", "q", "01 00:00", gift=True)]
    steps += [subscribe("A", at="01 00:00", pay_from="wallet")]
    free = Run(calculator, [*steps, subscription("changed", "05 00:00", plan="gratis", effective="now")], "05 00:00")
    assert (free.account["wallet"], free.gift_pico) == ("63.6", parse_pico("31.8"))
    # B costs 127.20 for the rest of the cycle. The gift money is spent first, and a full refund returns it.
    steps += [top_up("63.6", "r", "01 00:00"), subscription("changed", "05 00:00", plan="B", effective="now")]
    spent = Run(calculator, steps, "05 00:00")
    assert (spent.account["wallet"], spent.gift_pico) == ("0", 0)
    refund = line("package.refunded.v1", "a", "05 00:00", {"grant_id": "S/1/2", "reason": "七天无理由"})
    back = Run(calculator, [*steps, refund], "06 00:00")
    (paid,) = back.events("refund.paid.v1")
    assert (paid["amount"], paid["gift"], back.gift_pico) == ("127.2", "31.8", parse_pico("31.8"))


def test_a_second_change_credits_what_the_part_cost(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 00:00"), subscription("changed", "03 00:00", plan="B", effective="now")]
    steps += [subscription("changed", "07 00:00", plan="A", effective="now")]
    run = Run(calculator, steps, "07 00:00")
    # 106 - 84.80 + 169.60 (first change) - 84.80 + 42.40 (second change)
    assert run.document["ledger"]["trial_balance"]["cash"] == "148.4"
    assert {name: bucket["amount"] for name, bucket in run.buckets.items()} == {
        "S/1/1": "100",
        "S/1/2": "160",
        "S/1/3": "40",
    }


def test_an_unpaid_subscription_may_change_to_what_can_be_paid(calculator: MakeCalculator) -> None:
    steps = [top_up("320", "p1", "01 00:00"), subscribe("B", at="01 00:00", pay_from="wallet")]
    run = Run(calculator, [*steps, subscription("changed", "13 00:00", plan="A", effective="now")], "14 00:00")
    assert run.buckets["S/2/1"]["amount"] == "100"
    assert run.account["wallet"] == "2"


def test_suspended_buckets_match_nothing_and_go_on_ending(calculator: MakeCalculator) -> None:
    steps = [subscribe("A", at="01 00:00"), subscription("suspended", "02 00:00"), use(3, "03 00:00")]
    run = Run(calculator, steps, "15 00:00")
    assert run.statuses() == {"S/1/1": "expired"}  # no second cycle was granted
    assert run.account["wallet"] == "-3.18"
    run = Run(calculator, [*steps, subscription("resumed", "04 00:00"), use(4, "04 01:00")], "04 02:00")
    assert run.left() == {"S/1/1": "96"}
    run = Run(calculator, [*steps, subscription("resumed", "14 00:00"), use(4, "14 01:00")], "14 02:00")
    assert run.left() == {"S/1/1": "100", "S/2/1": "96"}
    assert Run(calculator, steps, "04 00:00").statuses() == {"S/1/1": "suspended"}


def test_a_suspended_bucket_that_is_used_up_matches_nothing_either(calculator: MakeCalculator) -> None:
    """Otherwise the plan of the suspended bucket would absorb usage during the suspension."""
    steps = [subscribe("A", at="01 00:00"), use(100, "01 12:00"), subscription("suspended", "02 00:00")]
    run = Run(calculator, [*steps, use(3, "03 00:00")], "03 01:00")
    assert (run.statuses(), run.account["wallet"], run.account["absorbed"]) == ({"S/1/1": "suspended"}, "-3.18", "0")
    refused = [line("package.refunded.v1", "a", "03 00:00", {"grant_id": "S/1", "reason": "asked"})]
    assert Run(calculator, [*steps, *refused]).refusals() == ["nothing_to_refund"]
    run = Run(calculator, [*steps, subscription("resumed", "04 00:00"), use(4, "04 01:00")], "04 02:00")
    assert (run.statuses(), run.account["wallet"], run.account["absorbed"]) == ({"S/1/1": "used_up"}, "0", "4")
    run = Run(calculator, steps, "15 00:00")
    assert (run.statuses(), run.events("bucket.ended.v1")) == ({"S/1/1": "used_up"}, [])


@pytest.mark.parametrize(
    "end",
    [
        subscription("cancelled", "03 00:00", immediately=True),
        subscription("changed", "03 00:00", plan="C", effective="now"),
    ],
)
def test_a_bucket_that_is_used_up_ends_with_the_others(calculator: MakeCalculator, end: Line) -> None:
    """Otherwise the plan that was left would absorb usage until the end of its cycle. C grants 80 tokens for 84.80."""
    steps = [subscribe("A", at="01 00:00"), use(100, "02 00:00"), end]
    run = Run(calculator, [*steps, use(85, "04 00:00"), use(2, "02 23:00")], "04 00:00")
    assert run.buckets["S/1/1"]["valid_until"] == "2026-11-02T16:00:00Z"
    assert run.statuses()["S/1/1"] == "used_up"
    of_wallet = {"cancelled": "-90.1", "changed": "-5.3"}[end["type"].split(".")[1]]
    assert (run.account["wallet"], run.account["absorbed"]) == (of_wallet, "2")


def test_a_closed_account_renews_nothing(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("A", at="01 00:00"), closed("05 00:00")], "28 00:00")
    assert run.statuses() == {"S/1/1": "expired"}


def test_carry_over_makes_a_bucket_valid_one_more_cycle(calculator: MakeCalculator) -> None:
    steps = [subscribe("carry", at="01 00:00"), use(30, "05 00:00"), use(1, "11 12:00"), use(80, "12 12:00")]
    run = Run(calculator, steps, "20 00:00")
    # What is left of the first cycle pays from the second one's first second on; both end then, and it began earlier.
    assert run.left() == {"S/1/1": "0", "S/2/1": "89"}
    assert run.buckets["S/1/1"]["valid_from"] == "2026-10-31T16:00:00Z"
    assert run.buckets["S/1/1"]["valid_until"] == "2026-11-20T16:00:00Z"
    assert [(event["grant_id"], event["remaining"]) for event in run.events("bucket.carried.v1")] == [("S/1/1", "69")]
    assert run.document["breakage"] == "0"


def test_carried_quota_pays_from_the_first_second_of_the_new_cycle(calculator: MakeCalculator) -> None:
    """140 of 50 + 100; before the grace of the old cycle is over, and after it, the same is left."""
    steps = [subscribe("carry", at="01 00:00"), use(50, "05 00:00"), use(140, "11 00:00:01")]
    during = Run(calculator, steps, "11 01:00")
    assert during.left() == {"S/1/1": "0", "S/2/1": "10"}
    assert (during.account["wallet"], during.account["absorbed"]) == ("0", "0")
    assert Run(calculator, [*steps[:2], use(140, "12 01:00")]).left() == during.left()
    unused = Run(calculator, steps[:2], "11 01:00")
    assert (unused.statuses()["S/1/1"], unused.buckets["S/1/1"]["valid_until"]) == ("active", "2026-11-20T16:00:00Z")
    assert unused.events("bucket.carried.v1") == []


def test_late_usage_of_the_old_cycle_burns_what_is_carried_on(calculator: MakeCalculator) -> None:
    steps = [subscribe("carry", at="01 00:00"), use(50, "05 00:00"), use(30, "11 12:00"), use(15, "10 12:00")]
    run = Run(calculator, steps, "12 12:00")
    assert run.left() == {"S/1/1": "5", "S/2/1": "100"}
    assert [event["remaining"] for event in run.events("bucket.carried.v1")] == ["5"]


@pytest.mark.parametrize("verb", ["cancelled", "refunded"])
def test_what_is_carried_on_and_ended_has_its_grace_from_then(calculator: MakeCalculator, verb: str) -> None:
    end = subscription("cancelled", "11 13:00", immediately=True)
    if verb == "refunded":
        end = line("package.refunded.v1", "a", "11 13:00", {"grant_id": "S/1", "reason": "r"})
    steps = [subscribe("carry", at="01 00:00"), use(10, "11 12:00"), end, use(0, "12 02:00"), use(5, "11 12:30")]
    run = Run(calculator, steps, "12 12:00")
    assert (run.left()["S/1/1"], run.account["absorbed"], run.account["wallet"]) == ("85", "0", "0")
    assert Run(calculator, steps, "12 13:00").statuses()["S/1/1"] == verb


def test_what_was_carried_lapses_once(calculator: MakeCalculator) -> None:
    run = Run(calculator, [buy("carry", "G", "01 00:00"), use(30, "05 00:00")], "2026-12-30 00:00")
    assert run.buckets["G/1"]["valid_until"] == "2026-11-20T16:00:00Z"
    assert (run.statuses(), run.document["breakage"]) == ({"G/1": "expired"}, "70")
    assert len(run.events("bucket.carried.v1")) == 1


def test_carried_months_end_where_the_subscriptions_month_ends(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("month-carry", at="2027-01-31 09:00")], "2027-03-20 00:00")
    assert run.buckets["S/1/1"]["valid_until"] == "2027-03-30T16:00:00Z"
    assert run.buckets["S/2/1"]["valid_until"] == "2027-03-30T16:00:00Z"


def test_a_package_may_begin_with_its_first_use(calculator: MakeCalculator) -> None:
    steps = [buy("lazy", "G", "01 00:00"), use(0, "03 00:00"), use(4, "09 10:00"), use(5, "16 09:59")]
    run = Run(calculator, steps, "16 10:00")
    assert run.left() == {"G/1": "91"}
    assert run.buckets["G/1"]["valid_from"] == "2026-11-09T02:00:00Z"
    assert run.buckets["G/1"]["valid_until"] == "2026-11-16T02:00:00Z"
    assert Run(calculator, steps, "18 00:00").statuses() == {"G/1": "expired"}
    waiting = Run(calculator, steps[:2], "2028-01-01 00:00").buckets["G/1"]
    assert (waiting["status"], waiting["valid_until"]) == ("pending", None)


def test_what_is_not_used_begins_on_its_last_day(calculator: MakeCalculator) -> None:
    run = Run(calculator, [buy("lazy-5", "G", "01 00:00")], "08 00:00")
    assert run.buckets["G/1"]["valid_from"] == "2026-11-05T16:00:00Z"
    assert run.statuses() == {"G/1": "active"}


def test_only_what_is_reached_begins(calculator: MakeCalculator) -> None:
    steps = [buy("A", "F", "01 00:00"), buy("lazy", "G", "01 00:00"), use(60, "02 00:00")]
    assert Run(calculator, steps).statuses() == {"F/1": "active", "G/1": "pending"}
    assert Run(calculator, [*steps, use(60, "02 01:00")]).statuses() == {"F/1": "used_up", "G/1": "active"}


def test_owners_are_told_before_a_bucket_ends_once_a_cycle(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("told", at="01 00:00"), use(5, "09 00:00"), use(5, "09 01:00")], "19 00:00")
    told = [(event["grant_id"], event["days"], event["remaining"]) for event in run.events("expiry.near.v1")]
    assert told == [("S/1/1", 3, "100"), ("S/1/1", 1, "90"), ("S/2/1", 3, "100")]


def test_an_empty_bucket_ends_without_a_word(calculator: MakeCalculator) -> None:
    run = Run(calculator, [buy("told", "G", "01 00:00"), use(100, "05 00:00")], "19 00:00")
    assert run.events("expiry.near.v1") == []


def test_a_low_wallet_is_told_once_until_it_is_filled(calculator: MakeCalculator) -> None:
    alert = line("wallet.alert_set.v1", "a", "01 01:00", {"below": "10"})
    steps = [top_up("12", "p1", "01 00:00"), alert, use(1, "01 02:00"), use(1, "01 03:00"), use(1, "01 04:00")]
    steps += [top_up("5", "p2", "02 00:00"), use(5, "02 01:00"), use(1, "02 02:00")]
    run = Run(calculator, steps)
    assert [event["wallet"] for event in run.events("wallet.low.v1")] == ["9.88", "8.52"]
    off = line("wallet.alert_set.v1", "a", "01 01:30", {})
    assert Run(calculator, [*steps[:2], off, *steps[2:]]).events("wallet.low.v1") == []


def test_a_renewal_may_empty_the_wallet_too(calculator: MakeCalculator) -> None:
    alert = line("wallet.alert_set.v1", "a", "01 01:00", {"below": "10"})
    steps = [top_up("220", "p1", "01 00:00"), alert, subscribe("A", at="01 02:00", pay_from="wallet")]
    run = Run(calculator, steps, "12 00:00")
    assert [event["wallet"] for event in run.events("wallet.low.v1")] == ["8"]


def test_total_buckets_of_a_subscription_are_granted_each_cycle_and_pay_last(calculator: MakeCalculator) -> None:
    run = Run(calculator, [subscribe("two", at="01 00:00"), use(9, "02 00:00")], "12 00:00")
    assert run.left() == {"S/1/1": "0", "S/1/2": "9", "S/2/1": "7", "S/2/2": "11"}


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([subscribe("nothing")], "unknown_plan"),
        ([subscribe("lazy")], "plan_not_renewable"),
        ([subscribe("A", pay_from="wallet")], "insufficient_funds"),
        ([subscribe("A"), subscribe("B")], "duplicate_subscription_id"),
        ([buy("A", "S/2"), subscribe("A")], "duplicate_subscription_id"),
        ([subscribe("A"), buy("A", "S/2")], "duplicate_grant_id"),
        ([subscribe("A", starts_at="1980-01-01 00:00")], "invalid_starts_at"),
        ([subscribe("A", starts_at="9950-01-01 00:00")], "invalid_starts_at"),
        ([subscription("cancelled", "03 00:00")], "unknown_subscription"),
        ([subscribe("A"), subscription("resumed", "03 00:00")], "subscription_not_suspended"),
        ([subscribe("A"), subscription("changed", "03 00:00", plan="month", effective="now")], "cycle_mismatch"),
        ([subscribe("ever"), subscription("changed", "03 00:00", plan="ever", effective="now")], "cycle_without_end"),
        (
            [subscribe("A"), *[subscription("suspended", f"0{day} 00:00") for day in (3, 4)]],
            "subscription_suspended",
        ),
        (
            [
                subscribe("A"),
                subscription("suspended", "03 00:00"),
                subscription("changed", "04 00:00", plan="B", effective="now"),
            ],
            "subscription_suspended",
        ),
        (
            [
                top_up("106", "p"),
                subscribe("A", pay_from="wallet"),
                subscription("changed", "03 00:00", plan="B", effective="now"),
            ],
            "insufficient_funds",
        ),
        (
            [
                subscribe("A"),
                subscription("cancelled", "03 00:00", immediately=True),
                subscription("suspended", "04 00:00"),
            ],
            "subscription_ended",
        ),
    ],
)
def test_refusals(calculator: MakeCalculator, steps: list[Line], reason: str) -> None:
    run = Run(calculator, steps, "04 00:00")
    assert run.refusals() == [reason]
    before = Run(calculator, steps[:-1], "04 00:00")
    assert (run.account["wallet"], run.document["ledger"]) == (before.account["wallet"], before.document["ledger"])
