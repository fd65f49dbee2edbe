"""Operations on holds: reserve, extend, release, settle, reconcile. Plain rules on a :class:`HoldContext`.

Owns: the states of a hold, the result of a repeated request, and the settlement of usage. A hold counts while it is
open and has not expired; the commit that burns usage naming it closes it. Usage that has happened is never refused: a
settlement on a closed or expired hold is recorded nevertheless. Never: SQL, Kafka, the clock.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from billing.accounts.account import Account
from billing.accounts.held import NOTHING, HeldAmounts, credit_pico
from billing.decide.admission import refused_at_the_door
from billing.reservations.amounts import decide_hold, fees_during, hold_for_used, overcommitted
from billing.reservations.hold import (
    HOLD_OPEN,
    HOLD_RELEASED,
    OFFLINE_GRANT,
    SETTLEMENT,
    Hold,
    Terms,
    settlement_event,
    usage_event,
)
from billing.reservations.tariff import Tariff
from schemas.meters import Counts, canonical_counts
from schemas.refusals import Refusal, Refused
from schemas.times import DAY_US, HOUR_US, format_time_us
from schemas.units import format_pico
from schemas.usage import UsageEvent, attributes_as_text, parse_usage

SETTLEMENT_US = DAY_US
"""Longest time for which settled usage stays on hold until its commit."""
BURNED_LATE_US = HOUR_US
"""Time after the end of a hold in which its usage may still be burned; fees due until then are not held."""
MAX_HOLD_STEPS = 1_000
"""Maximum of steps that a hold remembers; a further one is refused, because a forgotten step could be taken again."""


@dataclass(slots=True)
class HoldContext:
    """Input and output of an operation, read at one moment.

    ``account`` is None if it was never opened. ``held`` is everything held of it, ``holds`` are the requested holds by
    id. ``changed`` are the holds that the operation made or changed; all of them are written, or none.
    """

    now_us: int
    account: Account | None
    held: HeldAmounts
    holds: dict[str, Hold]
    tariff: Tariff
    changed: dict[str, Hold] = field(default_factory=dict)

    def put(self, hold: Hold) -> None:
        """Add or change a hold."""
        before = self.holds.get(hold.reservation_id)
        if before is not None:
            self.held = self.held.minus(before.held_at(self.now_us))
        self.held = self.held.plus(hold.held_at(self.now_us))
        self.holds[hold.reservation_id] = self.changed[hold.reservation_id] = hold

    def usage_of(self, account: str, terms: Terms, counts: Counts, time_us: int | None = None) -> UsageEvent:
        """Return usage under the terms of a hold as an event, at ``time_us`` or now."""
        at_us = self.now_us if time_us is None else time_us
        return usage_event(account, terms, counts, at_us, self.tariff.declared_attributes)

    def forget(self, reservation_id: str) -> None:
        """Undo the making of a hold that holds nothing."""
        del self.holds[reservation_id], self.changed[reservation_id]

    def rejection_of(self, event: str) -> Refusal | None:
        """Return the rejection that the engine would decide for a usage event of this account, read by its parser."""
        tariff = self.tariff
        read = parse_usage(
            event.encode(), declared_meters=tariff.declared_meters, declared_attributes=tariff.declared_attributes
        )
        if isinstance(read, Refusal) or self.account is None:
            return read if isinstance(read, Refusal) else None
        account = self.account
        rules, counters = self.tariff.usage_rules, account.extras.counters
        return refused_at_the_door(read, account.price_book, self.now_us, rules, counters)

    def needs_allotting(self) -> bool:
        """Return True if the open holds must be decided again (:meth:`allot`), because a bucket is overcommitted."""
        return self.account is not None and overcommitted(self.account, self.held)

    def allot(self, open_holds: Iterable[Hold]) -> None:
        """Decide the amounts of each open hold again, the oldest first.

        Needed after a burn that took quota another hold had counted on, and left what its own hold had reserved.
        """
        self.held = NOTHING
        for hold in sorted(open_holds, key=lambda hold: (hold.created_us, hold.reservation_id)):
            held = NOTHING
            if self.account is not None and hold.held_at(self.now_us) != NOTHING:
                event = self.usage_of(hold.account, hold.terms, hold.terms.counts)
                held = hold_for_used(self.account, self.held, event, self.tariff)
            self.held = self.held.plus(held)
            if hold.reservation_id in self.holds:
                self.holds[hold.reservation_id] = replace(hold, held=held)


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation to decide under the account's lock.

    ``wanted`` are the ids of the holds to load into :attr:`HoldContext.holds`.
    """

    account: str
    wanted: tuple[str, ...]
    decide: Callable[[HoldContext], Any]
    fresh: bool = False
    """True if the wanted ids are freshly generated for this operation; only a retry of it can find them."""


@dataclass(frozen=True, slots=True)
class Settled:
    """Settled usage: the hold it was settled on, its event, and the problem if it did not come out of that hold."""

    hold: Hold
    event: str
    problem: Refusal | None
    decided: bool = False
    """True if a commit has decided the event, so that it is not to be sent again."""


def repeated(hold: Hold, step: str, sha256: str) -> Refusal | Mapping[str, Any] | None:
    """Return the stored result of a step, None if it is new, or a refusal if it was taken with another body."""
    known = hold.steps.get(step)
    if known is None:
        return None
    if known["sha256"] != sha256:
        return Refusal("idempotency_key_reused", f"the key of this request was used before with another body ({step})")
    return known


def with_step(hold: Hold, step: str, sha256: str, **answer: Any) -> Hold:
    """Return the hold with a step added. Every step is kept for as long as the hold, so that none is taken twice."""
    return replace(hold, steps={**hold.steps, step: {"sha256": sha256} | answer})


def too_many_steps(steps: int, name: str) -> Refusal | None:
    """Return a refusal if a hold has as many steps as it can remember, else None."""
    if steps < MAX_HOLD_STEPS:
        return None
    return Refusal("too_many_steps", f"{name!r} has {steps} steps, and {MAX_HOLD_STEPS} are the most; make a new one")


def reserve(
    context: HoldContext, hold: Hold, counts: Counts, validity_us: int, sha256: str, accept_partial: bool
) -> Hold | Refusal:
    """Make a hold for usage of at most ``counts``. ``hold`` supplies identity, kind and dimensions.

    Returns:
        The hold, or a refusal of :func:`billing.reservations.amounts.decide_hold`, or one with ``unknown_account``,
        ``idempotency_key_reused``, or ``invalid_data`` of an attribute that a price book declares.
    """
    existing = context.holds.get(hold.reservation_id)
    if existing is not None:
        known = repeated(existing, "create", sha256)
        return known if isinstance(known, Refusal) else existing
    if context.account is None:
        return Refusal("unknown_account", f"account {hold.account!r} was never opened")
    try:
        attributes_as_text(hold.terms.attributes, context.tariff.declared_attributes, "attributes")
    except Refused as problem:
        return Refusal("invalid_data", problem.refusal.detail)
    event = context.usage_of(hold.account, hold.terms, counts)
    expires_us = context.now_us + validity_us
    granted = decide_hold(
        context.account, context.held, event, context.tariff, accept_partial, expires_us + BURNED_LATE_US
    )
    if isinstance(granted, Refusal):
        return granted
    partial = granted.counts != counts
    terms = replace(
        hold.terms,
        counts=granted.counts,
        amount_pico=granted.amount_pico,
        standard_micro=granted.standard_micro,
        partial=partial,
    )
    made = Hold(
        *(hold.reservation_id, hold.account, hold.kind, HOLD_OPEN, granted.held, terms, context.now_us, expires_us),
        steps={"create": {"sha256": sha256}},
    )
    context.put(made)
    return made


def find(context: HoldContext, reservation_id: str) -> Hold | Refusal:
    """Return a hold in any state, or a refusal with ``unknown_reservation``."""
    hold = context.holds.get(reservation_id)
    return hold or Refusal("unknown_reservation", f"there is no reservation {reservation_id!r}")


def not_open(hold: Hold, now_us: int) -> Refusal | None:
    """Return None if the hold is open, else a refusal with ``reservation_expired`` or ``reservation_closed``."""
    state = hold.shown_state(now_us)
    if state == "expired":
        expired = format_time_us(hold.expires_us)
        return Refusal("reservation_expired", f"reservation {hold.reservation_id!r} expired at {expired}")
    if state != HOLD_OPEN:
        return Refusal("reservation_closed", f"reservation {hold.reservation_id!r} is {state}")
    return None


def extend(
    context: HoldContext, reservation_id: str, more: Counts, validity_us: int | None, step: str | None, sha256: str
) -> Hold | Refusal:
    """Extend a hold by more usage, by time, or both; a refused extension changes nothing.

    An extension without a ``step`` cannot be repeated: each is another one.
    """
    hold = find(context, reservation_id)
    if isinstance(hold, Refusal):
        return hold
    known = None if step is None else repeated(hold, step, sha256)
    if known is not None:
        return known if isinstance(known, Refusal) else hold
    refused = not_open(hold, context.now_us)
    if refused is None and step is not None:
        refused = too_many_steps(len(hold.steps), reservation_id)
    if refused is not None:
        return refused
    expires_us = hold.expires_us if validity_us is None else max(hold.expires_us, context.now_us + validity_us)
    if more and context.account is not None:
        sums = dict(hold.terms.counts)
        for meter, count in more:
            sums[meter] = sums.get(meter, 0) + count
        event = context.usage_of(hold.account, hold.terms, canonical_counts(sums))
        before = context.held.minus(hold.held)
        granted = decide_hold(context.account, before, event, context.tariff, until_us=expires_us + BURNED_LATE_US)
        if isinstance(granted, Refusal):
            return granted
        hold = replace(
            hold,
            held=granted.held,
            terms=replace(
                hold.terms,
                counts=granted.counts,
                amount_pico=granted.amount_pico,
                standard_micro=granted.standard_micro,
            ),
        )
    elif expires_us > hold.expires_us and (too_long := _too_long(context, hold, expires_us)) is not None:
        return too_long
    hold = replace(hold, expires_us=expires_us)
    context.put(hold if step is None else with_step(hold, step, sha256))
    return context.holds[reservation_id]


def _too_long(context: HoldContext, hold: Hold, expires_us: int) -> Refusal | None:
    """Return a refusal if a renewal until a later end needs money that is held; None if the hold may be longer."""
    account = context.account
    credit = None if account is None else credit_pico(account)
    if account is None or credit is None or not hold.held.wallet_pico:
        return None
    fees_pico = fees_during(account, context.tariff, expires_us + BURNED_LATE_US)
    if not fees_pico or account.wallet_pico + credit - context.held.wallet_pico >= fees_pico:
        return None
    return Refusal(
        "insufficient_balance",
        f"a renewal takes {format_pico(fees_pico)} until then, which the wallet lacks beside what is held",
    )


def release(context: HoldContext, reservation_id: str) -> Hold | Refusal:
    """Release everything that a hold reserves; a hold that is no longer open does not change."""
    hold = find(context, reservation_id)
    if isinstance(hold, Refusal):
        return hold
    if not_open(hold, context.now_us) is None:
        context.put(replace(hold, state=HOLD_RELEASED))
    return context.holds[reservation_id]


def settle(
    context: HoldContext,
    reservation_id: str,
    used: Counts,
    step: str,
    sha256: str,
    *,
    final: bool,
    outcome: str = "completed",
    time_us: int | None = None,
) -> Settled | Refusal:
    """Record usage that happened under a hold, once for each ``step``.

    The used part moves from the hold to a separate hold, which the usage event names and its commit closes. So the free
    amounts never grow before the usage is burned. ``final`` releases the rest of the hold. Usage of a hold that is no
    longer open is recorded too, with :attr:`Settled.problem` set.

    Returns:
        The settled usage, or a refusal with ``unknown_reservation`` or ``idempotency_key_reused``, or the rejection of
        the usage by the engine's rules; then nothing changes.
    """
    hold = find(context, reservation_id)
    if isinstance(hold, Refusal):
        return hold
    part_id = f"{reservation_id}/{step}"
    part = context.holds.get(part_id)
    if part is not None and part.event is not None:
        known = repeated(part, "create", sha256)
        if isinstance(known, Refusal):
            return known
        return Settled(hold, part.event, _problem_kept(known), decided=part.state != HOLD_OPEN)
    problem = not_open(hold, context.now_us)
    terms = replace(hold.terms, dimensions={**hold.terms.dimensions, "outcome": outcome}, counts=used, partial=False)
    happened = context.usage_of(hold.account, terms, used, time_us)
    event = settlement_event(hold.account, terms, dict(used), part_id, happened.time_us)
    rejected = context.rejection_of(event)
    if rejected is not None:
        return rejected
    held = NOTHING
    if context.account is not None:
        held = hold_for_used(
            context.account, context.held.minus(hold.held_at(context.now_us)), happened, context.tariff
        )
    if problem is None:
        context.put(replace(hold, state=HOLD_RELEASED) if final else _lowered(context, hold, held, used))
    made = Hold(
        *(part_id, hold.account, SETTLEMENT, HOLD_OPEN, held, terms, context.now_us, context.now_us + SETTLEMENT_US),
        event=event,
    )
    kept = {} if problem is None else {"problem": [problem.code, problem.detail]}
    context.put(with_step(made, "create", sha256, **kept))
    return Settled(context.holds[reservation_id], event, problem)


def _lowered(context: HoldContext, hold: Hold, held: HeldAmounts, used: Counts) -> Hold:
    """Return the hold without a part that was used, priced again."""
    gone_counts = dict(used)
    left = canonical_counts({meter: max(0, count - gone_counts.get(meter, 0)) for meter, count in hold.terms.counts})
    terms = replace(hold.terms, counts=left)
    if context.account is not None:
        priced = context.tariff.rate(context.account, context.usage_of(hold.account, terms, left))
        if not isinstance(priced, Refusal):
            terms = replace(terms, amount_pico=priced[1].amount_pico, standard_micro=priced[1].standard_micro)
    return replace(hold, held=hold.held.minus(held), terms=terms)


def _problem_kept(step: Mapping[str, Any] | None) -> Refusal | None:
    kept = None if step is None else step.get("problem")
    return None if kept is None else Refusal(*kept)


def reconcile(context: HoldContext, reservation_id: str) -> tuple[Hold, Refusal | None] | Refusal:
    """Return an offline grant whose usage is being sent, and a refusal if it is no longer open.

    The last usage event of the grant closes it. Other ids are refused with ``unknown_grant``.
    """
    hold = find(context, reservation_id)
    if isinstance(hold, Refusal) or hold.kind != OFFLINE_GRANT:
        return Refusal("unknown_grant", f"there is no offline grant {reservation_id!r}")
    return hold, not_open(hold, context.now_us)
