"""Deduction order of buckets, and the match of a bucket and an event."""

from collections.abc import Callable

from billing.accounts.account import SUSPENDED, USED_UP, Account, Bucket, never_begun
from billing.catalog.model import TEXT_DIMENSIONS, Plan, PlanKey
from billing.catalog.patterns import scope_matches
from schemas.usage import UsageEvent

PlanOf = Callable[[PlanKey], Plan]


def deduction_order(bucket: Bucket, plan_of: PlanOf) -> tuple[int, int, bool, int, str]:
    """Return the sort key: priority, earliest expiry, periodic before total, earliest start, bucket id."""
    rule = plan_of(bucket.plan_key).buckets[bucket.bucket_no - 1]
    return (rule.priority, bucket.valid_until_us, rule.kind != "periodic", bucket.valid_from_us, bucket.grant_id)


def sort_buckets(account: Account, plan_of: PlanOf) -> None:
    """Sort an account's buckets into deduction order."""
    account.buckets.sort(key=lambda bucket: deduction_order(bucket, plan_of))


def matches(bucket: Bucket, event: UsageEvent, plan: Plan) -> bool:
    """Return True if an event matches a bucket by time and scope, even if the bucket is empty or has expired.

    A suspended bucket matches nothing. A bucket that was given away whole before its first use matches nothing either,
    because it has no validity period.
    """
    if bucket.status == USED_UP and never_begun(bucket, plan):
        return False
    if bucket.status == SUSPENDED or not bucket.valid_from_us <= event.time_us < bucket.valid_until_us:
        return False
    scope = plan.buckets[bucket.bucket_no - 1].scope
    return not scope or scope_matches(scope, {name: getattr(event, name) for name in TEXT_DIMENSIONS})
