"""What time alone does to an account: buckets begin, and end with breakage or a refund; commitments are settled.

The plain, obvious rule. Never: usage, commands, SQL, the clock (``now_us`` is the log's time, given by the caller).
"""

from billing import ledger
from billing.accounts import ACTIVE, EXPIRED, NO_END_US, PENDING, Account, Bucket
from billing.burn import AccountEvent
from billing.catalog.model import Catalog
from billing.counters import settle_commitments
from billing.ledger import Postings
from billing.refunds import bucket_ended, pay_back


def roll_forward(account: Account, now_us: int, postings: Postings, catalog: Catalog) -> list[AccountEvent]:
    """Apply what time alone has changed up to log time ``now_us``, in the order of time: how often an account is rolled
    changes nothing."""
    events: list[AccountEvent] = []
    if now_us < account.next_due_us:
        return events
    while (due_us := next_due_us(account)) <= now_us:
        events += _step(account, due_us, postings, catalog)
    account.next_due_us = due_us
    return events


def _step(account: Account, due_us: int, postings: Postings, catalog: Catalog) -> list[AccountEvent]:
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
    events += pay_back(account, refunded, postings)
    return events + settle_commitments(account, due_us, postings, catalog)


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
    """Log time at which a bucket next begins or ends or a commitment is settled; ``NO_END_US`` where none will."""
    due_us = min((counter.due_us for counter in account.extras.counters.values() if counter.due_us), default=NO_END_US)
    for bucket in account.buckets:
        if bucket.status == PENDING:
            due_us = min(due_us, bucket.valid_from_us, bucket.lapse_at_us)
        elif bucket.status == ACTIVE:
            due_us = min(due_us, bucket.lapse_at_us)
    return due_us
