"""Limits of a carry-over: what is left of a bucket beyond the most that its plan carries over expires.

The time of a carry-over and its new validity are decided in :mod:`billing.decide.roll_forward`. No SQL, no clock.
"""

from billing import ledger
from billing.accounts.account import Account, Bucket
from billing.accounts.movements import Movement, of_units
from billing.catalog.model import STD_TOKEN, PlanBucket
from billing.ledger import Postings
from billing.packages.liability import earned_pico


def leave_behind(account: Account, bucket: Bucket, rule: PlanBucket, postings: Postings) -> Movement | None:
    """Take out of a bucket what exceeds the most that is carried over, post it as breakage, and return what moved.

    Its share of the liability is that of a burn. Return None if nothing exceeds.
    """
    if rule.carry_max_micro is None or bucket.remaining_micro <= rule.carry_max_micro:
        return None
    lapsed_micro = bucket.remaining_micro - rule.carry_max_micro
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
