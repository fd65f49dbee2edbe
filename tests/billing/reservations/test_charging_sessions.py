"""Charging sessions as rules: quota by rating group, repeated invocations, usage without quota."""

import json
from dataclasses import replace

import pytest
from hold_samples import DIMENSIONS, account, bucket, context

from billing.reservations.charging import Answered, GroupUsage, invoke, keep_answer, open_session
from billing.reservations.hold import Counts, Hold
from billing.reservations.operations import MAX_HOLD_STEPS, HoldContext, find
from schemas.refusals import Refusal
from schemas.units import MILLION


def group(number: int, used: int = 0, wanted: int | None = None) -> GroupUsage:
    counts: Counts | None = (("input", used),) if used else None
    return GroupUsage(number, DIMENSIONS, counts, None if wanted is None else (("input", wanted),))


def session(tokens: int = 100) -> HoldContext:
    stage = context(account(0, bucket("blocked", tokens)))
    assert isinstance(open_session(stage, "s", "a", "d"), Hold)
    return stage


def invoked(
    stage: HoldContext, number: int, *groups: GroupUsage, final: bool = False
) -> tuple[list[object], list[str]]:
    decided = invoke(stage, "s", number, f"d{number}", groups, final=final)
    assert isinstance(decided, tuple)
    keep_answer(stage, "s", number, f"d{number}", {"number": number})
    return [grant.result for grant in decided[0]], decided[1]


def test_a_new_quota_takes_the_place_of_what_is_left() -> None:
    stage = session()
    [first], events = invoked(stage, 0, group(1, wanted=80))
    assert isinstance(first, Hold) and first.held.buckets_micro == {"g/1": 80 * MILLION} and events == []
    [second], events = invoked(stage, 1, group(1, used=30, wanted=80))
    # 30 wait for their commit, so 70 are left to grant, less than requested.
    assert isinstance(second, Hold) and second.terms.partial and second.terms.counts == (("input", 70),)
    assert len(events) == 1 and '"id":"s/1/1"' in events[0] and '"input":30' in events[0]
    assert stage.held.buckets_micro == {"g/1": 100 * MILLION}
    [none], _ = invoked(stage, 2, group(1, used=10), final=True)
    assert none is None and stage.held.buckets_micro == {"g/1": 40 * MILLION}
    assert {hold.state for hold in stage.holds.values() if hold.kind == "charging"} == {"released"}


def test_rating_groups_share_the_balance() -> None:
    stage = session()
    [one, two, three], _ = invoked(stage, 0, group(1, wanted=60), group(2, wanted=60), group(3, wanted=5))
    assert isinstance(one, Hold) and isinstance(two, Hold)
    assert two.terms.counts == (("input", 40),) and two.terms.partial
    assert isinstance(three, Refusal) and three.code == "package_exhausted"


def test_a_repeated_invocation_gets_the_first_answer_and_the_same_events() -> None:
    stage = session()
    invoked(stage, 0, group(1, wanted=50))
    _, events = invoked(stage, 1, group(1, used=20, wanted=50))
    held = stage.held
    again = invoke(stage, "s", 1, "d1", [group(1, used=20, wanted=50)], final=False)
    assert again == Answered(tuple(events), {"number": 1}) and stage.held == held
    other = invoke(stage, "s", 1, "another body", [], final=False)
    assert isinstance(other, Refusal) and other.code == "idempotency_key_reused"


def test_used_units_are_recorded_without_quota_and_after_the_end() -> None:
    stage = session()
    _, events = invoked(stage, 0, group(7, used=5))
    assert len(events) == 1 and stage.held.buckets_micro == {"g/1": 5 * MILLION}
    invoked(stage, 1, final=True)
    [ended], events = invoked(stage, 2, group(7, used=6, wanted=5))
    assert len(events) == 1 and isinstance(ended, Refusal) and ended.code == "reservation_closed"
    assert not isinstance(find(stage, "s/7/2"), Refusal)
    unknown = invoke(context(account(1)), "s", 0, "d", [], final=False)
    assert isinstance(unknown, Refusal) and unknown.code == "unknown_session"


def test_what_an_immediate_event_is_granted_is_debited_whole_or_not_at_all() -> None:
    stage = session()
    decided = invoke(stage, "s", 0, "d0", [group(1, wanted=60), group(2, wanted=60), group(3)], final=True, debit=True)
    assert isinstance(decided, tuple)
    [granted, refused, nothing] = [grant.result for grant in decided[0]]
    assert isinstance(granted, Hold) and granted.terms.counts == (("input", 60),)
    assert isinstance(refused, Refusal) and refused.code == "package_exhausted" and nothing is None
    [event] = decided[1]
    assert '"id":"s/1/0"' in event and '"input":60' in event
    assert stage.held.buckets_micro == {"g/1": 60 * MILLION}, "held until its commit"
    assert find(stage, "s/1/0").event == event  # type: ignore[union-attr]


def test_a_number_that_the_session_forgot_is_refused_with_other_usage() -> None:
    stage = session()
    for number in range(40):
        invoked(stage, number, group(1, used=1, wanted=1))
    again = invoke(stage, "s", 2, "another body", [group(2, used=1), group(1, used=5)], final=False)
    assert isinstance(again, Refusal) and again.code == "idempotency_key_reused"
    assert "s/2/2" not in stage.holds


def test_an_invocation_is_not_carried_out_again_after_any_number_of_others() -> None:
    """The invocation used no units, so no hold of its own shows that it was answered."""
    stage = session()
    for number in range(40):
        invoked(stage, number, group(1, wanted=10))
    stage.holds = {name: replace(hold, steps=json.loads(json.dumps(hold.steps))) for name, hold in stage.holds.items()}
    before = dict(stage.holds)
    again = invoke(stage, "s", 2, "d2", [group(1, wanted=10)], final=False)
    assert isinstance(again, Refusal) and again.code == "answer_not_kept"
    assert stage.holds == before
    kept = invoke(stage, "s", 39, "d39", [group(1, wanted=10)], final=False)
    assert kept == Answered((), {"number": 39})
    assert stage.holds["s"].steps["older"]["runs"] == [[0, 7]]


def test_a_session_whose_numbers_have_too_many_holes_is_refused() -> None:
    stage = session()
    for number in range(0, 2 * (MAX_HOLD_STEPS + 32), 2):
        invoked(stage, number)
    refused = invoke(stage, "s", 9_999, "d", [], final=False)
    assert isinstance(refused, Refusal) and refused.code == "too_many_steps"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (GroupUsage(2, DIMENSIONS | {"model": "nobody's"}, (("input", 1),), None), "no_price"),
        (GroupUsage(3, DIMENSIONS, (("phonemes", 1),), None), "unknown_meter"),
        (GroupUsage(3, DIMENSIONS, (("seats", 2**62),), None), "overflow"),
    ],
)
def test_used_units_that_would_be_rejected_change_nothing(wrong: GroupUsage, code: str) -> None:
    stage = session()
    invoked(stage, 0, group(1, wanted=50))
    before = dict(stage.holds)
    refused = invoke(stage, "s", 1, "d1", [group(1, used=5), wrong], final=True)
    assert isinstance(refused, Refusal) and refused.code == code
    assert refused.detail.startswith(f"rating group {wrong.rating_group}: ")
    assert stage.holds == before
