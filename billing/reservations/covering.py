"""Shortcut for reservations: find the bucket that alone pays for an event, without burning.

Most reservations need no more. If the shortcut finds no answer, the burn rule (:mod:`billing.burning.burn`) decides.
If it finds a bucket, that rule would take all of the event from this bucket; a property test checks this. Never:
prices, SQL, the clock.
"""

from collections.abc import Mapping

from billing.accounts.account import ACTIVE, PENDING, Account, Bucket
from billing.accounts.deduction_order import PlanOf, deduction_order, matches
from billing.catalog.model import STD_TOKEN
from schemas.usage import UsageEvent


def covering_bucket(
    account: Account, held_micro: Mapping[str, int], event: UsageEvent, standard_micro: int, plan_of: PlanOf
) -> Bucket | None:
    """Return the bucket that pays all of an event's ``standard_micro``, or None if only burning can decide.

    ``held_micro`` (by bucket id) is not available. The account need not be rolled forward.
    """
    if event.time_us >= account.next_due_us:
        return None
    buckets = account.buckets
    if len(buckets) > 1:
        buckets = sorted(buckets, key=lambda bucket: deduction_order(bucket, plan_of))
    for bucket in buckets:
        if bucket.status not in (ACTIVE, PENDING):
            continue
        free_micro = bucket.remaining_micro - held_micro.get(bucket.grant_id, 0)
        plan = plan_of(bucket.plan_key)
        if free_micro <= 0 or not matches(bucket, event, plan):
            continue
        plain = bucket.unit == STD_TOKEN and not plan.windows and plan.members is None
        return bucket if plain and standard_micro <= free_micro else None
    return None
