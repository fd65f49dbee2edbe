"""Holds on plans with windows of requests, with portions of a year, and with carried quota."""

from typing import Any

from billing_samples import catalog, clock, encode, opened, plan, subscribe, use
from hold_samples import DIMENSIONS
from recorded_simulation import RecordedSimulation

from billing.accounts.account import Account
from billing.accounts.held import NOTHING, HeldAmounts
from billing.calculator.plain import PlainCalculator
from billing.reservations.amounts import Granted, decide_hold
from billing.reservations.hold import Terms, usage_event
from billing.reservations.tariff import Tariff
from schemas.refusals import Refusal
from schemas.times import parse_time_us
from schemas.units import MILLION

BOOK = catalog(
    plan(
        "coding",
        buckets=[{"unit": "REQUEST", "amount": "100", "kind": "periodic"}],
        windows=[{"kind": "from_first_use", "hours": 5, "cap": "2"}],
        cycle={"kind": "subscription_month"},
    ),
    plan(
        "year",
        price="1272.00",
        cycle={"kind": "years", "years": 1},
        buckets=[{"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "every": "month", "carry_over_cycles": 1}],
    ),
)
TARIFF = Tariff(BOOK)


def account_after(*steps: dict[str, Any]) -> Account:
    simulation = RecordedSimulation(BOOK, PlainCalculator())
    simulation.feed(encode([opened(at="2026-01-01 00:00"), *steps]))
    account = simulation.calculator.account("a")
    assert account is not None
    return account


def hold(account: Account, tokens: int, at: str, held: HeldAmounts = NOTHING) -> Granted | Refusal:
    event = usage_event("a", Terms(DIMENSIONS), (("input", tokens),), parse_time_us(clock(at)), frozenset())
    return decide_hold(account, held, event, TARIFF)


def test_a_hold_beyond_a_window_of_requests_is_refused_until_the_window_ends() -> None:
    steps = [subscribe("coding", at="2026-11-01 00:00"), use(7, "2026-11-02 10:00")]
    granted = hold(account_after(*steps), 7, "2026-11-02 10:01")
    assert isinstance(granted, Granted) and granted.held == HeldAmounts({"S/1/1": MILLION})
    used = account_after(*steps, use(7, "2026-11-02 10:01"))
    refused = hold(used, 7, "2026-11-02 14:59")
    assert isinstance(refused, Refusal) and refused.code == "package_exhausted"
    assert isinstance(hold(used, 7, "2026-11-02 15:00"), Granted)


def test_what_is_held_counts_in_the_windows_of_its_plan() -> None:
    account = account_after(subscribe("coding", at="2026-11-01 00:00"), use(7, "2026-11-02 10:00"))
    held = HeldAmounts({"S/1/1": MILLION})
    refused = hold(account, 7, "2026-11-02 10:01", held)
    assert isinstance(refused, Refusal) and refused.code == "package_exhausted"
    assert isinstance(hold(account, 7, "2026-11-02 15:00", held), Granted)


def test_a_hold_takes_the_portion_of_its_month() -> None:
    account = account_after(subscribe("year", at="2026-11-15 00:00"), use(30, "2026-12-20 00:00"))  # of November's
    granted = hold(account, 60, "2027-01-15 00:00")
    assert isinstance(granted, Granted) and granted.held == HeldAmounts({"S/1/2": 60 * MILLION})  # carried on
    later = hold(account, 110, "2027-01-15 00:00")
    assert isinstance(later, Granted)
    assert later.held == HeldAmounts({"S/1/2": 100 * MILLION, "S/1/3": 10 * MILLION})
    beyond = hold(account, 201, "2027-01-15 00:00")
    assert isinstance(beyond, Refusal) and beyond.code == "package_exhausted"
