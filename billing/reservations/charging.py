"""Charging sessions of a telecom gateway (3GPP TS 32.290, 32.291): quota by rating group, as holds. Plain rules.

A session is a hold with empty amounts; each of its rating groups has a hold for the quota granted last. Used units
move to separate holds, which their usage events name (:func:`billing.reservations.operations.settle`). A repeated
invocation returns the answer of the first. Never: the JSON of 3GPP (:mod:`tokenbill.api.holds.nchf`), SQL, Kafka, the
clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from billing.accounts.held import NOTHING
from billing.reservations.hold import CHARGING, HOLD_OPEN, HOLD_RELEASED, Hold, Terms, settlement_event, usage_event
from billing.reservations.operations import (
    HoldContext,
    Settled,
    not_open,
    repeated,
    reserve,
    settle,
    too_many_steps,
    with_step,
)
from schemas.meters import Counts, canonical_counts
from schemas.refusals import Refusal
from schemas.times import DAY_US, MINUTE_US

SESSION_US = DAY_US
"""Lifetime of a session after its last invocation."""
QUOTA_US = 5 * MINUTE_US
"""Validity of a granted quota (``validityTime``)."""
MAX_SESSION_LATE_US = MINUTE_US
"""Extra time for which a quota is held, because a gateway reports usage after the validity has ended."""
_ANSWERS_KEPT = 32
_OLDER = "older"


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """The part of a request for one rating group.

    ``used`` are the counts since the last report (None: no report). ``wanted`` are the counts of the requested quota
    (None: no quota requested).
    """

    rating_group: int
    dimensions: Mapping[str, str]
    used: Counts | None
    wanted: Counts | None


@dataclass(frozen=True, slots=True)
class GroupGrant:
    """Result for one rating group: the hold of its quota, the refusal, or None if no quota was requested."""

    rating_group: int
    result: Hold | Refusal | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The stored result of a repeated invocation: its usage events and its answer."""

    events: tuple[str, ...]
    answer: Mapping[str, Any]


def group_id(session: str, rating_group: int) -> str:
    """Return the id of the hold of a rating group."""
    return f"{session}/{rating_group}"


def wanted_holds(session: str, groups: Sequence[GroupUsage], invocation: int) -> list[str]:
    """Return the ids of the holds that an invocation reads."""
    names = [group_id(session, group.rating_group) for group in groups]
    return [session, *names, *(f"{name}/{invocation}" for name in names)]


def open_session(context: HoldContext, session: str, account: str, sha256: str) -> Hold | Refusal:
    """Open a session.

    Returns:
        The hold of the session, or a refusal with ``session_exists`` (the id is in use) or ``unknown_account``.
    """
    if session in context.holds:
        return Refusal("session_exists", f"session {session!r} began before")
    if context.account is None:
        return Refusal("unknown_account", f"account {account!r} was never opened")
    began = Hold(
        *(session, account, CHARGING, HOLD_OPEN, NOTHING, Terms({})),
        *(context.now_us, context.now_us + SESSION_US),
    )
    context.put(with_step(began, "create", sha256))
    return context.holds[session]


def invoke(
    context: HoldContext,
    session: str,
    invocation: int,
    sha256: str,
    groups: Sequence[GroupUsage],
    *,
    final: bool,
    debit: bool = False,
) -> tuple[list[GroupGrant], list[str]] | Answered | Refusal:
    """Record used units and grant quota.

    ``final`` ends the session and releases all its holds. ``debit`` (immediate event charging) records the granted
    counts as used, because no report follows; they are granted completely or not at all. Usage of a session that has
    ended is recorded nevertheless.

    Returns:
        The grants and usage events of a new invocation, the stored result of a repeated one, or a refusal with
        ``unknown_session``, ``idempotency_key_reused`` (a repetition with another body), ``answer_not_kept`` (a
        repetition of an old one) or ``too_many_steps`` (numbers with too many holes), or the rejection of used
        units by the engine's rules; then nothing changes.
    """
    found = context.holds.get(session)
    if found is None:
        return Refusal("unknown_session", f"there is no charging session {session!r}")
    known = repeated(found, str(invocation), sha256)
    if isinstance(known, Refusal):
        return known
    parts = [f"{group_id(session, group.rating_group)}/{invocation}" for group in groups]
    if known is not None:
        sent_before = [part for name in parts if (part := context.holds.get(name)) is not None]
        events = [part.event for part in sent_before if part.state == HOLD_OPEN]  # else a commit has decided it
        return Answered(tuple(event for event in events if event is not None), known["answer"])
    for name in parts:  # An invocation whose answer is not kept is also recognised by its holds.
        earlier = context.holds.get(name)
        if earlier is not None and isinstance(reused := repeated(earlier, "create", sha256), Refusal):
            return reused
    older = _older(found)
    if any(first <= invocation <= last for first, last in older):
        return Refusal(
            "answer_not_kept", f"invocation {invocation} of session {session!r} was answered; its answer is not kept"
        )
    if (refused := too_many_steps(len(older), session)) is not None:
        return refused
    for group in groups:
        if group.used and (rejected := _rejection(context, found, group, invocation)) is not None:
            return rejected
    ended = not_open(found, context.now_us)
    sent: list[str] = []
    grants: list[GroupGrant] = []
    for group in groups:
        if debit:
            result = ended or _grant(context, found, group, sha256, accept_partial=False)
            used = (*(group.used or ()), *(result.terms.counts if isinstance(result, Hold) else ()))
            sent += _settle_group(context, found, replace(group, used=_added(used)), invocation, sha256)
        else:
            sent += _settle_group(context, found, group, invocation, sha256)
            result = ended or _grant(context, found, group, sha256, accept_partial=True)
        grants.append(GroupGrant(group.rating_group, result))
    if final:
        for hold in [hold for hold in context.holds.values() if hold.kind == CHARGING and hold.state == HOLD_OPEN]:
            context.put(replace(hold, state=HOLD_RELEASED))
    elif ended is None:
        context.put(replace(found, expires_us=context.now_us + SESSION_US))
    return grants, sent


def keep_answer(context: HoldContext, session: str, invocation: int, sha256: str, answer: Mapping[str, Any]) -> None:
    """Store the answer of an invocation, for a repetition.

    Only the last answers are kept. Of older invocations the numbers are kept, so that none is carried out again.
    """
    hold = with_step(context.holds[session], str(invocation), sha256, answer=answer)
    numbers = sorted((int(step) for step in hold.steps if step.isdigit()), reverse=True)
    forgotten = numbers[_ANSWERS_KEPT:]
    if forgotten:
        steps = {step: kept for step, kept in hold.steps.items() if not step.isdigit() or int(step) not in forgotten}
        runs = _with_numbers(_older(hold), forgotten)
        hold = replace(hold, steps=steps | {_OLDER: {"sha256": "", "runs": runs}})
    context.put(hold)


def _older(session: Hold) -> Sequence[tuple[int, int]]:
    """Return the numbers of invocations whose answers are not kept, as runs (first, last)."""
    kept = session.steps.get(_OLDER)
    return [] if kept is None else [(first, last) for first, last in kept["runs"]]


def _with_numbers(runs: Sequence[tuple[int, int]], numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs with more numbers, sorted and joined."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted([*runs, *((number, number) for number in numbers)]):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def _rejection(context: HoldContext, session: Hold, group: GroupUsage, invocation: int) -> Refusal | None:
    """Return the rejection that the engine would decide for the used units of a group; None if it would rate them."""
    name = group_id(session.reservation_id, group.rating_group)
    known = context.holds.get(name)
    terms = Terms(group.dimensions) if known is None else known.terms
    used = usage_event(session.account, terms, group.used or (), context.now_us)
    rejected = context.rejection_of(settlement_event(used, f"{name}/{invocation}"), unused=not group.used)
    return rejected and replace(rejected, detail=f"rating group {group.rating_group}: {rejected.detail}")


def _settle_group(context: HoldContext, session: Hold, group: GroupUsage, invocation: int, sha256: str) -> list[str]:
    if not group.used:
        return []
    name = group_id(session.reservation_id, group.rating_group)
    if name not in context.holds:
        # Units used without a quota are settled on a hold that is released from the beginning.
        bare = Hold(
            *(name, session.account, CHARGING, HOLD_RELEASED, NOTHING, Terms(group.dimensions)),
            *(context.now_us, context.now_us),
        )
        context.put(bare)
    settled = settle(context, name, group.used, str(invocation), sha256, final=True)
    return [settled.event] if isinstance(settled, Settled) else []


def _added(counts: Counts) -> Counts:
    sums: dict[str, int] = {}
    for meter, count in counts:
        sums[meter] = sums.get(meter, 0) + count
    return canonical_counts(sums)


def _grant(
    context: HoldContext, session: Hold, group: GroupUsage, sha256: str, *, accept_partial: bool
) -> Hold | Refusal | None:
    """Release the rest of the group's quota and grant a new one under the same hold id."""
    name = group_id(session.reservation_id, group.rating_group)
    before = context.holds.get(name)
    if before is not None and group.wanted is not None:
        context.put(replace(before, state=HOLD_RELEASED, held=NOTHING))
        del context.holds[name]
    if not group.wanted:
        return None
    asked = Hold(name, session.account, CHARGING, HOLD_OPEN, NOTHING, Terms(group.dimensions), 0, 0)
    granted = reserve(context, asked, group.wanted, QUOTA_US + MAX_SESSION_LATE_US, sha256, accept_partial)
    if isinstance(granted, Refusal) and before is not None:
        context.holds[name] = context.changed[name]
    return granted
