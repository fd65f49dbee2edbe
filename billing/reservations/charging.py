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
from billing.reservations.hold import CHARGING, HOLD_OPEN, HOLD_RELEASED, Hold, Terms
from billing.reservations.operations import HoldContext, Settled, not_open, repeated, reserve, settle, with_step
from schemas.meters import Counts, canonical_counts
from schemas.refusals import Refusal
from schemas.times import DAY_US, MINUTE_US

SESSION_US = DAY_US
"""Lifetime of a session after its last invocation."""
QUOTA_US = 5 * MINUTE_US
"""Validity of a granted quota (``validityTime``)."""
MAX_SESSION_LATE_US = MINUTE_US
"""Extra time for which a quota is held, because a gateway reports usage after the validity has ended."""


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
        ``unknown_session`` or ``idempotency_key_reused`` (a repetition with another body).
    """
    found = context.holds.get(session)
    if found is None:
        return Refusal("unknown_session", f"there is no charging session {session!r}")
    known = repeated(found, str(invocation), sha256)
    if isinstance(known, Refusal):
        return known
    parts = [f"{group_id(session, group.rating_group)}/{invocation}" for group in groups]
    if known is not None:
        events = [part.event for name in parts if (part := context.holds.get(name)) is not None]
        return Answered(tuple(event for event in events if event is not None), known["answer"])
    for name in parts:  # The session keeps its last invocations only; an older one is recognised by its holds.
        earlier = context.holds.get(name)
        if earlier is not None and isinstance(reused := repeated(earlier, "create", sha256), Refusal):
            return reused
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
    """Store the answer of an invocation, for a repetition."""
    context.put(with_step(context.holds[session], str(invocation), sha256, answer=answer))


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
