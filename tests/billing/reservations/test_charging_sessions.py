"""Charging sessions as rules: quota by rating group, repeated invocations, numbers that do not move, units to keep."""

import json
from dataclasses import replace

import pytest
from hold_samples import DIMENSIONS, NOW_US, account, bucket, context

from billing.reservations.charging import (
    MOST_GROUPS_HELD,
    Answered,
    GroupUsage,
    Invocation,
    Invoked,
    NotCarriedOut,
    invoke,
    keep_answer,
    keep_units,
    open_session,
)
from billing.reservations.hold import Counts, Hold, Terms, usage_event
from billing.reservations.operations import MAX_HOLD_STEPS, HoldContext, find
from schemas.meters import MAX_COUNT
from schemas.refusals import Refusal
from schemas.units import MILLION
from schemas.usage import UsageEvent


def group(number: int, used: int = 0, wanted: int | None = None, key: str = "") -> GroupUsage:
    counts: tuple[Counts, ...] = ((("input", used),),) if used else ()
    return GroupUsage(number, DIMENSIONS, counts, () if wanted is None else ((("input", wanted),),), (), key)


def session(tokens: int = 100) -> HoldContext:
    stage = context(account(0, bucket("blocked", tokens)))
    assert isinstance(open_session(stage, "s", "a", "d", 0), Hold)
    return stage


def one(number: int, sha256: str = "", **more: object) -> Invocation:
    return Invocation(number, sha256 or f"d{number}", **more)  # type: ignore[arg-type]


def invoked(
    stage: HoldContext, number: int | Invocation, *groups: GroupUsage, final: bool = False, debit: bool = False
) -> tuple[list[object], list[str]]:
    asked = one(number) if isinstance(number, int) else number
    decided = invoke(stage, "s", asked, groups, final=final, debit=debit)
    assert isinstance(decided, Invoked), decided
    keep_answer(stage, "s", decided.step, asked, {"number": asked.number, "sha256": asked.sha256})
    return [grant.result for grant in decided.grants], list(decided.events)


def refused(stage: HoldContext, asked: Invocation, *groups: GroupUsage, session: str = "s") -> tuple[str, list[str]]:
    decided = invoke(stage, session, asked, groups, final=False)
    assert isinstance(decided, NotCarriedOut), decided
    return decided.refusal.code, list(decided.events)


def usage_of(event: str) -> dict[str, object]:
    usage: dict[str, object] = json.loads(event)["data"]["usage"]
    return usage


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
    again = invoke(stage, "s", one(1), [group(1, used=20, wanted=50)], final=False)
    assert again == Answered(tuple(events), {"number": 1, "sha256": "d1"}) and stage.held == held
    invoked(stage, 2, group(1, used=1))
    assert refused(stage, one(1, "another body")) == ("idempotency_key_reused", [])


def test_used_units_are_recorded_without_quota_and_after_the_end() -> None:
    stage = session()
    _, events = invoked(stage, 0, group(7, used=5))
    assert len(events) == 1 and stage.held.buckets_micro == {"g/1": 5 * MILLION}
    invoked(stage, 1, final=True)
    [ended], events = invoked(stage, 2, group(7, used=6, wanted=5))
    assert len(events) == 1 and isinstance(ended, Refusal) and ended.code == "reservation_closed"
    assert not isinstance(find(stage, "s/7/2"), Refusal)
    assert refused(context(account(1)), one(0)) == ("unknown_session", [])


def test_what_an_immediate_event_is_granted_is_debited_whole_or_not_at_all() -> None:
    stage = session()
    [granted, failed, nothing], [event] = invoked(
        stage, 0, group(1, wanted=60), group(2, wanted=60), group(3), final=True, debit=True
    )
    assert isinstance(granted, Hold) and granted.terms.counts == (("input", 60),)
    assert isinstance(failed, Refusal) and failed.code == "package_exhausted" and nothing is None
    assert '"id":"s/1/0"' in event and '"input":60' in event
    assert stage.held.buckets_micro == {"g/1": 60 * MILLION}, "held until its commit"
    assert find(stage, "s/1/0").event == event  # type: ignore[union-attr]


def test_a_number_that_the_session_forgot_is_refused_with_other_usage() -> None:
    """Its units are not lost: a conflict of identity for one group, the first report of the other."""
    stage = session()
    for number in range(40):
        invoked(stage, number, group(1, used=1, wanted=1))
    code, events = refused(stage, one(2, "another body"), group(2, used=1), group(1, used=5), group(3))
    assert code == "answer_not_kept"
    assert [(json.loads(event)["id"], usage_of(event)) for event in events] == [
        ("s/2/2", {"input": 1}),
        ("s/1/2", {"input": 5}),
    ]
    assert stage.holds["s/1/2"].terms.counts == (("input", 1),)
    assert refused(stage, one(2, "another body"), group(2, used=1)) == ("answer_not_kept", [])


def test_an_invocation_is_not_carried_out_again_after_any_number_of_others() -> None:
    """The invocation used no units, so no hold of its own shows that it was answered."""
    stage = session()
    for number in range(40):
        invoked(stage, number, group(1, wanted=10))
    stage.holds = {name: replace(hold, steps=json.loads(json.dumps(hold.steps))) for name, hold in stage.holds.items()}
    before = dict(stage.holds)
    assert refused(stage, one(2), group(1, wanted=10)) == ("answer_not_kept", [])
    assert stage.holds == before
    kept = invoke(stage, "s", one(39), [group(1, wanted=10)], final=False)
    assert kept == Answered((), {"number": 39, "sha256": "d39"})
    assert stage.holds["s"].steps["older"]["runs"] == [[0, 7]]


def test_a_session_whose_numbers_have_too_many_holes_is_refused_and_its_units_are_recorded() -> None:
    stage = session()
    for number in range(0, 2 * (MAX_HOLD_STEPS + 32), 2):
        invoked(stage, number)
    code, events = refused(stage, one(9_999, "d"), group(1, used=3))
    assert code == "too_many_steps" and [usage_of(event) for event in events] == [{"input": 3}]
    assert refused(stage, one(9_999, "d"), group(1, used=3)) == ("answer_not_kept", [])


def test_a_gateway_whose_number_never_moves_is_recorded_by_content_and_time() -> None:
    stage = session(10_000)
    invoked(stage, one(0, "create", content="c"))
    ids = []
    for turn in range(100):
        asked = one(0, f"{turn:016}", content="the same", time_us=turn)
        _, [event] = invoked(stage, asked, group(1, used=5))
        ids.append(json.loads(event)["id"])
        again = invoke(stage, "s", asked, [group(1, used=5)], final=False)
        assert isinstance(again, Answered) and again.events == (event,), "a repetition is recognised"
        flagged = replace(asked, sha256="a later time", time_us=turn + 1, retransmitted=True)
        assert isinstance(invoke(stage, "s", flagged, [group(1, used=5)], final=False), Answered)
    assert len(set(ids)) == 100 and stage.held.buckets_micro == {"g/1": 500 * MILLION}
    assert refused(stage, one(0, f"{0:016}", content="the same"), group(1, used=5)) == ("answer_not_kept", [])
    assert len(stage.holds["s"].steps) < 40


def test_a_gateway_that_stops_counting_after_the_first_request_is_recorded_too() -> None:
    stage = session()
    invoked(stage, one(0, "create"))
    invoked(stage, one(1, "first", content="c1", time_us=1), group(1, used=5))
    invoked(stage, one(1, "second", content="c2", time_us=2), group(1, used=6))
    assert stage.held.buckets_micro == {"g/1": 11 * MILLION}
    same_time = one(1, "third", content="c3", time_us=2)
    code, [event] = refused(stage, same_time, group(1, used=7))
    assert code == "idempotency_key_reused" and json.loads(event)["id"] == "s/1/1"
    assert isinstance(invoke(stage, "s", one(1, "x", content="c2", time_us=9), [], final=False), Answered)


def test_a_number_that_moved_stands_for_one_invocation_and_other_units_of_it_are_a_conflict() -> None:
    """The gateway lost an answer and added what it used since, under the same number: both would bill it twice."""
    stage = session()
    invoked(stage, one(0, "create"))
    invoked(stage, one(1, "a"), group(1, used=5))
    invoked(stage, one(2, "b", content="b", time_us=1), group(1, used=5))
    held = stage.held
    code, [event] = refused(stage, one(2, "c", content="c", time_us=2), group(1, used=9))
    assert code == "idempotency_key_reused" and stage.held == held
    assert json.loads(event)["id"] == "s/1/2" and usage_of(event) == {"input": 9}
    repeated_later = one(2, "d", content="b", time_us=3)
    assert isinstance(invoke(stage, "s", repeated_later, [group(1, used=5)], final=False), Answered)


def test_a_rating_group_that_comes_twice_has_two_quotas_and_two_events() -> None:
    stage = session()
    first, second = group(1, used=10, wanted=20, key="1@upf-a"), group(1, used=11, wanted=20, key="1@upf-b")
    [one_, other], events = invoked(stage, 0, first, second)
    assert isinstance(one_, Hold) and isinstance(other, Hold)
    assert [json.loads(event)["id"] for event in events] == ["s/1@upf-a/0", "s/1@upf-b/0"]
    assert stage.held.buckets_micro == {"g/1": (10 + 11 + 20 + 20) * MILLION}
    invoked(stage, 1, group(1, used=20, wanted=5, key="1@upf-b"))
    assert stage.holds["s/1@upf-a"].state == "open", "the other user plane keeps its quota"
    invoked(stage, 2, final=True)
    assert stage.held.buckets_micro == {"g/1": (10 + 11 + 20) * MILLION}


def test_a_quota_that_may_be_used_as_several_meters_is_held_at_the_dearest() -> None:
    stage = session()
    dear, cheap = (("output", 10),), (("input", 10),)
    prices = [stage.tariff.fixed_cost(account(1), held_event(counts)) for counts in (cheap, dear)]
    [granted], _ = invoked(stage, 0, GroupUsage(1, DIMENSIONS, (), (cheap, dear)))
    assert isinstance(granted, Hold) and prices[0] is not None and prices[1] is not None
    assert granted.terms.counts == (dear if prices[1] > prices[0] else cheap)


def held_event(counts: Counts) -> UsageEvent:
    return usage_event("a", Terms(DIMENSIONS), counts, NOW_US, frozenset())


NOBODYS = DIMENSIONS | {"model": "nobody's"}


@pytest.mark.parametrize(
    ("wrong", "code", "kept"),
    [
        (GroupUsage(2, NOBODYS, ((("input", 1),), (("input", 2),))), "no_price", [{"input": 3}]),
        (GroupUsage(3, DIMENSIONS, ((("phonemes", 1),),)), "unknown_meter", [{"phonemes": 1}]),
        (GroupUsage(3, DIMENSIONS, ((("seats", 2**62),),)), "overflow", [{"seats": 2**62}]),
        (GroupUsage(3, DIMENSIONS, ((("input", 2**64 - 1),),)), "overflow", [{"input": 2**64 - 1}]),
        (GroupUsage(3, DIMENSIONS, (), (), ({"totalVolume": -5},)), "invalid_charging_data", [{"totalVolume": -5}]),
        (GroupUsage(None, NOBODYS, (), (), ({"time": "6"},), "unknown"), "invalid_charging_data", [{"time": "6"}]),
    ],
)
def test_units_that_would_be_rejected_are_sent_and_refuse_no_other_group(
    wrong: GroupUsage, code: str, kept: list[dict[str, object]]
) -> None:
    stage = session()
    invoked(stage, 0, group(1, wanted=50))
    [other, failed], events = invoked(stage, 1, group(1, used=5, wanted=10), replace(wrong, wanted=((("input", 1),),)))
    assert isinstance(other, Hold) and isinstance(failed, Refusal) and failed.code == code
    assert [usage_of(event) for event in events] == [{"input": 5}, *kept]
    name = wrong.key or str(wrong.rating_group)
    assert [json.loads(event)["id"] for event in events] == ["s/1/1", f"s/{name}/1"]
    part = stage.holds[f"s/{name}/1"]
    assert part.state == "open" and part.event == events[1] and not part.held.buckets_micro
    for event in events[1:]:
        assert isinstance(stage.rejection_of(event), Refusal), "the engine keeps it in suspense"
    again = invoke(stage, "s", one(1), [group(1, used=5, wanted=10), wrong], final=False)
    assert isinstance(again, Answered) and list(again.events) == events


def test_good_containers_of_a_group_are_rated_beside_bad_ones() -> None:
    stage = session(10_000)
    containers: tuple[Counts, ...] = ((("input", 5),), (("phonemes", 1),), (("input", 7),), (("phonemes", 2),))
    [failed], events = invoked(stage, 0, GroupUsage(1, DIMENSIONS, containers, (), ({"totalVolume": -1},)))
    assert isinstance(failed, Refusal) and failed.code == "invalid_charging_data"
    assert [usage_of(event) for event in events] == [{"input": 12}, {"phonemes": 3}, {"totalVolume": -1}]
    assert [json.loads(event)["id"] for event in events] == ["s/1/0", "s/1/0/2", "s/1/0/3"]


def test_containers_whose_sum_is_too_great_are_several_events() -> None:
    """A container alone is rated; together they exceed an event."""
    stage = session()
    whole = MAX_COUNT // 2
    containers: tuple[Counts, ...] = tuple((("input", whole),) for _ in range(3))
    [result], events = invoked(stage, 0, GroupUsage(1, DIMENSIONS, containers))
    assert result is None and sum(int(str(usage_of(event)["input"])) for event in events) == 3 * whole
    assert len(events) > 1 and len({json.loads(event)["id"] for event in events}) == len(events)


def test_units_of_an_account_that_was_never_opened_are_kept() -> None:
    stage = context(None)
    groups = [group(1, used=5), GroupUsage(2, DIMENSIONS, (), (), ({"time": "6"},))]
    events = keep_units(stage, "s", "a", groups, one(0))
    assert [usage_of(event) for event in events] == [{"input": 5}, {"time": "6"}]
    assert keep_units(stage, "s", "a", groups, one(0)) == events, "once, whatever is repeated"


def test_units_of_any_number_of_groups_are_recorded_and_the_first_get_quota() -> None:
    stage = session(10**9)
    groups = [group(number, used=5, wanted=1) for number in range(MOST_GROUPS_HELD + 50)]
    results, events = invoked(stage, 1, *groups)
    assert [isinstance(result, Hold) for result in results] == [True] * MOST_GROUPS_HELD + [False] * 50
    last = results[-1]
    assert isinstance(last, Refusal) and last.code == "too_many_groups"
    assert [usage_of(event) for event in events] == [{"input": 5}] * len(groups)
    assert all(stage.rejection_of(event) is None for event in events)
    again = invoke(stage, "s", one(1), groups, final=False)
    assert isinstance(again, Answered) and list(again.events) == events
