"""What time alone does to an account: buckets begin, and end with breakage or a refund (CONTRACT §3). Plain rules.

Never: usage, commands, SQL, the clock (``now_us`` is the log's time, given by the caller).
"""

from billing import ledger
from billing.accounts import ACTIVE, EXPIRED, NO_END_US, PENDING, Account, Bucket
from billing.burn import AccountEvent
from billing.ledger import Postings
from billing.refunds import bucket_ended, pay_back


def roll_forward(account: Account, now_us: int, postings: Postings) -> list[AccountEvent]:
    """Apply what time alone has changed up to log time ``now_us``, in the order of time: how often an account is rolled
    changes nothing."""
    events: list[AccountEvent] = []
    if now_us < account.next_due_us:
        return events
    while (due_us := next_due_us(account)) <= now_us:
        events += _step(account, due_us, postings)
    account.next_due_us = due_us
    return events


def _step(account: Account, due_us: int, postings: Postings) -> list[AccountEvent]:
    """What happens at one moment."""
    events: list[AccountEvent] = []
    refunded: list[Bucket] = []
    for bucket in account.buckets:
        if bucket.status in (PENDING, ACTIVE) and bucket.lapse_at_us <= due_us:
            if bucket.grant_id in account.extras.refunds:
                refunded.append(bucket)
            else:
                events.append(_lapse(account, bucket, postings))
        elif bucket.status == PENDING and bucket.valid_from_us <= due_us:
            bucket.status = ACTIVE
    return events + pay_back(account, refunded, postings)


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
    return bucket_ended(account, bucket, lapsed_pico)


def next_due_us(account: Account) -> int:
    """Log time at which a bucket next begins or ends; ``NO_END_US`` where none will."""
    due_us = NO_END_US
    for bucket in account.buckets:
        if bucket.status == PENDING:
            due_us = min(due_us, bucket.valid_from_us, bucket.lapse_at_us)
        elif bucket.status == ACTIVE:
            due_us = min(due_us, bucket.lapse_at_us)
    return due_us
