"""Buckets in units other than standard tokens, alone and mixed (docs/reference/plans.md, "Deduction order").

Expected values are computed by hand. With model ``credit``, an input token costs 1.06 yuan, one standard token and half
a credit; an output token costs 2.12 yuan, two standard tokens and two credits; an image costs 1.06 yuan, no standard
tokens and 10 credits.
"""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from billing_samples import BOOK, MakeCalculator, buy, catalog, opened, plan, simulate, top_up, use
from burn_cases import Case, check_case
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.account import Account
from billing.burning.burn import burn
from billing.catalog.model import Cycle, Overage, Plan, PlanBucket
from billing.ledger import Postings
from billing.packages.grants import grant_package
from billing.pricing.rate import Rated
from schemas.units import MILLION, divide_half_even
from schemas.usage import UsageEvent

EVENT = UsageEvent(
    *("s", "1", 1, 0, "a", "m", "unknown", "unknown", "unknown", "cloud", "standard", "completed"),
    *(None, None, None, None, ()),
)


def bucket(unit: str, amount: str, priority: int = 100, **rest: Any) -> dict[str, Any]:
    return {"unit": unit, "amount": amount, "kind": "periodic", "priority": priority} | rest


def one(name: str, unit: str, amount: str, price: str = "106.00", priority: int = 100, **rest: Any) -> dict[str, Any]:
    return plan(name, price=price, buckets=[bucket(unit, amount, priority)], **rest)


PAYG = "pay_as_you_go"
CASES = [
    # CREDIT
    Case("credits burn by their own coefficient", [one("A", "CREDIT", "100")],
         [buy("A", "G"), use(30, model="credit")], {"G/1": "85 active"}, revenue="15"),
    Case("reasoning without a coefficient burns like output", [one("A", "CREDIT", "100")],
         [buy("A", "G"), use(30, model="credit", meter="reasoning")], {"G/1": "40 active"}, revenue="60"),
    Case("an event without coefficients is not for the bucket: the wallet pays",
         [one("A", "CREDIT", "100")], [buy("A", "G"), use(30)],
         {"G/1": "100 active"}, wallet="-31.8", revenue="30"),
    Case("credits run out: the rest is absorbed in standard tokens",
         [one("A", "CREDIT", "10")], [buy("A", "G"), use(30, model="credit")],
         {"G/1": "0 used_up"}, absorbed="10", absorbed_amount="10.6", revenue="100"),
    Case("credits run out: the rest is paid as you go",
         [one("A", "CREDIT", "10", overage=PAYG)], [buy("A", "G"), use(30, model="credit")],
         {"G/1": "0 used_up"}, wallet="-10.6", revenue="110"),
    Case("without standard tokens the wallet pays what credits do not cover, whatever the rule",
         [one("A", "CREDIT", "10")], [buy("A", "G"), use(4, model="credit", meter="images")],
         {"G/1": "0 used_up"}, wallet="-3.18", revenue="103"),
    Case("credits cover an event that has no standard tokens",
         [one("A", "CREDIT", "100")], [buy("A", "G"), use(4, model="credit", meter="images")],
         {"G/1": "60 active"}, revenue="40"),
    # REQUEST
    Case("an event without a count of requests is one", [one("A", "REQUEST", "5", overage=PAYG)],
         [buy("A", "G"), use(30), use(1, model="free")], {"G/1": "3 active"}, revenue="40"),
    Case("requests are counted where they are", [one("A", "REQUEST", "5")],
         [buy("A", "G"), use(2, model="credit", meter="requests")], {"G/1": "3 active"}, revenue="40"),
    Case("half of an event of two requests is covered by one", [one("A", "REQUEST", "1", overage=PAYG)],
         [buy("A", "G"), use(0, model="credit", data={"usage": {"input": 10, "requests": 2}})],
         {"G/1": "0 used_up"}, wallet="-5.3", revenue="105"),
    # Money
    Case("a bucket of money burns the price", [one("A", "CNY", "100")],
         [buy("A", "G"), use(30)], {"G/1": "68.2 active"}, revenue="31.8"),
    Case("money pays for what has no standard tokens", [one("A", "CNY", "100")],
         [buy("A", "G"), use(10, model="uncounted")], {"G/1": "89.4 active"}, revenue="10.6"),
    Case("a free event needs no money", [one("A", "CNY", "100")],
         [buy("A", "G"), use(10, model="free")], {"G/1": "100 active"}),
    Case("money is burned half even to 1e-6", [one("A", "CNY", "100")],
         # 0.000001234567 -> 1; 3 of them 3.703701 -> 4
         [buy("A", "G"), use(1, model="odd"), use(3, model="odd")],
         {"G/1": "99.999995 active"}, revenue="0.000005"),
    Case("what costs less than half a millionth is covered and burns nothing", [one("A", "CNY", "100")],
         [buy("A", "G"), use(1, model="tiny")], {"G/1": "100 active"}, book=(
             BOOK | {"rows": [{"model": "tiny", "per_million": {"input": "0.4"}}]},)),
    Case("an empty bucket covers nothing, however cheap", [one("A", "CNY", "1.06", "1.06")],
         [buy("A", "G"), use(1), use(1, model="odd")], {"G/1": "0 used_up"},
         absorbed="1.1", absorbed_amount="0.000001234567", revenue="1"),
    # Mixed units: the exact uncovered share passes to the next bucket
    Case("a third by credits, the rest by standard tokens",
         [one("A", "CREDIT", "5", priority=1), plan("B")],
         [buy("A", "A"), buy("B", "B"), use(30, model="credit")],
         {"A/1": "0 used_up", "B/1": "80 active"}, revenue="120"),
    Case("standard tokens first, then credits, then the wallet",
         [plan("A", "10", "10.60", priority=1), one("B", "CREDIT", "5", "5.30", priority=2, overage=PAYG)],
         [buy("A", "A"), buy("B", "B"), use(40, model="credit")],
         {"A/1": "0 used_up", "B/1": "0 used_up"}, wallet="-21.2", revenue="35"),
    Case("requests, credits, standard tokens, money in turn; the last is rounded once",
         # 7 requests need 7: 1/7; 7 tokens: 3.5 credits of which 1: 2/7; std 1: 1/7; 3/7 of 7.42 yuan = 3.18
         [one("A", "REQUEST", "1", "1.06", 1), one("B", "CREDIT", "1", "1.06", 2), plan("C", "1", "1.06", priority=3),
          one("D", "CNY", "100", "106.00", 4)],
         [buy("A", "A"), buy("B", "B"), buy("C", "C"), buy("D", "D"),
          use(0, model="credit", data={"usage": {"input": 7, "requests": 7}})],
         {"A/1": "0 used_up", "B/1": "0 used_up", "C/1": "0 used_up", "D/1": "96.82 active"}, revenue="6.18"),
    Case("a bucket of another unit in one plan", [plan("A", price="106.00", buckets=[
        bucket("CREDIT", "5", 1, fee_share="0.5"), bucket("STD_TOKEN", "100", 2, fee_share="0.5")])],
         [buy("A", "G"), use(30, model="credit")], {"G/1": "0 used_up", "G/2": "80 active"}, revenue="60"),
    Case("the last bucket the event needs rules overage, not the last that fits by time and scope",
         [plan("A", "10", "10.60", priority=1, overage=PAYG), one("B", "CREDIT", "5", "5.30", priority=2)],
         [buy("A", "A"), buy("B", "B"), use(30)],
         {"A/1": "0 used_up", "B/1": "5 active"}, wallet="-21.2", revenue="30"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_other_units_pay(case: Case, calculator: MakeCalculator) -> None:
    check_case(case, calculator)


def test_the_wallet_is_no_bucket_of_money(calculator: MakeCalculator) -> None:
    """A bucket in the plan's currency is not the wallet: the bucket pays first, and its rule decides the rest."""
    steps = [opened(), top_up("50", "p"), buy("A", "G"), use(30)]
    account = simulate(calculator(), catalog(one("A", "CNY", "10")), steps)["accounts"]["a"]
    assert (account["wallet"], account["absorbed"], account["absorbed_amount"]) == ("50", "20.566038", "21.8")


UNITS = ("STD_TOKEN", "CREDIT", "REQUEST", "CNY")


@settings(max_examples=200, deadline=None)
@given(
    held=st.lists(st.tuples(st.sampled_from(UNITS), st.integers(1, 4 * MILLION)), min_size=1, max_size=6),
    counts=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    price=st.integers(0, 10**13),
    mode=st.sampled_from([PAYG, "block"]),
)
def test_what_is_taken_and_what_is_left_over_are_the_whole_event(
    held: list[tuple[str, int]], counts: tuple[int, int], price: int, mode: str
) -> None:
    """Deductions in all units plus the charged or absorbed amount add up to the whole event, except for rounding."""
    rules = tuple(
        PlanBucket(unit, amount, "periodic", number, 0, {}, MILLION) for number, (unit, amount) in enumerate(held)
    )
    entry = Plan("A", 1, {}, 0, "CNY", 0, Cycle("once", "UTC"), rules, overage=Overage(mode))
    account = Account("a", "CNY", "retail", "prepaid", 0)
    grant_package(account, entry, "G", 0, 0, "external", Postings())
    standard_micro, credit_micro = (count * 333_333 for count in counts)
    rated = Rated("retail@1", "CNY", price, price, standard_micro, (), units_micro={"CREDIT": credit_micro})
    happened = replace(EVENT, counts=(("requests", 3),))
    postings = Postings()
    burned = burn(account, happened, rated, 0, lambda key: entry, 0, postings)
    assert sum(line.amount_pico for line in postings.lines()) == 0

    needs: dict[str, int | Fraction] = {
        "STD_TOKEN": standard_micro,
        "CREDIT": credit_micro,
        "REQUEST": 3 * MILLION,
        "CNY": Fraction(price, MILLION),
    }
    taken = sum(Fraction(one.taken_micro) / needs[one.unit] for one in burned.deductions)
    left = 1 - taken
    beyond_pico = burned.charged_pico + burned.absorbed_pico
    if beyond_pico:
        assert beyond_pico == divide_half_even(price * left.numerator, left.denominator)
        assert not any(one.remaining_micro for one in account.buckets if needs[one.unit])
    else:  # the event is covered, with the last deduction rounded to 1e-6
        roundings = [left * needs[unit] <= Fraction(1, 2) for unit, _ in held if needs[unit]]
        assert any(roundings) or divide_half_even(price * left.numerator, left.denominator) == 0
    for bucket, (_, amount) in zip(account.buckets, held, strict=True):
        gone = sum(one.taken_micro for one in burned.deductions if one.grant_id == bucket.grant_id)
        assert bucket.remaining_micro == amount - gone >= 0
    if burned.absorbed_micro:
        assert burned.absorbed_micro == divide_half_even(standard_micro * left.numerator, left.denominator)
