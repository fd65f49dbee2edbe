"""Whether one bucket alone pays for an event, told without burning anything: what most reservations ask.

A shortcut: where it does not know, the rule that burns (:mod:`billing.burning.burn`) says. Where it answers, that
rule takes
all of the event from this bucket, which a property test holds it to. Never: prices, SQL, the clock.
"""

from collections.abc import Mapping

from billing.accounts.account import ACTIVE, PENDING, Account, Bucket
from billing.accounts.deduction_order import PlanOf, belongs, deduction_order
from billing.catalog.model import STD_TOKEN
from schemas.usage import UsageEvent


def covering_bucket(
    account: Account, held_micro: Mapping[str, int], event: UsageEvent, standard_micro: int, plan_of: PlanOf
) -> Bucket | None:
    """The bucket that pays for all of ``standard_micro``, which an event needs; None where that needs a closer look.

    ``held_micro``, by grant id, is not there. The account need not have been rolled forward.
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
        if free_micro <= 0 or not belongs(bucket, event, plan):
            continue
        plain = bucket.unit == STD_TOKEN and not plan.windows and plan.members is None
        return bucket if plain and standard_micro <= free_micro else None
    return None
