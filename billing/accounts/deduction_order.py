"""Deduction order of buckets, and the match of a bucket and an event."""

from bisect import insort
from collections.abc import Callable

from billing.accounts.account import SUSPENDED, USED_UP, Account, Bucket, never_begun
from billing.catalog.model import TEXT_DIMENSIONS, Plan, PlanBucket, PlanKey
from billing.catalog.patterns import scope_matches
from schemas.usage import UsageEvent

PlanOf = Callable[[PlanKey], Plan]
_FEW = 16
"""Number of added buckets up to which they are placed one by one."""


def deduction_order(bucket: Bucket, plan_of: PlanOf) -> tuple[int, int, bool, int, str]:
    """Return the sort key: priority, earliest expiry, periodic before total, earliest start, bucket id."""
    rule = plan_of(bucket.plan_key).buckets[bucket.bucket_no - 1]
    return deduction_key(rule, bucket.valid_until_us, bucket.valid_from_us, bucket.grant_id)


def deduction_key(
    rule: PlanBucket, valid_until_us: int, valid_from_us: int, grant_id: str
) -> tuple[int, int, bool, int, str]:
    """Return the sort key of :func:`deduction_order`, of a bucket's values."""
    return (rule.priority, valid_until_us, rule.kind != "periodic", valid_from_us, grant_id)


def sort_buckets(account: Account, plan_of: PlanOf) -> None:
    """Sort an account's buckets into deduction order."""
    account.buckets.sort(key=lambda bucket: deduction_order(bucket, plan_of))


def place_added(account: Account, known: int, plan_of: PlanOf) -> None:
    """Bring the buckets from place ``known`` on into deduction order; those before are in order already."""
    added = account.buckets[known:]
    if len(added) > _FEW:
        sort_buckets(account, plan_of)
        return
    del account.buckets[known:]
    for bucket in added:
        insort(account.buckets, bucket, key=lambda one: deduction_order(one, plan_of))


def matches(bucket: Bucket, event: UsageEvent, plan: Plan) -> bool:
    """Return True if an event matches a bucket by time and scope, even if the bucket is empty or has expired.

    A suspended bucket matches nothing. A bucket that was given away whole before its first use matches nothing either,
    because it has no validity period.
    """
    if bucket.status == SUSPENDED or not bucket.valid_from_us <= event.time_us < bucket.valid_until_us:
        return False
    if bucket.status == USED_UP and never_begun(bucket, plan):
        return False
    scope = plan.buckets[bucket.bucket_no - 1].scope
    return not scope or scope_matches(scope, {name: getattr(event, name) for name in TEXT_DIMENSIONS})
