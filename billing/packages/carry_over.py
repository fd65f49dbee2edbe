"""Limits of a carry-over: what is left of a bucket beyond the most that its plan carries over expires.

A remainder can be used from the end of its cycle on, but late usage may still lower it until the grace is over, so the
limits are applied then. Until then, what usage of later cycles burned is counted: it is part of the remainder, and at
most the most that may be carried. The time of a carry-over and its new validity are decided in
:mod:`billing.decide.roll_forward`. No SQL, no clock.
"""

from billing import ledger
from billing.accounts.account import Account, Bucket
from billing.accounts.movements import Movement, of_units
from billing.catalog.model import STD_TOKEN, Plan, PlanBucket
from billing.ledger import Postings
from billing.packages.grants import is_carried_on
from billing.packages.liability import earned_pico
from schemas.times import HOUR_US


def is_limited(rule: PlanBucket) -> bool:
    """Return True if a plan limits what is carried over of a bucket."""
    return rule.carry_max_micro is not None or rule.carry_min_micro > 0


def used_ahead(bucket: Bucket, plan: Plan, time_us: int) -> bool:
    """Return True if usage of a time would burn what a limited bucket carries over, before its limits are applied."""
    if not is_limited(plan.buckets[bucket.bucket_no - 1]) or not is_carried_on(bucket, plan):
        return False
    return time_us >= bucket.lapse_at_us - plan.grace_hours * HOUR_US


def kept_micro(account: Account, bucket: Bucket, rule: PlanBucket) -> int:
    """Return what of the remainder of a bucket is carried over; 0 if it falls below the least."""
    used_micro = account.extras.carried_used_micro.get(bucket.grant_id, 0)
    if bucket.remaining_micro + used_micro < rule.carry_min_micro:
        return 0
    if rule.carry_max_micro is None:
        return bucket.remaining_micro
    return max(0, min(bucket.remaining_micro, rule.carry_max_micro - used_micro))


def leave_behind(account: Account, bucket: Bucket, rule: PlanBucket, postings: Postings) -> Movement | None:
    """Take out of a bucket what exceeds the most that is carried over, post it as breakage, and return what moved.

    Its share of the liability is that of a burn. Return None if nothing exceeds.
    """
    lapsed_micro = bucket.remaining_micro - kept_micro(account, bucket, rule)
    account.extras.carried_used_micro.pop(bucket.grant_id, None)
    if not lapsed_micro:
        return None
    lapsed_pico = earned_pico(bucket.liability_pico, lapsed_micro, bucket.remaining_micro)
    bucket.remaining_micro -= lapsed_micro
    bucket.liability_pico -= lapsed_pico
    if bucket.unit == STD_TOKEN:
        account.extras.unburned_micro += lapsed_micro
    detail = str(bucket.plan_key)
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, lapsed_pico),
        (ledger.REVENUE_BREAKAGE, detail, -lapsed_pico),
    )
    return of_units(account, "breakage", bucket, -lapsed_micro, -lapsed_pico, granted_micro=0)
