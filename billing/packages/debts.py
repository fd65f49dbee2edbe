"""Debts in standard tokens: usage that no bucket covered, which the next grant of the plan pays first.

The overage rule ``owe`` adds to a debt (:mod:`billing.burning.overage`). A purchase, a renewal or a change to the plan
pays it out of the buckets of standard tokens that it grants, in deduction order; portions to come
(:mod:`billing.packages.portions`) pay when they begin. What pays is earned then: no liability
stood against the usage when it happened. Members and windows do not limit the payment, and it does not count in them.
No SQL, no clock.
"""

from collections.abc import Sequence

from billing import ledger
from billing.accounts.account import PENDING, USED_UP, Account, Bucket
from billing.accounts.movements import Movement, of_units
from billing.catalog.model import STD_TOKEN, Plan
from billing.ledger import Postings
from billing.packages.liability import earned_pico


def owe(account: Account, plan: Plan, micro: int) -> int:
    """Add standard tokens to the debt of a plan, within the plan's limit; return how much was added."""
    owed = account.extras.owed_micro
    before_micro = owed.get(plan.name, 0)
    if plan.overage.max_owed_micro:
        micro = max(0, min(micro, plan.overage.max_owed_micro - before_micro))
    if micro:
        account.extras.owed_micro = dict(sorted({**owed, plan.name: before_micro + micro}.items()))
    return micro


def pay_debt(account: Account, plan: Plan, added: Sequence[Bucket], postings: Postings) -> list[Movement]:
    """Pay what is owed of a plan from the buckets that it has just granted, and return what moved.

    Of buckets that begin one after the other, those to come pay nothing yet.
    """
    owed = account.extras.owed_micro
    moved: list[Movement] = []
    if plan.name not in owed:
        return moved
    detail = plan.label
    begins_us = min(bucket.valid_from_us for bucket in added)
    for bucket in sorted(added, key=lambda one: _order(one, plan)):
        is_later = bucket.status == PENDING and bucket.valid_from_us > begins_us
        if is_later or bucket.unit != STD_TOKEN or not owed[plan.name]:
            continue
        paid_micro = min(owed[plan.name], bucket.remaining_micro)
        revenue_pico = earned_pico(bucket.liability_pico, paid_micro, bucket.remaining_micro)
        owed[plan.name] -= paid_micro
        bucket.remaining_micro -= paid_micro
        bucket.liability_pico -= revenue_pico
        if bucket.remaining_micro == 0:
            bucket.status = USED_UP
        account.extras.unburned_micro += paid_micro
        postings.post(
            account.currency,
            (ledger.CONTRACT_LIABILITY, detail, revenue_pico),
            (ledger.REVENUE_DEBT, detail, -revenue_pico),
        )
        moved.append(of_units(account, "debt", bucket, -paid_micro, -revenue_pico, granted_micro=0))
    if not owed[plan.name]:
        del owed[plan.name]
    return moved


def _order(bucket: Bucket, plan: Plan) -> tuple[int, bool, int]:
    rule = plan.buckets[bucket.bucket_no - 1]
    return rule.priority, rule.kind != "periodic", bucket.bucket_no
