"""The shortcut of reservations: if one bucket pays for everything, its result equals that of burning."""

import billing_samples as samples
import pytest
from hold_samples import DIMENSIONS, NOW_US, account, bucket, event
from hypothesis import event as noted
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.account import (
    ACTIVE,
    EXPIRED,
    NO_END_US,
    PENDING,
    REFUNDED,
    SUSPENDED,
    USED_UP,
    Account,
    Bucket,
)
from billing.accounts.deduction_order import sort_buckets
from billing.accounts.held import NOTHING, HeldAmounts
from billing.reservations.amounts import Granted, decide_by_burning, decide_hold
from billing.reservations.covering import covering_bucket
from billing.reservations.hold import Terms, usage_event
from billing.reservations.tariff import Tariff
from schemas.meters import canonical_counts
from schemas.units import MILLION

MIXED = [
    {"unit": "REQUEST", "amount": "3", "kind": "periodic", "priority": 100, "fee_share": "0.2"},
    {"unit": "STD_TOKEN", "amount": "100", "kind": "periodic", "priority": 100, "fee_share": "0.3"},
    {"unit": "CNY", "amount": "50", "kind": "periodic", "priority": 100, "fee_share": "0.5"},
]
BOOK = samples.BOOK | {
    "rows": [
        *samples.BOOK["rows"],
        {"model": "least", "per_million": {"input": "1"}, "standard_tokens": {"input": "1"}, "minimum_charge": "3"},
        {
            "model": "small",
            "context": [0, 9],
            "per_million": {"input": "1060000"},
            "standard_tokens": {"input": "2"},
        },
        {"model": "small", "per_million": {"input": "1060000"}, "standard_tokens": {"input": "1"}},
    ]
}
TARIFF = Tariff(
    samples.catalog(
        BOOK,
        samples.plan("blocked"),
        samples.plan("goes-on", overage="pay_as_you_go", priority=50),
        samples.plan("edge", overage="pay_as_you_go", scope={"channel": ["edge"]}, priority=10),
        samples.plan("window", windows=[{"kind": "rolling", "hours": 5, "cap": "20"}], overage="pay_as_you_go"),
        samples.plan("family", members={"seats": 1, "cap": "30"}, overage="pay_as_you_go"),
        samples.plan("late", activation="first_use", priority=5),
        samples.plan("mixed", buckets=MIXED, overage="pay_as_you_go"),
        samples.plan("packs", overage={"mode": "auto_pack", "block": "10", "price": "1.00", "max_packs": 3}),
    )
)
PLANS = ("blocked", "goes-on", "packs", "edge", "late", "window", "family")
MODELS = ("m", "m", "m", "m", "m", "m", "half", "third", "uncounted", "free", "odd", "least", "small", "nobody")
STATUSES = (*[ACTIVE] * 6, PENDING, SUSPENDED, USED_UP, EXPIRED, REFUNDED)
LONG_US = 10**12


@st.composite
def buckets(draw: st.DrawFn, number: int) -> Bucket:
    if draw(st.integers(0, 3)) == 0:
        plan, bucket_no = "mixed", draw(st.integers(1, 3))
        unit = str(MIXED[bucket_no - 1]["unit"])
    else:
        plan, bucket_no, unit = draw(st.sampled_from(PLANS)), 1, "STD_TOKEN"
    amount_micro = draw(st.integers(1, 100)) * MILLION
    remaining_micro = min(amount_micro, draw(st.sampled_from((amount_micro, 40 * MILLION, 5 * MILLION + 1, 1, 0))))
    begins_us = NOW_US + draw(st.sampled_from((-LONG_US, -1, -1, 0, 1)))
    ends_us = draw(st.sampled_from((NO_END_US, NOW_US + LONG_US, NOW_US + 1, NOW_US)))
    return Bucket(
        *(f"{draw(st.sampled_from('xyz'))}{number}/{bucket_no}", plan, 1, bucket_no, unit),
        *(amount_micro, remaining_micro, remaining_micro, begins_us, ends_us, NO_END_US, 0),
        draw(st.sampled_from(STATUSES)),
    )


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    made = Account("a", "CNY", draw(st.sampled_from(("retail",) * 7 + ("?",))), "prepaid", 0)
    made.wallet_pico = draw(st.sampled_from((0, 10**12, 10**15)))
    made.next_due_us = NOW_US + draw(st.sampled_from((LONG_US, LONG_US, LONG_US, 1, 0)))
    made.buckets = [draw(buckets(number)) for number in range(draw(st.integers(1, 4)))]
    sort_buckets(made, TARIFF.plan)
    if draw(st.booleans()):
        made.buckets.reverse()  # the database keeps no order
    return made


@settings(max_examples=1500, deadline=None)
@given(
    of=accounts(),
    model=st.sampled_from(MODELS),
    channel=st.sampled_from(("cloud", "edge")),
    member=st.sampled_from((None, "ann")),
    inputs=st.integers(1, 30),
    outputs=st.sampled_from((0, 0, 1, 20)),
    held=st.lists(st.sampled_from((0, 0, MILLION, 35 * MILLION)), max_size=4),
)
def test_it_says_what_burning_says(
    of: Account, model: str, channel: str, member: str | None, inputs: int, outputs: int, held: list[int]
) -> None:
    dimensions = DIMENSIONS | {"model": model, "channel": channel} | ({"member": member} if member else {})
    asked = usage_event(
        "a", Terms(dimensions), canonical_counts({"input": inputs, "output": outputs}), NOW_US, frozenset()
    )
    held_micro = {one.grant_id: micro for one, micro in zip(of.buckets, held, strict=False)}
    before = repr(of)
    decided = decide_hold(of, HeldAmounts(held_micro), asked, TARIFF)
    assert repr(of) == before
    assert decided == decide_by_burning(of, HeldAmounts(held_micro), asked, TARIFF)
    cost = TARIFF.fixed_cost(of, asked)
    if cost is not None and cost[1] and covering_bucket(of, held_micro, asked, cost[1], TARIFF.plan):
        noted("answered by the shortcut")


@pytest.mark.parametrize("buckets_around", [(), (bucket("edge", 50, "e/1"),), (bucket("goes-on", 0, "u/1"),)])
def test_it_answers_where_one_bucket_covers_everything(buckets_around: tuple[Bucket, ...]) -> None:
    of = account(0, *buckets_around, bucket("goes-on", 30, "b/1"))
    asked = event(20)
    assert TARIFF.fixed_cost(of, asked) == (20 * 106 * 10**10, 20 * MILLION)
    for held_micro, found in (({}, "b/1"), ({"b/1": 10 * MILLION}, "b/1"), ({"b/1": 10 * MILLION + 1}, None)):
        covering = covering_bucket(of, held_micro, asked, 20 * MILLION, TARIFF.plan)
        assert (None if covering is None else covering.grant_id) == found
    granted = decide_hold(of, NOTHING, asked, TARIFF)
    assert isinstance(granted, Granted) and granted.held == HeldAmounts({"b/1": 20 * MILLION})


def test_it_leaves_to_the_rule_what_it_does_not_know() -> None:
    for plan in ("window", "family"):
        of = account(0, bucket("blocked", 30))
        of.buckets[0].plan = plan
        assert covering_bucket(of, {}, event(1), MILLION, TARIFF.plan) is None
    due = account(0, bucket("blocked", 30))
    due.next_due_us = NOW_US
    assert covering_bucket(due, {}, event(1), MILLION, TARIFF.plan) is None
    for model in ("least", "small", "nobody"):
        assert TARIFF.fixed_cost(account(), event(1, model=model)) is None
    assert TARIFF.fixed_cost(account(), event(1, "output", model="half")) is None
    assert TARIFF.fixed_cost(account(), event(2**62)) is None
