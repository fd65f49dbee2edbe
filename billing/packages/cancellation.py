"""Refunds of an immediate cancellation: what the plan gives back of the fee of the current cycle.

The plan says how (``cancellation.refund``): nothing, the part by the time that is left, or the part by the quota that
is left. A refund is only promised here. It is paid like every refund, after the grace of the buckets, the way the fee
was paid (:mod:`billing.packages.refunds`), so late usage from before the cancellation lowers it. No SQL, no clock.
"""

from collections import defaultdict
from collections.abc import Sequence

from billing.accounts.account import Account, Bucket
from billing.accounts.deduction_order import PlanOf
from billing.accounts.extras import Subscription
from billing.catalog.model import BY_TIME, NO_REFUND, Plan, PlanKey
from billing.packages.fees import Fee, share_of
from billing.packages.grants import Span
from billing.packages.refunds import promise_refund
from schemas.times import HOUR_US
from schemas.units import MILLION


def promise_refunds(
    account: Account, subscription: Subscription, lasting: Sequence[Bucket], cycle: Span, now_us: int, plan_of: PlanOf
) -> None:
    """Record the refunds of a subscription that is cancelled now; ``lasting`` are its buckets that have not expired.

    Only the fee of the current cycle is given back, by the plan that the subscription has now. Buckets that were
    carried over, replaced by a change of plan or refunded before are not. Packs are given back by their quota, because
    they were not paid for a time.
    """
    key = PlanKey(subscription.plan, subscription.plan_version)
    plan = plan_of(key)
    if plan.cancellation == NO_REFUND or not subscription.granted:
        return
    by_time = _by_time(account, subscription, plan, cycle, now_us) if plan.cancellation == BY_TIME else None
    for bucket in lasting:
        current = bucket.plan_key == key and bucket.cycle_number == subscription.cycle
        ended = bucket.grant_id in subscription.cut_short or bucket.grant_id in account.extras.refunds
        ended = ended or bucket.valid_until_us <= now_us  # a portion within its grace
        if current and not ended and bucket.remaining_micro and (bucket.is_pack or subscription.paid_pico):
            promise_refund(account, bucket, plan, None if bucket.is_pack else by_time)
            bucket.lapse_at_us = min(bucket.lapse_at_us, now_us + plan.grace_hours * HOUR_US)


def _by_time(account: Account, subscription: Subscription, plan: Plan, cycle: Span, now_us: int) -> Fee:
    """Return the fee of the time that is left in the current cycle, for the buckets that were not refunded before.

    As for a change of plan, the time counts from the last payment for this cycle.
    """
    of_fee = [
        bucket
        for bucket in account.buckets
        if bucket.grant == subscription.grant and not bucket.is_pack and bucket.plan_key == (plan.name, plan.version)
    ]
    granted_micro: dict[int, int] = defaultdict(int)  # portions of one bucket of the plan share its part of the fee
    for bucket in of_fee:
        granted_micro[bucket.bucket_no] += bucket.amount_micro
    refunded_micro = sum(
        plan.buckets[bucket.bucket_no - 1].fee_share_micro * bucket.amount_micro // granted_micro[bucket.bucket_no]
        for bucket in of_fee
        if bucket.grant_id in account.extras.refunds
    )
    left_us = cycle.until_us - max(now_us, subscription.paid_from_us)
    paid_us = cycle.until_us - subscription.paid_from_us
    kept_micro = MILLION - refunded_micro
    return share_of(subscription.paid_pico, plan.tax_rate_micro, plan.currency, left_us * kept_micro, paid_us * MILLION)
