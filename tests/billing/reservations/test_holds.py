"""Amounts of a hold: the burn rule, applied in advance."""

from dataclasses import replace

import pytest
from hold_samples import (
    CATALOG,
    DIMENSIONS,
    MINUTE_US,
    NOW_US,
    TARIFF,
    YUAN,
    account,
    bucket,
    context,
    event,
    reserved,
    wanted,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.held import NOTHING, HeldAmounts, credit_pico
from billing.burning.burn import burn
from billing.calculator.compiled import CompiledCalculator
from billing.calculator.interface import UsageBatch
from billing.calculator.plain import PlainCalculator
from billing.commits.commit_record import PartitionState
from billing.commits.input_batch import PlainRecord
from billing.ledger import Postings
from billing.log_time import TimeLimits
from billing.reservations.amounts import Granted, decide_hold
from billing.reservations.hold import CHARGING, HOLD_OPEN, Hold, Terms, settlement_event, usage_event
from billing.reservations.operations import (
    MAX_HOLD_STEPS,
    HoldContext,
    Settled,
    extend,
    find,
    not_open,
    release,
    reserve,
    settle,
)
from schemas.meters import Counts
from schemas.refusals import Refusal
from schemas.times import DAY_US
from schemas.units import MILLION


def test_a_hold_takes_buckets_in_deduction_order_and_the_rest_of_the_wallet() -> None:
    of = account(100, bucket("goes-on", 30, "b/1"), bucket("edge", 50, "e/1"))
    granted = decide_hold(of, NOTHING, event(40), TARIFF)
    assert isinstance(granted, Granted)
    assert granted.held == HeldAmounts({"b/1": 30 * MILLION}, 10 * 106 * YUAN // 100)
    assert (granted.amount_pico, granted.standard_micro) == (40 * 106 * YUAN // 100, 40 * MILLION)
    at_the_edge = decide_hold(of, NOTHING, event(60, channel="edge"), TARIFF)
    assert isinstance(at_the_edge, Granted)
    assert at_the_edge.held == HeldAmounts({"e/1": 50 * MILLION, "b/1": 10 * MILLION})


def test_what_is_held_already_is_not_there() -> None:
    of = account(0, bucket("blocked", 100))
    assert isinstance(decide_hold(of, HeldAmounts({"g/1": 60 * MILLION}), event(40), TARIFF), Granted)
    refused = decide_hold(of, HeldAmounts({"g/1": 60 * MILLION}), event(41), TARIFF)
    assert isinstance(refused, Refusal) and refused.code == "package_exhausted" and "lack 1 standard" in refused.detail
    poor = decide_hold(account(10), HeldAmounts({}, 9 * YUAN), event(1), TARIFF)
    assert isinstance(poor, Refusal) and poor.code == "insufficient_balance" and "1 is free" in poor.detail


def test_a_decision_changes_no_account() -> None:
    of = account(100, bucket("goes-on", 30))
    before = repr(of)
    decide_hold(of, HeldAmounts({"g/1": MILLION}, YUAN), event(40), TARIFF)
    assert repr(of) == before


def test_credit_is_what_the_wallet_may_fall_below_zero() -> None:
    assert isinstance(decide_hold(account(0, credit_limit_pico=107 * YUAN), NOTHING, event(100), TARIFF), Granted)
    assert isinstance(decide_hold(account(0, credit_limit_pico=105 * YUAN), NOTHING, event(100), TARIFF), Refusal)
    assert credit_pico(account(0, payment="postpaid")) is None
    assert isinstance(decide_hold(account(-5, payment="postpaid"), NOTHING, event(10**6), TARIFF), Granted)


def test_usage_that_costs_nothing_needs_nothing() -> None:
    granted = decide_hold(account(-5), NOTHING, event(100, model="free"), TARIFF)
    assert isinstance(granted, Granted) and granted.held == NOTHING


def test_a_part_is_granted_where_it_was_asked_for() -> None:
    of = account(0, bucket("blocked", 100))
    part = decide_hold(of, NOTHING, event(1000), TARIFF, accept_partial=True)
    assert isinstance(part, Granted) and part.counts == (("input", 100),)
    terms = Terms(DIMENSIONS)
    both = usage_event(
        "a", terms, (("input", 40), ("output", 1000)), NOW_US, frozenset()
    )  # an output token is two standard tokens
    lowered = decide_hold(of, NOTHING, both, TARIFF, accept_partial=True)
    assert isinstance(lowered, Granted) and lowered.counts == (("input", 40), ("output", 30))
    nothing = decide_hold(account(0), NOTHING, event(5), TARIFF, accept_partial=True)
    assert isinstance(nothing, Refusal) and nothing.code == "insufficient_balance"


def test_what_cannot_be_priced_is_refused_with_the_reason() -> None:
    for refused, code in (
        (decide_hold(account(9), NOTHING, event(1, model="nobody"), TARIFF), "no_price"),
        (decide_hold(replace(account(9), price_book="?"), NOTHING, event(1), TARIFF), "no_price_book"),
        (decide_hold(replace(account(9), status="closed"), NOTHING, event(1), TARIFF), "account_closed"),
        (decide_hold(account(9), NOTHING, event(2**62, "seats"), TARIFF), "overflow"),
        (reserve(context(None), wanted(), (("input", 1),), 1, "x", False), "unknown_account"),
    ):
        assert isinstance(refused, Refusal) and refused.code == code


def test_a_repeated_reservation_is_the_same_one_and_another_body_is_refused() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    first = reserved(stage, 60)
    assert reserve(stage, wanted(), (("input", 60),), 5 * MINUTE_US, "body", False) == first
    other = reserve(stage, wanted(), (("input", 61),), 5 * MINUTE_US, "other body", False)
    assert isinstance(other, Refusal) and other.code == "idempotency_key_reused"
    assert stage.held == HeldAmounts({"g/1": 60 * MILLION})


def test_an_extension_holds_more_or_longer_or_leaves_all_as_it_was() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    reserved(stage, 60)
    more = extend(stage, "r", (("input", 40),), None, "k1", "b1")
    assert isinstance(more, Hold) and more.held.buckets_micro == {"g/1": 100 * MILLION}
    assert extend(stage, "r", (("input", 40),), None, "k1", "b1") == more
    reused = extend(stage, "r", (("input", 1),), None, "k1", "b2")
    assert isinstance(reused, Refusal) and reused.code == "idempotency_key_reused"
    too_much = extend(stage, "r", (("input", 1),), None, "k2", "b2")
    assert isinstance(too_much, Refusal) and too_much.code == "package_exhausted"
    longer = extend(stage, "r", (), 10 * MINUTE_US, "k3", "b3")
    assert isinstance(longer, Hold) and longer.expires_us == NOW_US + 10 * MINUTE_US
    assert longer.held == more.held


def test_a_hold_expires_by_itself_and_is_given_back_once() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    hold = reserved(stage, 60)
    later = context(stage.account, hold.expires_us, hold)
    assert later.held == NOTHING
    assert hold.shown_state(hold.expires_us) == "expired" and hold.shown_state(hold.expires_us - 1) == "open"
    refused = extend(later, "r", (), MINUTE_US, "k", "b")
    assert isinstance(refused, Refusal) and refused.code == "reservation_expired"
    released = release(stage, "r")
    assert isinstance(released, Hold) and released.state == "released" and stage.held.buckets_micro == {}
    assert release(stage, "r") == released
    again = not_open(released, NOW_US)
    assert again is not None and again.code == "reservation_closed"
    unknown = find(stage, "no")
    assert isinstance(unknown, Refusal) and unknown.code == "unknown_reservation"


def test_what_was_used_moves_to_a_hold_of_its_own_until_its_commit() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    reserved(stage, 60)
    settled = settle(stage, "r", (("input", 25),), "1", "b", final=False)
    assert isinstance(settled, Settled) and settled.problem is None
    assert '"reservation":"r/1","usage":{"input":25}' in settled.event
    assert stage.holds["r"].held.buckets_micro == {"g/1": 35 * MILLION}
    assert stage.holds["r"].terms.counts == (("input", 35),)
    assert stage.holds["r/1"].held.buckets_micro == {"g/1": 25 * MILLION}
    assert stage.held.buckets_micro == {"g/1": 60 * MILLION}
    again = settle(stage, "r", (("input", 25),), "1", "b", final=False)
    assert isinstance(again, Settled) and again.event == settled.event
    assert stage.held.buckets_micro == {"g/1": 60 * MILLION}
    other = settle(stage, "r", (("input", 26),), "1", "c", final=False)
    assert isinstance(other, Refusal) and other.code == "idempotency_key_reused"
    last = settle(stage, "r", (("input", 5),), "2", "d", final=True)
    assert isinstance(last, Settled) and last.hold.state == "released"
    assert stage.held.buckets_micro == {"g/1": 30 * MILLION}


def test_an_extension_is_not_done_again_after_any_number_of_other_steps() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    reserved(stage, 1)
    first = extend(stage, "r", (("input", 1),), None, "first", "b")
    assert isinstance(first, Hold) and first.terms.counts == (("input", 2),)
    for number in range(40):
        assert isinstance(extend(stage, "r", (("input", 1),), None, f"k{number}", "b"), Hold)
    again = extend(stage, "r", (("input", 1),), None, "first", "b")
    assert isinstance(again, Hold) and again.terms.counts == (("input", 42),)
    for number in range(40, MAX_HOLD_STEPS - 2):
        assert isinstance(extend(stage, "r", (), MINUTE_US, f"k{number}", "b"), Hold)
    refused = extend(stage, "r", (("input", 1),), None, "one more", "b")
    assert isinstance(refused, Refusal) and refused.code == "too_many_steps"
    assert isinstance(extend(stage, "r", (("input", 1),), None, None, "b"), Hold), "without a key nothing is remembered"


@pytest.mark.parametrize(
    ("used", "time_us", "code"),
    [
        ((("input", 5),), NOW_US + 60 * MINUTE_US, "time_in_future"),
        ((("input", 5),), NOW_US - 40 * DAY_US, "time_too_old"),
        ((("phonemes", 5),), None, "unknown_meter"),
        ((("images", 5),), None, "no_price"),
        ((("seats", 2**62),), None, "overflow"),
    ],
)
def test_a_settlement_that_the_engine_would_reject_leaves_the_hold_open(
    used: Counts, time_us: int | None, code: str
) -> None:
    """The rejection is the one that both calculators decide for the event."""
    of = account(0, bucket("blocked", 100))
    stage = context(of)
    hold = reserved(stage, 60)
    stage.changed.clear()
    refused = settle(stage, "r", used, "1", "b", final=True, time_us=time_us)
    assert isinstance(refused, Refusal) and refused.code == code
    assert stage.changed == {} and stage.holds["r"] == hold
    event = settlement_event("a", hold.terms, dict(used), "r/1", time_us or NOW_US)
    for calculator in (PlainCalculator(), CompiledCalculator()):
        calculator.load(PartitionState(0, 1))
        calculator.set_catalog(CATALOG)
        calculator.put_account(of, stored=True)
        record = PlainRecord(0, NOW_US // 1000, None, event.encode())
        decoded = calculator.decode(UsageBatch(0, 1, [record], 0, TimeLimits()))
        for hour_us in calculator.missing_hours(decoded):
            calculator.put_hour(hour_us, [])
        [(_, rejected)] = calculator.apply(decoded).rejected
        assert (rejected.code, rejected.detail) == (refused.code, refused.detail)
    assert isinstance(settle(stage, "r", (("input", 60),), "1", "b", final=True, time_us=NOW_US), Settled)


def test_a_settlement_is_never_refused_for_the_state_of_its_account() -> None:
    for status in ("suspended", "closed"):
        of = account(0, bucket("blocked", 100))
        stage = context(of)
        reserved(stage, 60)
        of.status = status
        assert isinstance(settle(stage, "r", (("input", 60),), "1", "b", final=True), Settled)


def test_a_settlement_that_a_commit_has_decided_is_not_sent_again() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    reserved(stage, 60)
    first = settle(stage, "r", (("input", 5),), "1", "b", final=False)
    again = settle(stage, "r", (("input", 5),), "1", "b", final=False)
    assert isinstance(first, Settled) and isinstance(again, Settled) and not first.decided and not again.decided
    for state in ("closed", "released"):
        stage.holds["r/1"] = replace(stage.holds["r/1"], state=state)
        decided = settle(stage, "r", (("input", 5),), "1", "b", final=False)
        assert isinstance(decided, Settled) and decided.decided and decided.event == first.event


def test_usage_settled_after_expiry_is_recorded_and_says_so_each_time() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    hold = reserved(stage, 60)
    late = context(stage.account, hold.expires_us + 1, hold)
    for _ in range(2):
        settled = settle(late, "r", (("input", 25),), "1", "b", final=True)
        assert isinstance(settled, Settled) and '"usage":{"input":25}' in settled.event
        assert settled.problem is not None and settled.problem.code == "reservation_expired"
    assert late.held.buckets_micro == {"g/1": 25 * MILLION}


def test_more_than_was_reserved_is_recorded_and_holds_what_there_is() -> None:
    stage = context(account(0, bucket("blocked", 100)))
    reserved(stage, 60)
    reserved(stage, 30, "other")
    settled = settle(stage, "r", (("input", 500),), "1", "b", final=False)
    assert isinstance(settled, Settled) and '"usage":{"input":500}' in settled.event
    assert stage.held.buckets_micro == {"g/1": 100 * MILLION}
    wallet = context(account(10))
    reserve(wallet, wanted(kind=CHARGING), (("input", 5),), MINUTE_US, "x", False)
    settle(wallet, "r", (("input", 500),), "1", "b", final=False)
    assert wallet.held.wallet_pico == 10 * YUAN


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "partial", "extend", "release", "settle", "final", "burn", "burn", "later"]),
        st.integers(1, 70),
        st.sampled_from(["r1", "r2", "r3"]),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, wallet=st.integers(0, 90), credit=st.integers(0, 20), size=st.integers(0, 60))
def test_reserved_usage_never_overspends_in_any_order(
    steps: list[tuple[str, int, str]], wallet: int, credit: int, size: int
) -> None:
    """Usage within its reservation is always paid for, in any order of reservations, settlements and burns."""
    of = account(wallet, bucket("goes-on", size), bucket("goes-on", 20, "z/1"), credit_limit_pico=credit * YUAN)
    stage = context(of)
    for number, (what, tokens, name) in enumerate(steps):
        counts = (("input", tokens),)
        key = f"{number}"
        hold = stage.holds.get(name)
        if what in ("reserve", "partial"):
            reserve(stage, wanted(name), counts, tokens * MINUTE_US, key, what == "partial")
        elif what == "extend":
            extend(stage, name, counts, None, key, key)
        elif what == "release":
            release(stage, name)
        elif what in ("settle", "final") and hold is not None and not_open(hold, stage.now_us) is None:
            used = min(tokens, dict(hold.terms.counts).get("input", 0))
            if used:
                settle(stage, name, (("input", used),), key, key, final=what == "final")
        elif what == "later":
            stage.now_us += tokens * MINUTE_US // 30
        elif what == "burn":
            _commit_one_settlement(stage, tokens)
        kept = dict(stage.holds)
        stage = context(of, stage.now_us, *kept.values())
        if stage.needs_allotting():
            stage.allot(kept.values())
        free_pico = of.wallet_pico + of.credit_limit_pico
        assert free_pico >= 0, "overspent"
        assert stage.held.wallet_pico <= free_pico
        remaining = {one.grant_id: one.remaining_micro for one in of.buckets}
        assert all(0 <= micro <= remaining[grant_id] for grant_id, micro in stage.held.buckets_micro.items())


def _commit_one_settlement(stage: HoldContext, chosen: int) -> None:
    """Burn the usage of one settlement and close its hold, as a commit does."""
    assert stage.account is not None
    waiting = [hold for hold in stage.holds.values() if hold.event is not None and hold.state == HOLD_OPEN]
    if waiting:
        hold = waiting[chosen % len(waiting)]
        happened = usage_event("a", hold.terms, hold.terms.counts, hold.created_us, frozenset())
        priced = stage.tariff.rate(stage.account, happened)
        assert not isinstance(priced, Refusal)
        book, rated = priced
        burn(
            *(stage.account, happened, rated, book.tax_rate_micro, stage.tariff.plan, happened.time_us, Postings()),
        )
        stage.put(replace(hold, state="closed"))
