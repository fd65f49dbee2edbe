"""What time alone does to an account: buckets begin, and lapse with breakage (CONTRACT §3). The plain, obvious rule.

Never: usage, commands, SQL, the clock (``now_us`` is the log's time, given by the caller).
"""

from billing import ledger
from billing.accounts import ACTIVE, EXPIRED, NO_END_US, PENDING, Account, Bucket
from billing.burn import AccountEvent
from billing.ledger import Postings


def roll_forward(account: Account, now_us: int, postings: Postings) -> list[AccountEvent]:
    """Apply what time alone has changed up to log time ``now_us``: buckets begin; buckets lapse with breakage."""
    events: list[AccountEvent] = []
    if now_us < account.next_due_us:
        return events
    for bucket in account.buckets:
        if bucket.status == PENDING and bucket.valid_from_us <= now_us:
            bucket.status = ACTIVE
        if bucket.status == ACTIVE and bucket.lapse_at_us <= now_us:
            events.append(_lapse(account, bucket, postings))
    account.next_due_us = next_due_us(account)
    return events


def _lapse(account: Account, bucket: Bucket, postings: Postings) -> AccountEvent:
    detail = str(bucket.plan_key)
    lapsed_pico = bucket.liability_pico
    bucket.status = EXPIRED
    bucket.liability_pico = 0
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, lapsed_pico),
        (ledger.REVENUE_BREAKAGE, detail, -lapsed_pico),
    )
    return AccountEvent(
        account.account,
        "bucket.ended.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": bucket.plan,
            "remaining_micro": bucket.remaining_micro,
            "breakage_pico": lapsed_pico,
        },
    )


def next_due_us(account: Account) -> int:
    """Log time at which a bucket next begins or lapses; ``NO_END_US`` where none will."""
    due_us = NO_END_US
    for bucket in account.buckets:
        if bucket.status == PENDING:
            due_us = min(due_us, bucket.valid_from_us)
        elif bucket.status == ACTIVE:
            due_us = min(due_us, bucket.lapse_at_us)
    return due_us
