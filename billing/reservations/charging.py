"""Charging sessions of a telecom gateway (3GPP TS 32.290, 32.291): quota by rating group, as holds. Plain rules.

A session is a hold that holds nothing; each of its rating groups has one that holds what was granted last. Used units
move to holds of their own, which their usage events name (:func:`billing.reservations.operations.settle`). A repeated
invocation
gets the answer of the first. Never: the JSON of 3GPP (:mod:`tokenbill.api.holds.nchf`), SQL, Kafka, the clock.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from billing.reservations.amounts import NOTHING
from billing.reservations.hold import CHARGING, OPEN, RELEASED, Counts, Hold, Terms
from billing.reservations.operations import HoldContext, Settled, gone, repeated, reserve, settle, with_step
from schemas.meters import canonical_counts
from schemas.refusals import Refusal
from schemas.times import DAY_US, MINUTE_US

SESSION_US = DAY_US
"""How long a session may be silent."""
QUOTA_US = 5 * MINUTE_US
"""How long a granted quota may be used (``validityTime``)."""
LATE_US = MINUTE_US
"""How much longer it is held: a gateway reports when the validity has ended."""


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """What a request says of one rating group: ``used`` since the last report (None: nothing was reported), and the
    counts that are asked for (None: no quota is asked for)."""

    rating_group: int
    dimensions: Mapping[str, str]
    used: Counts | None
    wanted: Counts | None


@dataclass(frozen=True, slots=True)
class GroupGrant:
    """What became of one rating group: the hold of its quota, or why there is none (None: none was asked for)."""

    rating_group: int
    result: Hold | Refusal | None


@dataclass(frozen=True, slots=True)
class Answered:
    """An invocation decided: its usage events, and what its answer says (kept for a repetition)."""

    events: tuple[str, ...]
    answer: Mapping[str, Any]


def group_id(session: str, rating_group: int) -> str:
    """Id of the hold of a rating group."""
    return f"{session}/{rating_group}"


def wanted_holds(session: str, groups: Sequence[GroupUsage], invocation: int) -> list[str]:
    """The holds that an invocation looks at."""
    names = [group_id(session, group.rating_group) for group in groups]
    return [session, *names, *(f"{name}/{invocation}" for name in names)]


def open_session(scene: HoldContext, session: str, account: str, sha256: str) -> Hold | Refusal:
    """Begin a session; ``session_exists`` where it began before, ``unknown_account``."""
    if session in scene.holds:
        return Refusal("session_exists", f"session {session!r} began before")
    if scene.account is None:
        return Refusal("unknown_account", f"account {account!r} was never opened")
    began = Hold(
        *(session, account, CHARGING, OPEN, NOTHING, Terms({})),
        *(scene.now_us, scene.now_us + SESSION_US),
    )
    scene.put(with_step(began, "create", sha256))
    return scene.holds[session]


def invoke(
    scene: HoldContext,
    session: str,
    invocation: int,
    sha256: str,
    groups: Sequence[GroupUsage],
    *,
    final: bool,
    debit: bool = False,
) -> tuple[list[GroupGrant], list[str]] | Answered | Refusal:
    """Record used units and grant quota. ``final`` ends the session and gives back everything. ``debit`` (immediate
    event charging) records what is granted as used: nobody will report it; it is granted whole or not at all.

    Returns the grants and the usage events of a new invocation; what was kept of a repeated one; or why it is refused:
    ``unknown_session``, ``idempotency_key_reused`` (a repetition with another body). Usage of a session that ended is
    recorded all the same.
    """
    found = scene.holds.get(session)
    if found is None:
        return Refusal("unknown_session", f"there is no charging session {session!r}")
    known = repeated(found, str(invocation), sha256)
    if isinstance(known, Refusal):
        return known
    parts = [f"{group_id(session, group.rating_group)}/{invocation}" for group in groups]
    if known is not None:
        events = [part.event for name in parts if (part := scene.holds.get(name)) is not None]
        return Answered(tuple(event for event in events if event is not None), known["answer"])
    for name in parts:  # of an invocation that the session no longer remembers
        earlier = scene.holds.get(name)
        if earlier is not None and isinstance(reused := repeated(earlier, "create", sha256), Refusal):
            return reused
    ended = gone(found, scene.now_us)
    sent: list[str] = []
    grants: list[GroupGrant] = []
    for group in groups:
        if debit:
            result = ended or _grant(scene, found, group, sha256, accept_partial=False)
            used = (*(group.used or ()), *(result.terms.counts if isinstance(result, Hold) else ()))
            sent += _settle_group(scene, found, replace(group, used=_added(used)), invocation, sha256)
        else:
            sent += _settle_group(scene, found, group, invocation, sha256)
            result = ended or _grant(scene, found, group, sha256, accept_partial=True)
        grants.append(GroupGrant(group.rating_group, result))
    if final:
        for hold in [hold for hold in scene.holds.values() if hold.kind == CHARGING and hold.state == OPEN]:
            scene.put(replace(hold, state=RELEASED))
    elif ended is None:
        scene.put(replace(found, expires_us=scene.now_us + SESSION_US))
    return grants, sent


def keep_answer(scene: HoldContext, session: str, invocation: int, sha256: str, answer: Mapping[str, Any]) -> None:
    """Remember what an invocation was answered."""
    scene.put(with_step(scene.holds[session], str(invocation), sha256, answer=answer))


def _settle_group(scene: HoldContext, session: Hold, group: GroupUsage, invocation: int, sha256: str) -> list[str]:
    if not group.used:
        return []
    name = group_id(session.reservation_id, group.rating_group)
    if name not in scene.holds:
        # Units that were used without a quota: a hold that ended as it began carries them.
        bare = Hold(
            *(name, session.account, CHARGING, RELEASED, NOTHING, Terms(group.dimensions)),
            *(scene.now_us, scene.now_us),
        )
        scene.put(bare)
    settled = settle(scene, name, group.used, str(invocation), sha256, final=True)
    return [settled.event] if isinstance(settled, Settled) else []


def _added(counts: Counts) -> Counts:
    sums: dict[str, int] = {}
    for meter, count in counts:
        sums[meter] = sums.get(meter, 0) + count
    return canonical_counts(sums)


def _grant(
    scene: HoldContext, session: Hold, group: GroupUsage, sha256: str, *, accept_partial: bool
) -> Hold | Refusal | None:
    """Give back what is left of the group's quota and grant anew; the hold keeps its id."""
    name = group_id(session.reservation_id, group.rating_group)
    before = scene.holds.get(name)
    if before is not None and group.wanted is not None:
        scene.put(replace(before, state=RELEASED, held=NOTHING))
        del scene.holds[name]
    if not group.wanted:
        return None
    asked = Hold(name, session.account, CHARGING, OPEN, NOTHING, Terms(group.dimensions), 0, 0)
    granted = reserve(scene, asked, group.wanted, QUOTA_US + LATE_US, sha256, accept_partial)
    if isinstance(granted, Refusal) and before is not None:
        scene.holds[name] = scene.changed[name]
    return granted
