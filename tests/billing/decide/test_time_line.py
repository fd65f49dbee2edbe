"""Rolling an account forward depends only on time: once over a year equals any number of steps in between."""

from copy import deepcopy
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.account import NO_END_US, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import wallet_alert
from billing.accounts.extras import Subscription
from billing.catalog.model import Catalog, Cycle, Overage, Plan, PlanBucket, PlanKey, Proration
from billing.decide.roll_forward import next_due_us, roll_forward
from billing.ledger import Posting, Postings
from billing.packages.grants import grant_package
from billing.packages.proration import change_now
from billing.packages.subscriptions import cancel, cancel_now, resume, span_of, start, suspend
from schemas.times import DAY_US, HOUR_US, parse_time_us

T0_US = parse_time_us("2026-10-31T02:30:00Z")
YEAR_US = 366 * DAY_US
ZONES = ("Asia/Shanghai", "America/New_York", "Europe/Berlin", "Africa/Cairo")


def plans(rng: Random) -> list[Plan]:
    made = []
    for number in range(3):
        cycle = Cycle(
            rng.choice(["subscription_month", "calendar_month", "days", "once", "months", "weeks", "years", "day"]),
            rng.choice(ZONES),
            rng.choice([3, 7, 30, 45]),
        )
        if cycle.kind in ("months", "weeks", "years"):
            cycle = replace(cycle, length=rng.choice([1, 2, 5]))
        rules = tuple(
            PlanBucket(
                "STD_TOKEN",
                rng.choice([1, 10**7 + 3]),
                "periodic",
                rng.choice([1, 2]),
                carry,
                {},
                500_000,
                rng.choice(["", "", "week", "month"]) if cycle.kind not in ("once", "day") else "",
            )
            for carry in rng.choices([0, 0, 1, 3], k=rng.choice([1, 2]))
        )
        alerts = tuple(sorted(rng.sample([1, 3, 10, 400], rng.choice([0, 1, 3])), reverse=True))
        made.append(
            Plan(
                f"p{number}",
                1,
                {},
                rng.choice([0, 9_900_000_000_000, 19_990_000_000_000]),
                "CNY",
                60_000,
                cycle,
                rules,
                (),
                Overage("block"),
                rng.choice([0, 24, 24 * 10]),
                activation=(
                    "purchase"
                    if any(rule.every for rule in rules)
                    else rng.choice(["purchase", "purchase", "first_use"])
                ),
                activate_within_days=rng.choice([0, 20]),
                expiry_alert_days=alerts,
                proration=Proration(rng.random() < 0.5, rng.random() < 0.5),
            )
        )
    # A change within a cycle needs another plan with the same cycle.
    return [*made, replace(made[0], name="p3", price_pico=rng.choice([0, 5, 30]) * 10**12)]


class World:
    """One account with plans and commands that are chosen by a seed."""

    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        offered = plans(rng)
        self.plan_of = {PlanKey(plan.name, plan.version): plan for plan in offered}.__getitem__
        self.account = Account("a", "CNY", "book", "prepaid", 0, wallet_pico=rng.choice([0, 45, 250]) * 10**12)
        self.account.extras.wallet_alert_pico = rng.choice([None, 30 * 10**12])
        self.postings, self.events = Postings(), list[AccountEvent]()
        self.changed = 0
        for number, plan in enumerate(offered):
            starts_us = T0_US + rng.choice([-40 * DAY_US, 0, 3 * DAY_US])
            pay_from = rng.choice(["wallet", "external"])
            if plan.activation == "first_use" or rng.random() < 0.3:
                grant_package(self.account, plan, f"g{number}", starts_us, T0_US, pay_from, self.postings)
                continue
            subscription = Subscription(f"s{number}", plan.name, plan.version, pay_from, starts_us)
            start(self.account, subscription, T0_US, self.plan_of, self.postings)
            if rng.random() < 0.3:
                other = rng.choice(offered)
                subscription.next_plan, subscription.next_plan_version = other.name, other.version
            what = rng.choice(["", "", "cancel", "cancel now", "suspend", "change now"])
            if what == "cancel":
                self.events += cancel(self.account, subscription, T0_US + rng.choice([0, 90]) * DAY_US, self.plan_of)
            elif what == "cancel now":
                self.events += cancel_now(self.account, subscription, T0_US, self.plan_of)
            elif what == "suspend":
                suspend(self.account, subscription, T0_US)
            elif what == "change now":
                # A command finds the account rolled forward, with all cycles since the first begun.
                self.account.next_due_us = next_due_us(self.account, self.plan_of)
                self.roll(T0_US)
                self.change(T0_US)
        self.events += wallet_alert(self.account)
        self.account.next_due_us = next_due_us(self.account, self.plan_of)

    def roll(self, now_us: int) -> None:
        self.events += roll_forward(self.account, now_us, self.plan_of, self.postings, Catalog())

    def interfere(self, now_us: int) -> None:
        """Resume suspended subscriptions, and change plans for the rest of a cycle."""
        for subscription in self.account.extras.subscriptions:
            if subscription.status == "suspended":
                self.events += resume(self.account, subscription, now_us, self.plan_of, self.postings)
        self.change(now_us)
        self.account.next_due_us = next_due_us(self.account, self.plan_of)

    def change(self, now_us: int) -> None:
        """Change from the first plan to the plan with the same cycle, or back."""
        for subscription in self.account.extras.subscriptions:
            running = subscription.status == "active" and subscription.granted
            new = {"p0": "p3", "p3": "p0"}.get(subscription.plan)
            if new and running and span_of(subscription, self.plan_of).until_us < NO_END_US:
                new_plan = self.plan_of(PlanKey(new, 1))
                moved = change_now(self.account, subscription, new_plan, now_us, self.plan_of, self.postings)
                self.changed += moved is not None

    def state(self) -> tuple[Account, list[Posting], list[AccountEvent]]:
        return deepcopy(self.account), list(self.postings.lines()), self.events


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32), days=st.lists(st.integers(0, YEAR_US), max_size=12), back=st.integers(1, YEAR_US))
def test_how_often_an_account_is_rolled_changes_nothing(seed: int, days: list[int], back: int) -> None:
    """Commands are applied in the middle of the period too."""
    once, often = World(seed), World(seed)
    once.roll(T0_US + back)
    for at_us in sorted(T0_US + day for day in days if day < back):
        often.roll(at_us)
    often.roll(T0_US + back)
    assert often.state() == once.state()
    for world in (once, often):
        world.interfere(T0_US + back)
    once.roll(T0_US + YEAR_US + 90 * DAY_US)
    for at_us in sorted(T0_US + day for day in days if day > back):
        often.roll(at_us)
    often.roll(T0_US + YEAR_US + 90 * DAY_US)
    assert often.state() == once.state()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_rolling_hour_by_hour_is_rolling_at_once_and_nothing_is_due_unseen(seed: int) -> None:
    once, often = World(seed), World(seed)
    until_us = T0_US + 100 * DAY_US
    once.roll(until_us)
    for hour in range(0, 100 * 24 + 1, 7):
        now_us = T0_US + hour * HOUR_US
        due = often.account.next_due_us <= now_us
        before = often.state()[0]
        often.roll(now_us)
        assert due or often.account == before
        assert often.account.next_due_us > now_us
    often.roll(until_us)
    assert often.state() == once.state()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_money_is_conserved_over_a_year(seed: int) -> None:
    world = World(seed)
    wallet_pico = world.account.wallet_pico + sum(
        line.amount_pico for line in world.postings.lines() if line.account_code == "customer_deposits"
    )
    world.roll(T0_US + YEAR_US)
    lines = list(world.postings.lines())
    assert sum(line.amount_pico for line in lines) == 0
    liability = -sum(line.amount_pico for line in lines if line.account_code == "contract_liability")
    assert sum(bucket.liability_pico for bucket in world.account.buckets) == liability
    paid = sum(line.amount_pico for line in lines if line.account_code == "customer_deposits")
    assert world.account.wallet_pico == wallet_pico - paid
