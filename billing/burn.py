"""What pays for a rated event: buckets in deduction order, then overage (CONTRACT §3). The plain, obvious rule.

Owns: deduction order, and which buckets an event belongs to. Taking from one bucket is :mod:`billing.deduct`, what no
bucket covers :mod:`billing.overage`. Never: prices, SQL, the clock.
"""

from billing.accounts import SUSPENDED, USED_UP, Account, Bucket
from billing.catalog.model import TEXT_DIMENSIONS, Plan
from billing.catalog.patterns import scope_matches
from billing.deduct import (
    AccountEvent,
    Burned,
    Deduction,
    Payment,
    PlanOf,
    alert_floor_micro,
    earned_pico,
    need_pico,
    take,
)
from billing.grants import never_begun
from billing.ledger import Postings
from billing.overage import settle_overage
from billing.pricing.rate import Rated
from schemas.usage import UsageEvent

__all__ = [
    "AccountEvent",
    "Burned",
    "Deduction",
    "PlanOf",
    "alert_floor_micro",
    "belongs",
    "burn",
    "deduction_order",
    "earned_pico",
    "sort_buckets",
]


def deduction_order(bucket: Bucket, plan_of: PlanOf) -> tuple[int, int, bool, int, str]:
    """Sort key: priority, earliest expiry, periodic before total, earliest start, grant id."""
    rule = plan_of(bucket.plan_key).buckets[bucket.bucket_no - 1]
    return (rule.priority, bucket.valid_until_us, rule.kind != "periodic", bucket.valid_from_us, bucket.grant_id)


def sort_buckets(account: Account, plan_of: PlanOf) -> None:
    """Put an account's buckets into deduction order."""
    account.buckets.sort(key=lambda bucket: deduction_order(bucket, plan_of))


def belongs(bucket: Bucket, event: UsageEvent, plan: Plan) -> bool:
    """Whether an event matches a bucket by time and scope, empty, lapsed or not; a suspended one matches nothing, nor
    one that was given away before its first use, for it has no time."""
    if bucket.status == USED_UP and never_begun(bucket, plan):
        return False
    if bucket.status == SUSPENDED or not bucket.valid_from_us <= event.time_us < bucket.valid_until_us:
        return False
    scope = plan.buckets[bucket.bucket_no - 1].scope
    return not scope or scope_matches(scope, {name: getattr(event, name) for name in TEXT_DIMENSIONS})


def burn(
    account: Account,
    event: UsageEvent,
    rated: Rated,
    tax_rate_micro: int,
    plan_of: PlanOf,
    now_us: int,
    postings: Postings,
) -> Burned:
    """Pay one rated event from the account, changing it, and post the journal lines.

    The account must have been rolled forward to the log's time ``now_us``. Never refuses: usage that happened is
    recorded. A bucket whose unit the event does not need is not for it.
    """
    payment = Payment(account, event, rated, tax_rate_micro, plan_of, now_us, postings)
    matching = [
        bucket
        for bucket in account.buckets
        if belongs(bucket, event, plan_of(bucket.plan_key)) and need_pico(bucket.unit, event, rated)
    ]
    for bucket in matching:
        take(payment, bucket)
    if payment.burned.begun:
        sort_buckets(account, plan_of)
    if payment.share:
        held = len(account.buckets)
        settle_overage(payment, matching)
        if len(account.buckets) > held:  # packs were bought
            sort_buckets(account, plan_of)
    return payment.burned
