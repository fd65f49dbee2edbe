"""Charging sessions of a telecom gateway (3GPP TS 32.290, 32.291): quota by rating group, as holds. Plain rules.

A session is a hold with empty amounts; each of its rating groups has a hold for the quota granted last. Used units
move to separate holds, which their usage events name (:func:`billing.reservations.operations.settle`). A repeated
invocation returns the answer of the first. Never: the JSON of 3GPP (:mod:`tokenbill.api.holds.nchf`), SQL, Kafka, the
clock.

Used units have happened, so no fault of a request loses them. Units that the engine's rules would reject are sent as
usage events of their own: the engine keeps them in suspense with its reason, and the other units are rated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from billing.accounts.held import NOTHING
from billing.reservations.hold import (
    CHARGING,
    HOLD_OPEN,
    HOLD_RELEASED,
    SETTLEMENT,
    Hold,
    Terms,
    settlement_event,
)
from billing.reservations.operations import (
    SETTLEMENT_US,
    HoldContext,
    Settled,
    not_open,
    repeated,
    reserve,
    settle,
    too_many_steps,
    with_step,
)
from schemas.meters import MAX_COUNT, Counts, canonical_counts
from schemas.refusals import Refusal
from schemas.times import DAY_US, MINUTE_US

SESSION_US = DAY_US
"""Lifetime of a session after its last invocation."""
QUOTA_US = 5 * MINUTE_US
"""Validity of a granted quota (``validityTime``)."""
MAX_SESSION_LATE_US = MINUTE_US
"""Extra time for which a quota is held, because a gateway reports usage after the validity has ended."""
NOTIFY = "notify"
"""Step of a session with the address of its gateway, its rating groups and the price book that answered it last."""
MOST_GROUPS_NOTED = 1_000
MOST_GROUPS_HELD = 256
"""Number of groups of one request that get quota, and whose used units are held until their commit. Units of further
groups are recorded without a hold, so that a request of thousands of groups does not keep the account locked."""
_ANSWERS_KEPT = 32
_OLDER = "older"
_DIGITS_APART = 16
"""Digits of the digest that distinguishes invocations of one number."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """One request of a session: its number, and what distinguishes it from another one of the same number.

    ``sha256`` is the digest of all of it, ``content`` the digest without its time. ``time_us`` is the time by the
    gateway's clock, 0 if it cannot be read.
    """

    number: int
    sha256: str
    content: str = ""
    time_us: int = 0
    retransmitted: bool = False


@dataclass(frozen=True, slots=True)
class GroupUsage:
    """The part of a request for one rating group.

    ``used`` are the counts of each container since the last report. ``wanted`` are the counts of the requested quota;
    of several, the dearest are held; empty: no quota requested. ``unread`` are the numbers of containers that are no
    counts of a meter, by their names. ``key`` distinguishes groups of one number, such as those of several user planes.
    """

    rating_group: int | None
    dimensions: Mapping[str, str]
    used: tuple[Counts, ...] = ()
    wanted: tuple[Counts, ...] = ()
    unread: tuple[Mapping[str, Any], ...] = ()
    key: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def terms(self) -> Terms:
        """Return the terms of a hold for this group, without counts."""
        return Terms(self.dimensions, attributes=self.attributes)

    def has_units(self) -> bool:
        """Return True if units were used."""
        return bool(self.used or self.unread)


@dataclass(frozen=True, slots=True)
class GroupGrant:
    """Result for one rating group: the hold of its quota, the refusal, or None if no quota was requested."""

    rating_group: int | None
    result: Hold | Refusal | None


@dataclass(frozen=True, slots=True)
class Answered:
    """The stored result of a repeated invocation: its usage events and its answer."""

    events: tuple[str, ...]
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NotCarriedOut:
    """A refusal of an invocation, and the usage events of its units, which are sent nevertheless."""

    refusal: Refusal
    events: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Invoked:
    """A new invocation: the step under which its answer is stored, its grants, and its usage events."""

    step: str
    grants: tuple[GroupGrant, ...]
    events: tuple[str, ...]


def group_id(session: str, group: GroupUsage) -> str:
    """Return the id of the hold of a rating group."""
    return f"{session}/{group.key or group.rating_group}"


def wanted_holds(session: str, groups: Sequence[GroupUsage], invocation: Invocation) -> list[str]:
    """Return the ids of the holds that an invocation reads."""
    names = [(group_id(session, group), len(group.used) + len(group.unread)) for group in groups]
    steps = (str(invocation.number), _apart(invocation))
    parts = [
        part
        for name, most in names
        for step in steps
        for part in (f"{name}/{step}", *(f"{name}/{step}/{place}" for place in range(2, most + 1)))
    ]
    return [session, *(name for name, _ in names), *parts]


def open_session(
    context: HoldContext, session: str, account: str, sha256: str, number: int | None = None
) -> Hold | Refusal:
    """Open a session whose first invocation has a number.

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
    context.put(with_step(began, "create", sha256, number=number))
    return context.holds[session]


def invoke(
    context: HoldContext,
    session: str,
    invocation: Invocation,
    groups: Sequence[GroupUsage],
    *,
    final: bool,
    debit: bool = False,
) -> Invoked | Answered | NotCarriedOut:
    """Record used units and grant quota.

    ``final`` ends the session and releases all its holds. ``debit`` (immediate event charging) records the granted
    counts as used, because no report follows; they are granted completely or not at all. Usage of a session that has
    ended is recorded nevertheless. Units that the engine's rules would reject are sent too, and their group gets the
    rejection instead of a quota.

    Returns:
        A new invocation, the stored result of a repeated one, or a refusal with ``unknown_session``,
        ``idempotency_key_reused`` (the number of another invocation), ``answer_not_kept`` (a repetition of an old one)
        or ``too_many_steps`` (numbers with too many holes). Units that a refused invocation reports are recorded, if
        none were recorded of their group under its number; others of that number become conflicts of identity.
    """
    found = context.holds.get(session)
    if found is None:
        return NotCarriedOut(Refusal("unknown_session", f"there is no charging session {session!r}"))
    step = _step_of(found, invocation)
    if isinstance(step, tuple):
        parts = [part for group in groups for part in _sent_parts(context, group_id(session, group), step[0])]
        return Answered(tuple(part.event for part in parts if part.event is not None), step[1]["answer"])
    refused: Refusal | None = None
    if isinstance(step, Refusal):
        refused, step = step, str(invocation.number)
    else:
        refused = _why_not(context, found, groups, step, invocation)
    if refused is not None:
        return NotCarriedOut(refused, tuple(_set_aside(context, found, groups, step, invocation.sha256)))
    ended = not_open(found, context.now_us)
    sent: list[str] = []
    grants: list[GroupGrant] = []
    for place, group in enumerate(groups):
        result: Hold | Refusal | None
        if place >= MOST_GROUPS_HELD:
            events, rejected = _record(context, found, group, step, invocation.sha256, held=False)
            result = ended or rejected or (_one_too_many() if group.wanted else None)
        elif debit:
            result = ended or _grant(context, found, group, invocation.sha256, accept_partial=False)
            used = (*group.used, result.terms.counts) if isinstance(result, Hold) else group.used
            events, rejected = _record(context, found, replace(group, used=used), step, invocation.sha256)
            result = rejected or result
        else:
            events, rejected = _record(context, found, group, step, invocation.sha256)
            result = ended or rejected or _grant(context, found, group, invocation.sha256, accept_partial=True)
        sent += events
        grants.append(GroupGrant(group.rating_group, result))
    if final:
        for hold in [hold for hold in context.holds.values() if hold.kind == CHARGING and hold.state == HOLD_OPEN]:
            context.put(replace(hold, state=HOLD_RELEASED))
    elif ended is None:
        context.put(replace(found, expires_us=context.now_us + SESSION_US))
    return Invoked(step, tuple(grants), tuple(sent))


def keep_answer(
    context: HoldContext, session: str, step: str, invocation: Invocation, answer: Mapping[str, Any]
) -> None:
    """Store the answer of an invocation, for a repetition.

    Only the last answers are kept. Of older invocations the numbers are kept, so that none is carried out again.
    Invocations that share a number are recognised by the holds of their units.
    """
    before = context.holds[session]
    last_us = max((before.steps[name].get("at_us", 0) for name in _taken(before)), default=0)
    order = {"content": invocation.content, "time_us": invocation.time_us, "at_us": max(context.now_us, last_us + 1)}
    hold = with_step(before, step, invocation.sha256, answer=answer, **order)
    taken = sorted(_taken(hold), key=lambda name: (hold.steps[name].get("at_us", 0), _number(name)), reverse=True)
    forgotten = taken[_ANSWERS_KEPT:]
    if forgotten:
        steps = {name: kept for name, kept in hold.steps.items() if name not in forgotten}
        runs = _with_numbers(_older(hold), [_number(name) for name in forgotten if name.isdigit()])
        hold = replace(hold, steps=steps | {_OLDER: {"sha256": "", "runs": runs}})
    context.put(hold)


def note_gateway(context: HoldContext, session: str, uri: str | None, groups: Sequence[int]) -> None:
    """Note where the gateway of a session is notified, and what it is to ask for again."""
    hold = context.holds[session]
    known = hold.steps.get(NOTIFY, {"uri": None, "groups": []})
    uri = uri or known["uri"]
    if uri is None or context.account is None:
        return
    book = context.tariff.catalog.price_book_at(context.account.price_book, context.now_us)
    noted = sorted({*known["groups"], *groups})[:MOST_GROUPS_NOTED]
    context.put(with_step(hold, NOTIFY, "", uri=uri, groups=noted, book="" if book is None else book.label))


def abort(context: HoldContext, session: str) -> Hold | Refusal:
    """End a session from this side: its quotas are released, and what its gateway still reports is recorded.

    Returns:
        The hold of the session, or a refusal with ``unknown_session``.
    """
    found = context.holds.get(session)
    if found is None:
        return Refusal("unknown_session", f"there is no charging session {session!r}")
    for hold in [hold for hold in context.holds.values() if hold.kind == CHARGING and hold.state == HOLD_OPEN]:
        context.put(replace(hold, state=HOLD_RELEASED))
    return context.holds[session]


def keep_units(
    context: HoldContext, session: str, account: str, groups: Sequence[GroupUsage], invocation: Invocation
) -> list[str]:
    """Return the usage events of units whose session cannot be opened. The engine keeps them in suspense."""
    step = str(invocation.number)
    events: list[str] = []
    for group in groups:
        name = group_id(session, group)
        known = _sent_parts(context, name, step)
        if known:
            events += [part.event for part in known if part.event is not None]
            continue
        units = [dict(counts) for counts in _merged(group.used)] + list(group.unread)
        terms = group.terms()
        for place, usage in enumerate(units, 1):
            events.append(_keep(context, account, terms, _part_id(name, step, place), usage, invocation.sha256))
    return events


def _apart(invocation: Invocation) -> str:
    """Return the step of an invocation whose number another one had before."""
    return f"{invocation.number}-{invocation.sha256[:_DIGITS_APART]}"


def _number(step: str) -> int:
    return int(step.partition("-")[0])


def _taken(session: Hold) -> list[str]:
    """Return the steps of the invocations whose answers are kept."""
    return [step for step in session.steps if step[:1].isdigit()]


def _step_of(session: Hold, invocation: Invocation) -> str | tuple[str, Mapping[str, Any]] | Refusal:
    """Return the step of an invocation: its name if it is new, its name and what is kept of it if it is repeated.

    A gateway whose number never moves is recognised by its numbers. Its invocations are distinguished by content and
    time, so that a report of the same units a moment later is another one. If the number moves, it stands for one
    invocation, whatever the time says.
    """
    number = invocation.number
    taken = _taken(session)
    same = [step for step in taken if _number(step) == number]
    for step in same:
        if session.steps[step]["sha256"] == invocation.sha256:
            return step, session.steps[step]
    older = _older(session)
    forgotten = any(first <= number <= last for first, last in older)
    if not same and not forgotten:
        return str(number)
    numbers = {_number(step) for step in taken} | {one for run in older for one in run}
    began = session.steps["create"].get("number")
    unmoved = numbers == {number}
    stuck = numbers - {began} == {number}
    if invocation.retransmitted or not unmoved:
        for step in same:
            if session.steps[step].get("content", "") == invocation.content != "":
                return step, session.steps[step]
    later = all(invocation.time_us > session.steps[step].get("time_us", 0) for step in same)
    if unmoved or (stuck and later and not invocation.retransmitted):
        return _apart(invocation)
    if not same:
        return Refusal(
            "answer_not_kept",
            f"invocation {number} of session {session.reservation_id!r} was answered; its answer is not kept",
        )
    return Refusal("idempotency_key_reused", f"invocation {number} was made before with another body")


def _why_not(
    context: HoldContext, session: Hold, groups: Sequence[GroupUsage], step: str, invocation: Invocation
) -> Refusal | None:
    """Return the refusal of an invocation whose answer is not kept but whose holds are, or that has no place."""
    for group in groups:
        part = context.holds.get(f"{group_id(session.reservation_id, group)}/{step}")
        if part is None:
            continue
        reused = repeated(part, "create", invocation.sha256)
        if isinstance(reused, Refusal):
            return reused
        return Refusal(
            "answer_not_kept",
            f"invocation {step} of session {session.reservation_id!r} was answered; its answer is not kept",
        )
    return too_many_steps(len(_older(session)), session.reservation_id)


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


def _part_id(name: str, step: str, place: int) -> str:
    return f"{name}/{step}" if place == 1 else f"{name}/{step}/{place}"


def _sent_parts(context: HoldContext, name: str, step: str) -> list[Hold]:
    """Return the settlements of a step that no commit has decided."""
    found: list[Hold] = []
    place = 1
    while (part := context.holds.get(_part_id(name, step, place))) is not None:
        found += [part] if part.state == HOLD_OPEN else []
        place += 1
    return found


@dataclass(frozen=True, slots=True)
class _Sorted:
    """Used units of a group: counts that would be rated, one event each; others; the first rejection."""

    rated: tuple[Counts, ...]
    kept: tuple[Mapping[str, Any], ...]
    rejected: Refusal | None


def _sort(context: HoldContext, session: Hold, group: GroupUsage, step: str) -> _Sorted:
    """Sort the used units of a group by the engine's rules. Usually all of them are one event."""
    name = group_id(session.reservation_id, group)
    known = context.holds.get(name)
    terms = group.terms() if known is None else known.terms

    def rejection(counts: Counts) -> Refusal | None:
        return context.rejection_of(
            settlement_event(session.account, terms, dict(counts), f"{name}/{step}", context.now_us)
        )

    first: Refusal | None = None
    if group.unread:
        names = ", ".join(sorted({one for usage in group.unread for one in usage}))
        first = Refusal("invalid_charging_data", f"no meter counts {names}")
    whole = _added(group.used)
    rejected = rejection(whole) if whole else None
    if rejected is None:
        return _Sorted((whole,) if whole else (), group.unread, first)
    rated: list[Counts] = []
    kept: list[Counts] = []
    for counts in group.used:
        refused = rejection(counts)
        if refused is not None:
            kept.append(counts)
            first = first or refused
            continue
        sum_ = _added((rated[-1], counts)) if rated else counts
        if rated and rejection(sum_) is None:
            rated[-1] = sum_
        else:
            rated.append(counts)
    return _Sorted(tuple(rated), (*(dict(counts) for counts in _merged(kept)), *group.unread), first)


def _merged(kept: Sequence[Counts]) -> list[Counts]:
    """Return counts, added up where the sums are counts."""
    merged: list[Counts] = []
    for counts in kept:
        sum_ = _added((merged[-1], counts)) if merged else counts
        if merged and max(count for _, count in sum_) <= MAX_COUNT:
            merged[-1] = sum_
        else:
            merged.append(counts)
    return merged


def _one_too_many() -> Refusal:
    return Refusal("too_many_groups", f"quota for {MOST_GROUPS_HELD} groups is granted at once: ask for others later")


def _record(
    context: HoldContext, session: Hold, group: GroupUsage, step: str, sha256: str, *, held: bool = True
) -> tuple[list[str], Refusal | None]:
    """Settle the used units of a group. Return their events, and the rejection of units that are not rated.

    ``held`` of False holds nothing for them until their commit.
    """
    if not group.has_units():
        return [], None
    units = _sort(context, session, group, step)
    name = group_id(session.reservation_id, group)
    known = context.holds.get(name)
    terms = group.terms() if known is None else known.terms
    if not held:
        all_units = (*(dict(counts) for counts in units.rated), *units.kept)
        names = [_part_id(name, step, place) for place in range(1, len(all_units) + 1)]
        sent = [
            _keep(context, session.account, terms, part_id, usage, sha256)
            for part_id, usage in zip(names, all_units, strict=True)
        ]
        return sent, units.rejected
    if units.rated and known is None:
        # Units used without a quota are settled on a hold that is released from the beginning.
        bare = Hold(
            *(name, session.account, CHARGING, HOLD_RELEASED, NOTHING, group.terms()),
            *(context.now_us, context.now_us),
        )
        context.put(bare)
    events: list[str] = []
    for place, counts in enumerate(units.rated, 1):
        settled = settle(context, name, counts, step if place == 1 else f"{step}/{place}", sha256, final=True)
        events += [settled.event] if isinstance(settled, Settled) else []
    for place, usage in enumerate(units.kept, len(units.rated) + 1):
        part_id = _part_id(name, step, place)
        events.append(_keep(context, session.account, terms, part_id, usage, sha256))
    return events, units.rejected


def _keep(context: HoldContext, account: str, terms: Terms, part_id: str, usage: Mapping[str, Any], sha256: str) -> str:
    """Store a usage event as a settlement that holds nothing. Return the event."""
    event = settlement_event(account, terms, usage, part_id, context.now_us)
    made = Hold(
        *(part_id, account, SETTLEMENT, HOLD_OPEN, NOTHING, Terms(terms.dimensions, attributes=terms.attributes)),
        *(context.now_us, context.now_us + SETTLEMENT_US),
        event=event,
    )
    context.put(with_step(made, "create", sha256))
    return event


def _set_aside(context: HoldContext, session: Hold, groups: Sequence[GroupUsage], step: str, sha256: str) -> list[str]:
    """Return the events of the units that a refused invocation reports.

    Units of a group that has none under this step are settled. Other units get the identity of those, so that the
    engine keeps them as conflicts of identity and rates neither twice.
    """
    events: list[str] = []
    for group in groups:
        name = group_id(session.reservation_id, group)
        part = context.holds.get(f"{name}/{step}")
        if not group.has_units() or (part is not None and part.steps["create"]["sha256"] == sha256):
            continue
        if part is None:
            events += _record(context, session, group, step, sha256)[0]
            continue
        units = _sort(context, session, group, step)
        for place, counts in enumerate(units.rated, 1):
            if place == 1 and counts == part.terms.counts:
                continue
            part_id = _part_id(name, step, place)
            events.append(settlement_event(session.account, part.terms, dict(counts), part_id, part.created_us))
        for place, usage in enumerate(units.kept, len(units.rated) + 1):
            part_id = _part_id(name, step, place)
            events.append(settlement_event(session.account, part.terms, usage, part_id, part.created_us))
    return events


def _added(counts: Sequence[Counts]) -> Counts:
    sums: dict[str, int] = {}
    for one in counts:
        for meter, count in one:
            sums[meter] = sums.get(meter, 0) + count
    return canonical_counts(sums)


def _grant(
    context: HoldContext, session: Hold, group: GroupUsage, sha256: str, *, accept_partial: bool
) -> Hold | Refusal | None:
    """Release the rest of the group's quota and grant a new one under the same hold id."""
    if not group.wanted:
        return None
    name = group_id(session.reservation_id, group)
    before = context.holds.get(name)
    if before is not None:
        context.put(replace(before, state=HOLD_RELEASED, held=NOTHING))
        del context.holds[name]
    asked = Hold(name, session.account, CHARGING, HOLD_OPEN, NOTHING, group.terms(), 0, 0)
    wanted = _dearest(context, asked, group.wanted)
    granted = reserve(context, asked, wanted, QUOTA_US + MAX_SESSION_LATE_US, sha256, accept_partial)
    if isinstance(granted, Refusal) and before is not None:
        context.holds[name] = context.changed[name]
    return granted


def _dearest(context: HoldContext, asked: Hold, wanted: Sequence[Counts]) -> Counts:
    """Return the counts with the greatest price: a quota that may be used as any of them is held as these."""
    if len(wanted) == 1 or context.account is None:
        return wanted[0]
    best, price = wanted[0], (-1, -1)
    for counts in wanted:
        rated = context.tariff.rate(context.account, context.usage_of(asked.account, asked.terms, counts))
        if not isinstance(rated, Refusal) and (rated[1].amount_pico, rated[1].standard_micro) > price:
            best, price = counts, (rated[1].amount_pico, rated[1].standard_micro)
    return best
