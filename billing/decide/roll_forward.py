"""Time-driven changes of an account (docs/reference/principles.md, "Time-driven change").

Buckets begin, are carried over and end; subscriptions renew; commitments are settled; bills are issued and fall due.
Changes are applied in order of time, so an account rolled forward once over a year equals one rolled forward every
day. No usage, no commands, no SQL, no clock: the caller passes log time as ``now_us``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from billing import ledger
from billing.accounts.account import (
    ACTIVE,
    CANCELLED,
    EXPIRED,
    LIVE,
    NO_END_US,
    PENDING,
    USED_UP,
    Account,
    Bucket,
    waits_for_use,
)
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import forget_ended, near_end, near_end_us, wallet_alert
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.accounts.extras import Subscription
from billing.accounts.movements import of_units
from billing.catalog.model import Catalog, Plan
from billing.invoicing import bills
from billing.invoicing.bills import roll_bills
from billing.invoicing.commitments import settle_commitments
from billing.ledger import Postings
from billing.packages.cycles import cycle_end_us
from billing.packages.grants import begin, is_carried_on, lapse_us
from billing.packages.portions import later_end_us
from billing.packages.refunds import bucket_ended, pay_back
from billing.packages.subscriptions import cycle_start, renew, renewal_us

_BEGIN, _NEAR_END, _CARRY_ON, _LAPSE, _SETTLE, _BILL, _RENEW = range(7)
"""Kinds of change, in the order in which changes at the same time are applied."""


@dataclass(frozen=True, slots=True)
class _Moment:
    due_us: int
    what: int
    name: str
    """Id of the bucket, counter, account or subscription; orders changes of the same kind at the same time."""
    subject: Bucket | Subscription | None = None
    by_usage: bool = False
    """True if usage with a time ahead of the log also triggers the change, because the change gives it a bucket."""

    @property
    def place(self) -> tuple[int, int, str]:
        return self.due_us, self.what, self.name


def roll_forward(
    account: Account, now_us: int, plan_of: PlanOf, postings: Postings, catalog: Catalog, event_us: int = 0
) -> list[AccountEvent]:
    """Apply all time-driven changes up to log time ``now_us`` and return their events.

    ``event_us`` is the own time of the usage that is decided next; a cycle that begins by then is granted too.
    """
    events: list[AccountEvent] = []
    begun_us = max(now_us, event_us)
    if begun_us < account.next_due_us:
        return events
    live = account.buckets
    while True:
        live = [bucket for bucket in live if bucket.status in LIVE]
        moments = _moments(account, live, plan_of)
        due = [moment for moment in moments if moment.due_us <= (begun_us if moment.by_usage else now_us)]
        if not due:
            break
        known = len(account.buckets)
        first = min(due, key=lambda moment: moment.place)
        if first.what == _SETTLE:
            events += settle_commitments(account, first.due_us, postings, catalog)
        elif first.what == _BILL:
            events += roll_bills(account, first.due_us, postings)
        else:
            events += _apply(account, first, now_us, plan_of, postings)
        live += account.buckets[known:]
        events += wallet_alert(account)
        forget_ended(account)
    sort_buckets(account, plan_of)
    account.next_due_us = next_due_us(account, plan_of)
    return events


def next_due_us(account: Account, plan_of: PlanOf) -> int:
    """Return the log time of the account's next time-driven change; ``NO_END_US`` if there is none."""
    return min((moment.due_us for moment in _moments(account, account.buckets, plan_of)), default=NO_END_US)


def _moments(account: Account, buckets: Iterable[Bucket], plan_of: PlanOf) -> Iterator[_Moment]:
    """Yield the next time-driven changes of these buckets and of the account's counters, bills and subscriptions."""
    for bucket in buckets:
        if bucket.status not in LIVE:
            continue
        plan = plan_of(bucket.plan_key)
        if waits_for_use(bucket, plan):
            if bucket.valid_until_us < NO_END_US:
                yield _Moment(bucket.valid_until_us, _BEGIN, bucket.grant_id, bucket, by_usage=True)
            continue
        if bucket.status == PENDING:
            yield _Moment(bucket.valid_from_us, _BEGIN, bucket.grant_id, bucket)
        if bucket.lapse_at_us < NO_END_US:
            yield _Moment(bucket.lapse_at_us, _LAPSE, bucket.grant_id, bucket)
            if bucket.remaining_micro and _carries(account, bucket, plan) and not is_carried_on(bucket, plan):
                yield _Moment(bucket.valid_until_us, _CARRY_ON, bucket.grant_id, bucket, by_usage=True)
            near_us = near_end_us(account, bucket, plan)
            if near_us is not None:
                yield _Moment(near_us, _NEAR_END, bucket.grant_id, bucket)
    for name, counter in account.extras.counters.items():
        if counter.due_us:
            yield _Moment(counter.due_us, _SETTLE, name)
    bill_us = bills.next_due_us(account)
    if bill_us < NO_END_US:
        yield _Moment(bill_us, _BILL, account.account)
    for subscription in account.extras.subscriptions:
        due_us = renewal_us(account, subscription, plan_of)
        if due_us < NO_END_US:
            yield _Moment(due_us, _RENEW, subscription.subscription_id, subscription, by_usage=True)


def _apply(account: Account, moment: _Moment, now_us: int, plan_of: PlanOf, postings: Postings) -> list[AccountEvent]:
    if isinstance(moment.subject, Subscription):
        return renew(account, moment.subject, now_us, plan_of, postings)
    bucket = moment.subject
    if bucket is None:
        return []
    plan = plan_of(bucket.plan_key)
    if moment.what == _BEGIN:
        if waits_for_use(bucket, plan):
            begin(account, bucket, plan, bucket.valid_until_us)
        bucket.status = ACTIVE
        return []
    if moment.what == _NEAR_END:
        return [near_end(account, bucket, plan)]
    if moment.what == _CARRY_ON:
        _carry_on(account, bucket, plan, plan_of)
        return []
    return _end(account, bucket, plan, plan_of, postings)


def _carries(account: Account, bucket: Bucket, plan: Plan) -> int:
    """Return the number of cycles by which the remainder of a bucket is still to be carried over; 0 for none."""
    if bucket.carried_cycles or bucket.grant_id in account.extras.refunds:
        return 0
    cycles = plan.buckets[bucket.bucket_no - 1].carry_over_cycles
    subscription = account.subscription_of(bucket) if cycles else None
    return 0 if subscription is not None and bucket.grant_id in subscription.cut_short else cycles


def _end(account: Account, bucket: Bucket, plan: Plan, plan_of: PlanOf, postings: Postings) -> list[AccountEvent]:
    """End a bucket after its grace: refund it, carry it over, or let it expire."""
    if bucket.remaining_micro == 0:  # the bucket was used up and then suspended
        bucket.status = USED_UP
        return []
    if bucket.grant_id in account.extras.refunds:
        together = [one for one in account.granted(bucket.grant) if one.grant_id in account.extras.refunds]
        due = [one for one in together if one.status in LIVE and one.lapse_at_us == bucket.lapse_at_us]
        return pay_back(account, due, postings)
    cycles = _carries(account, bucket, plan)
    if cycles:
        return [_carry_over(account, bucket, plan, cycles, plan_of)]
    subscription = account.subscription_of(bucket)
    cut = subscription is not None and bucket.grant_id in subscription.cut_short
    return [_lapse(account, bucket, CANCELLED if cut else EXPIRED, postings)]


def _lapse(account: Account, bucket: Bucket, status: str, postings: Postings) -> AccountEvent:
    """End a bucket and post its remaining liability as breakage revenue."""
    detail = str(bucket.plan_key)
    lapsed_pico = bucket.liability_pico
    moved = of_units(account, "breakage", bucket, 0, -lapsed_pico)
    bucket.status = status
    bucket.liability_pico = 0
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, lapsed_pico),
        (ledger.REVENUE_BREAKAGE, detail, -lapsed_pico),
    )
    return bucket_ended(account, bucket, lapsed_pico, moved)


def _carry_on(account: Account, bucket: Bucket, plan: Plan, plan_of: PlanOf) -> None:
    """Make a bucket valid beyond its cycle, from its very end: what is left of it is there in the cycles to come.

    Late usage of its own cycle goes on burning it. Its remainder is carried over when the grace of its cycle is over.
    """
    cycles = _carries(account, bucket, plan)
    subscription = account.subscription_of(bucket)
    if plan.buckets[bucket.bucket_no - 1].every:
        ends_us = later_end_us(account, bucket, plan, subscription, cycles)
    elif subscription is None:
        ends_us = cycle_end_us(plan.cycle, bucket.valid_from_us, 1 + cycles)
    elif bucket.cycle_number >= subscription.anchor_cycle:
        ends_us = cycle_start(subscription, bucket.cycle_number + cycles + 1, plan_of)
    else:  # the subscription has changed to a plan with other cycles
        ends_us = cycle_end_us(plan.cycle, bucket.valid_until_us, cycles)
    bucket.valid_until_us = ends_us
    account.extras.expiry_alerts.pop(bucket.grant_id, None)


def _carry_over(account: Account, bucket: Bucket, plan: Plan, cycles: int, plan_of: PlanOf) -> AccountEvent:
    """Carry over a bucket's remainder for good: it expires with the last of ``cycles`` cycles; its liability stays."""
    if not is_carried_on(bucket, plan):
        _carry_on(account, bucket, plan, plan_of)
    ends_us = bucket.valid_until_us
    bucket.carried_cycles = cycles
    bucket.lapse_at_us = lapse_us(plan, ends_us)
    return AccountEvent(
        account.account,
        "bucket.carried.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": bucket.plan,
            "remaining_micro": bucket.remaining_micro,
            "valid_until_us": None if ends_us >= NO_END_US else ends_us,
        },
    )
