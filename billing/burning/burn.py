"""Payment for a rated event: buckets in deduction order, then overage (docs/reference/plans.md, "Deduction order").

This is the plain specification of the rule. Deduction from one bucket is :mod:`billing.burning.deduct`, usage that no
bucket covers is :mod:`billing.burning.overage`, the order itself is :mod:`billing.accounts.deduction_order`. No prices,
no SQL, no clock.
"""

from billing.accounts.account import Account, Bucket
from billing.accounts.deduction_order import PlanOf, matches, sort_buckets
from billing.burning.deduct import USABLE, Burned, EventPayment, deduct, need_pico
from billing.burning.overage import settle_overage
from billing.ledger import Postings
from billing.pricing.rate import Rated
from schemas.usage import UsageEvent


def burn(
    account: Account,
    event: UsageEvent,
    rated: Rated,
    tax_rate_micro: int,
    plan_of: PlanOf,
    now_us: int,
    postings: Postings,
) -> Burned:
    """Pay for one rated event from the account, update the account, and post the journal lines.

    The account must have been rolled forward to log time ``now_us``. The payment is never refused, because the usage
    has already happened. A bucket does not match if the event needs nothing in the bucket's unit.
    """
    payment = EventPayment(account, event, rated, tax_rate_micro, plan_of, now_us, postings)

    def is_for(bucket: Bucket) -> bool:
        return matches(bucket, event, plan_of(bucket.plan_key)) and need_pico(bucket.unit, event, rated) != 0

    for bucket in account.buckets:
        if bucket.remaining_micro and bucket.status in USABLE and is_for(bucket):
            deduct(payment, bucket)
            if not payment.share:
                break
    last = next(filter(is_for, reversed(account.buckets)), None) if payment.share else None
    if payment.burned.begun:
        sort_buckets(account, plan_of)
    if payment.share:
        held = len(account.buckets)
        settle_overage(payment, last)
        if len(account.buckets) > held:  # packs were bought
            sort_buckets(account, plan_of)
    payment.burned.unpaid_share = payment.share
    return payment.burned
