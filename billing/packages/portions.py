"""Portions: quota of a bucket that is granted anew every day, week or month within one cycle, such as a month's quota
of a plan that is paid for a year (docs/reference/plans.md, "Portions").

All portions of a cycle are granted when the cycle is, each as a bucket of its own that is valid for its day, week or
month and pending until then; so liability, refund, change of plan and cancellation treat them as other buckets. The
bucket's share of the fee is spread over them. No clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from billing.accounts.account import Account, Bucket
from billing.accounts.extras import Subscription
from billing.catalog.model import Cycle, Plan, PlanBucket
from billing.packages.cycles import cycle_at, cycle_end_us, cycle_start_us

_BY_MONTHS = ("subscription_month", "months", "years")
_CYCLES = {"day": ("day", 0), "week": ("weeks", 1), "month": ("subscription_month", 0)}


@dataclass(frozen=True, slots=True)
class Portion:
    """Validity of one portion, and which part of a whole one it is: ``part`` of ``whole``."""

    from_us: int
    until_us: int
    part: int = 1
    whole: int = 1


def portion_cycle(plan: Plan, rule: PlanBucket) -> Cycle:
    """Return the portions of a bucket as cycles of their own, in the zone of the plan."""
    kind, length = _CYCLES[rule.every]
    return Cycle(kind, plan.cycle.timezone, length=length)


def portions_of(
    plan: Plan, rule: PlanBucket, anchor_us: int, from_us: int, until_us: int, *, prorated: bool = False
) -> list[Portion]:
    """Return the portions of a bucket between two times, in order.

    They are counted from ``anchor_us``, so that the 31st of a month stays the month's last day. The first begins at
    ``from_us`` and the last ends at ``until_us``. Each is whole, unless ``prorated``: then the first is the part of its
    day, week or month that is left at ``from_us``.
    """
    cycle = portion_cycle(plan, rule)
    number = cycle_at(cycle, anchor_us, from_us)
    found: list[Portion] = []
    begins_us = from_us
    while begins_us < until_us:
        ends_us = cycle_end_us(cycle, anchor_us, number)
        number += 1
        if ends_us <= begins_us:  # a local day that clocks skip
            continue
        part = whole = 1
        if prorated and not found:
            part, whole = ends_us - begins_us, ends_us - cycle_start_us(cycle, anchor_us, number - 1)
        found.append(Portion(begins_us, min(ends_us, until_us), part, whole))
        begins_us = ends_us
    return found


def spread(amount_pico: int, portions: Sequence[Portion], unit_pico: int) -> list[int]:
    """Split an amount between portions by their size, in whole units of ``unit_pico`` (fen for CNY).

    Each gets its share rounded down. The units that are left go to the largest remainders, to the earlier portion where
    they are equal.
    """
    whole = max((one.whole for one in portions), default=1)
    weights = [one.part * whole // one.whole for one in portions]
    total = sum(weights)
    units, finer_pico = divmod(amount_pico, unit_pico)
    shares = [units * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda place: (-(units * weights[place] % total), place))
    for place in by_remainder[: units - sum(shares)]:
        shares[place] += 1
    parts = [share * unit_pico for share in shares]
    parts[-1] += finer_pico
    return parts


def anchor_of(plan: Plan, subscription: Subscription, cycle_starts_us: int) -> int:
    """Return the time from which the portions of a subscription's cycle are counted.

    Months are counted from the first cycle where months define the cycles too, so that both keep the same day.
    """
    return subscription.anchor_us if plan.cycle.kind in _BY_MONTHS else cycle_starts_us


def later_end_us(account: Account, bucket: Bucket, plan: Plan, subscription: Subscription | None, portions: int) -> int:
    """Return the end of the portion that is ``portions`` after that of a bucket."""
    cycle = portion_cycle(plan, plan.buckets[bucket.bucket_no - 1])
    earlier = subscription is not None and bucket.cycle_number < subscription.anchor_cycle
    if earlier or bucket.grant_id in account.extras.received:
        return cycle_end_us(cycle, bucket.valid_until_us, portions)
    anchor_us = min(one.valid_from_us for one in account.granted(bucket.grant) if one.bucket_no == bucket.bucket_no)
    if subscription is not None:
        anchor_us = anchor_of(plan, subscription, anchor_us)
    return cycle_end_us(cycle, anchor_us, cycle_at(cycle, anchor_us, bucket.valid_from_us) + portions)
