"""Grants: the buckets of one cycle, or of part of one, and their activation (docs/reference/plans.md).

This module creates the buckets of a purchase or of part of a cycle, and begins buckets that wait for their first use.
The start of a cycle is :mod:`billing.packages.cycles`, the fee :mod:`billing.packages.fees`, renewal
:mod:`billing.packages.subscriptions`.
"""

from dataclasses import dataclass

from billing.accounts.account import ACTIVE, FIRST_USE, NO_END_US, PENDING, Account, Bucket, waits_for_use
from billing.accounts.movements import Movement, granted
from billing.catalog.model import Plan
from billing.ledger import Postings
from billing.packages.cycles import cycle_end_us
from billing.packages.debts import pay_debt
from billing.packages.fees import sell
from billing.packages.first_cycle import fee_of_cycle, quota_of_cycle
from billing.packages.liability import share_liability
from billing.packages.portions import Portion, portions_of, spread
from schemas.currencies import minor_unit_pico
from schemas.times import DAY_US, HOUR_US
from schemas.units import divide_half_even


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open time interval: ``from_us`` is included, ``until_us`` is excluded."""

    from_us: int
    until_us: int


def lapse_us(plan: Plan, ends_us: int) -> int:
    """Return the log time at which a bucket that ends at ``ends_us`` expires: its end plus the plan's grace."""
    return NO_END_US if ends_us >= NO_END_US else ends_us + plan.grace_hours * HOUR_US


def is_carried_on(bucket: Bucket, plan: Plan) -> bool:
    """Return True from the end of a bucket's cycle to the end of its grace, if its remainder is carried over.

    It is valid for the cycles to come already, and late usage of its own cycle burns it too; it lapses, or is carried
    over, when the grace of its own cycle is over.
    """
    carries = plan.buckets[bucket.bucket_no - 1].carry_over_cycles and not bucket.carried_cycles
    return bool(carries) and bucket.lapse_at_us < lapse_us(plan, bucket.valid_until_us)


def end_with_validity(bucket: Bucket, plan: Plan) -> None:
    """Let a bucket that is carried on lapse a grace after its new end, before a command sets an earlier end."""
    if is_carried_on(bucket, plan):
        bucket.lapse_at_us = lapse_us(plan, bucket.valid_until_us)


def add_buckets(
    account: Account,
    plan: Plan,
    grant_id: str,
    span: Span,
    now_us: int,
    net_pico: int,
    *,
    number: int = 1,
    part: int = 1,
    whole: int = 1,
    anchor_us: int | None = None,
) -> list[Bucket]:
    """Add the buckets of a plan for ``part`` of ``whole`` of a cycle, numbered from ``number``, and return them.

    A bucket with portions becomes one for each portion of ``span``, counted from ``anchor_us`` (default: its start); of
    a part of a cycle, the first portion is partial. A partial amount is rounded half even to 1e-6, and is at least
    1e-6.
    """
    added: list[Bucket] = []
    anchor_us = span.from_us if anchor_us is None else anchor_us
    for place, (rule, net_of_rule_pico) in enumerate(zip(plan.buckets, share_liability(net_pico, plan), strict=True)):
        portions, shares_pico = [Portion(span.from_us, span.until_us, part, whole)], [net_of_rule_pico]
        if rule.every:
            ends = (span.from_us, span.until_us)
            portions = portions_of(plan, rule, anchor_us, *ends, prorated=part != whole)
            shares_pico = spread(net_of_rule_pico, portions, minor_unit_pico(plan.currency))
        for portion, liability_pico in zip(portions, shares_pico, strict=True):
            amount_micro = max(1, divide_half_even(rule.amount_micro * portion.part, portion.whole))
            bucket = Bucket(
                grant_id=f"{grant_id}/{number + len(added)}",
                plan=plan.name,
                plan_version=plan.version,
                bucket_no=place + 1,
                unit=rule.unit,
                amount_micro=amount_micro,
                remaining_micro=amount_micro,
                liability_pico=liability_pico,
                valid_from_us=portion.from_us,
                valid_until_us=portion.until_us,
                lapse_at_us=lapse_us(plan, portion.until_us),
                alerts_fired=0,
                status=PENDING if now_us < portion.from_us else ACTIVE,
            )
            added.append(bucket)
    account.buckets += added
    if account.hints is not None:
        account.hints.grants.add(grant_id)
    return added


def grant_package(
    account: Account, plan: Plan, grant_id: str, starts_at_us: int, now_us: int, pay_from: str, postings: Postings
) -> list[Movement]:
    """Add the buckets of one cycle to the account, take the fee, post the sale, and return what moved.

    ``pay_from`` is ``external`` (the fee was paid elsewhere and is posted as cash) or ``wallet``. Buckets of a plan
    that begins with its first use are pending until then; they begin at the latest ``activate_within_days`` after
    ``starts_at_us`` (0: no limit).
    """
    fee = fee_of_cycle(plan, starts_at_us)
    span = Span(starts_at_us, cycle_end_us(plan.cycle, starts_at_us, 1))
    part, whole = quota_of_cycle(plan, starts_at_us)
    if plan.activation == FIRST_USE:
        days = plan.activate_within_days
        span = Span(starts_at_us, starts_at_us + days * DAY_US if days else NO_END_US)
    added = add_buckets(account, plan, grant_id, span, now_us, fee.net_pico, part=part, whole=whole)
    if plan.activation == FIRST_USE:
        for bucket in added:
            bucket.status, bucket.lapse_at_us = PENDING, NO_END_US
    paid = sell(account, plan, grant_id, fee, pay_from, now_us, postings)
    return [paid, *(granted(account, bucket) for bucket in added), *pay_debt(account, plan, added, postings)]


def begin(account: Account, bucket: Bucket, plan: Plan, time_us: int) -> None:
    """Begin the cycle of a grant that waits for its first use; all its buckets begin together."""
    ends_us = cycle_end_us(plan.cycle, time_us, 1)
    for waiting in account.granted(bucket.grant):
        if waits_for_use(waiting, plan):
            waiting.status = ACTIVE
            waiting.valid_from_us, waiting.valid_until_us = time_us, ends_us
            waiting.lapse_at_us = lapse_us(plan, ends_us)
