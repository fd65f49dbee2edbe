"""Subscriptions: plans that renew each cycle, with renewal, suspension, cancellation and change of plan.

Cycles are numbered by time from 1, whether granted or not; bucket ids are ``SUBSCRIPTION/CYCLE/n``. A cycle is granted
when it begins, by log time, and its whole fee is taken then. A cycle that the wallet cannot pay stays unpaid until a
top-up pays it, and can be paid only while it runs. A granted cycle stays granted.

The buckets of a cycle are :mod:`billing.packages.grants`; the checks of a command are
:mod:`billing.packages.subscription_commands`. No SQL, no clock.
"""

from billing.accounts.account import (
    ACCOUNT_CLOSED,
    ACTIVE,
    NO_END_US,
    PENDING,
    SUSPENDED,
    TOO_MANY_BUCKETS,
    USED_UP,
    Account,
    Bucket,
    has_room,
)
from billing.accounts.account_event import AccountEvent
from billing.accounts.deduction_order import PlanOf
from billing.accounts.extras import Subscription
from billing.accounts.movements import Movement, granted
from billing.catalog.model import Plan, PlanKey
from billing.catalog.portion_counts import most_buckets
from billing.ledger import Postings
from billing.packages.cancellation import promise_refunds
from billing.packages.cycles import cycle_at, cycle_start_us
from billing.packages.debts import pay_debt
from billing.packages.fees import Fee, fee_payable, sell
from billing.packages.first_cycle import fee_of_cycle, quota_of_cycle
from billing.packages.grants import Span, add_buckets, end_with_validity, lapse_us
from billing.packages.portions import anchor_of

UNPAID = "unpaid"
ENDED = "ended"
RENEWAL_UNPAID = "renewal_unpaid"


def plan_of_subscription(subscription: Subscription, plan_of: PlanOf) -> Plan:
    """Return the plan of the current cycle."""
    return plan_of(PlanKey(subscription.plan, subscription.plan_version))


def cycle_start(subscription: Subscription, number: int, plan_of: PlanOf) -> int:
    """Return the start of cycle ``number``, which must not be before the anchor cycle; ``NO_END_US`` if none begins."""
    cycle = plan_of_subscription(subscription, plan_of).cycle
    return cycle_start_us(cycle, subscription.anchor_us, number - subscription.anchor_cycle + 1)


def number_at(subscription: Subscription, time_us: int, plan_of: PlanOf) -> int:
    """Return the number of the cycle that contains ``time_us``; the anchor cycle's for a time before the anchor."""
    cycle = plan_of_subscription(subscription, plan_of).cycle
    return cycle_at(cycle, subscription.anchor_us, time_us) + subscription.anchor_cycle - 1


def renewal_us(account: Account, subscription: Subscription, plan_of: PlanOf) -> int:
    """Return the start of the next cycle, also for a cancelled subscription; ``NO_END_US`` if none begins.

    None begins after the subscription has ended or the account is closed.
    """
    if subscription.status == ENDED or account.status == ACCOUNT_CLOSED:
        return NO_END_US
    return cycle_start(subscription, subscription.cycle + 1, plan_of)


def renew(
    account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings
) -> list[AccountEvent]:
    """Begin the next cycle, or end the subscription if the current cycle is its last.

    While the subscription is suspended the cycle begins without a grant.
    """
    if 0 < subscription.last_cycle <= subscription.cycle:
        subscription.status = ENDED
        return [_ended(account, subscription)]
    starts_us = cycle_start(subscription, subscription.cycle + 1, plan_of)
    subscription.cycle += 1
    subscription.granted = False
    subscription.next_bucket = 1
    if subscription.next_plan:
        take_plan(subscription, PlanKey(subscription.next_plan, subscription.next_plan_version), starts_us, plan_of)
    if subscription.status == SUSPENDED:
        return []
    return [grant_cycle(account, subscription, now_us, plan_of, postings, starts_us)]


def take_plan(subscription: Subscription, key: PlanKey, starts_us: int, plan_of: PlanOf) -> None:
    """Switch to another plan from the cycle that begins at ``starts_us``.

    If the new plan has the same cycle, the anchor stays; otherwise this cycle becomes the anchor.
    """
    if plan_of(key).cycle != plan_of_subscription(subscription, plan_of).cycle:
        subscription.anchor_us, subscription.anchor_cycle = starts_us, subscription.cycle
    subscription.plan, subscription.plan_version = key
    subscription.next_plan, subscription.next_plan_version = "", 0


def grant_cycle(
    account: Account,
    subscription: Subscription,
    now_us: int,
    plan_of: PlanOf,
    postings: Postings,
    paid_us: int | None = None,
) -> AccountEvent:
    """Grant the current cycle if its fee can be taken, and return the event of the renewal or of its failure.

    ``paid_us`` is the time at which the fee is taken, by default ``now_us``. A renewal passes the start of the cycle,
    so that the result does not depend on how often the account is rolled forward.
    """
    plan = plan_of_subscription(subscription, plan_of)
    span = span_of(subscription, plan_of)
    fee = fee_of_cycle(plan, span.from_us)
    data: dict[str, str | int | None] = {
        "subscription_id": subscription.subscription_id,
        "plan": plan.name,
        "cycle": subscription.cycle,
        "fee_pico": fee.gross_pico,
        "valid_from_us": span.from_us,
        "valid_until_us": None if span.until_us >= NO_END_US else span.until_us,
    }
    room = has_room(account, most_buckets(plan))
    if not room or not fee_payable(account, subscription.pay_from, fee.gross_pico):
        subscription.status = UNPAID
        data |= {"reason": RENEWAL_UNPAID, "wallet_pico": account.wallet_pico}
        data |= {} if room else {"detail": TOO_MANY_BUCKETS}
        return AccountEvent(account.account, "renewal.unpaid.v1", data)
    part, whole = quota_of_cycle(plan, span.from_us)
    paid_us = now_us if paid_us is None else paid_us
    moved = grant_part(account, subscription, plan, span, span, now_us, paid_us, fee, postings, part, whole)
    return AccountEvent(account.account, "subscription.renewed.v1", data, tuple(moved))


def span_of(subscription: Subscription, plan_of: PlanOf) -> Span:
    """Return the time interval of the current cycle."""
    return Span(*(cycle_start(subscription, subscription.cycle + ahead, plan_of) for ahead in (0, 1)))


def grant_part(
    account: Account,
    subscription: Subscription,
    plan: Plan,
    cycle: Span,
    span: Span,
    now_us: int,
    paid_us: int,
    fee: Fee,
    postings: Postings,
    part: int = 1,
    whole: int = 1,
) -> list[Movement]:
    """Grant ``part`` of ``whole`` of the current ``cycle`` for ``span``: add the buckets, take the fee, activate.

    Returns:
        What moved.
    """
    grant_id = subscription.grant
    added = add_buckets(
        account,
        plan,
        grant_id,
        span,
        now_us,
        fee.net_pico,
        number=subscription.next_bucket,
        part=part,
        whole=whole,
        anchor_us=anchor_of(plan, subscription, cycle.from_us),
    )
    paid = sell(account, plan, grant_id, fee, subscription.pay_from, paid_us, postings)
    subscription.status, subscription.granted = ACTIVE, True
    subscription.next_bucket += len(added)
    subscription.paid_pico, subscription.paid_from_us = fee.gross_pico, span.from_us
    moved = [paid, *(granted(account, bucket) for bucket in added)]
    return moved + pay_debt(account, plan, added, postings)


def start(
    account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings
) -> tuple[Movement, ...]:
    """Add a subscription, grant its first cycle, and return what moved; the caller has checked that the fee can be
    paid."""
    account.extras.subscriptions.append(subscription)
    subscription.cycle = subscription.anchor_cycle
    return grant_cycle(account, subscription, now_us, plan_of, postings).movements


def retry_unpaid(
    account: Account, now_us: int, plan_of: PlanOf, postings: Postings, held_pico: int
) -> list[AccountEvent]:
    """Grant the current cycle of each unpaid subscription that can be paid now, oldest first; called after a top-up.

    ``held_pico`` is money of the wallet that holds keep; it pays no fee.
    """
    events: list[AccountEvent] = []
    for subscription in account.extras.subscriptions:
        if subscription.status != UNPAID:
            continue
        plan, from_us = plan_of_subscription(subscription, plan_of), span_of(subscription, plan_of).from_us
        if fee_payable(account, subscription.pay_from, fee_of_cycle(plan, from_us).gross_pico, held_pico):
            events.append(grant_cycle(account, subscription, now_us, plan_of, postings))
    return events


def suspend(account: Account, subscription: Subscription, now_us: int) -> None:
    """Suspend the subscription and its buckets. The buckets still end on time, and no cycle is granted meanwhile."""
    subscription.status = SUSPENDED
    for bucket in lasting_buckets(account, subscription, now_us):
        bucket.status = SUSPENDED


def resume(
    account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings
) -> list[AccountEvent]:
    """Put the buckets back into use, and grant the current cycle like a renewal if it is not granted."""
    for bucket in lasting_buckets(account, subscription, now_us):
        bucket.status = _in_use(bucket, now_us)
    subscription.status = ACTIVE
    return [] if subscription.granted else [grant_cycle(account, subscription, now_us, plan_of, postings)]


def cancel(account: Account, subscription: Subscription, at_us: int, plan_of: PlanOf) -> list[AccountEvent]:
    """End the subscription with the cycle that contains ``at_us``, at the earliest with the current cycle.

    If that is the current cycle and it is not granted, the subscription ends at once.
    """
    last = number_at(subscription, at_us, plan_of)
    subscription.last_cycle = max(last, subscription.cycle)
    if subscription.granted or subscription.last_cycle > subscription.cycle:
        return []
    subscription.status = ENDED
    return [_ended(account, subscription)]


def cancel_now(account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf) -> list[AccountEvent]:
    """End the subscription and its buckets now. Earlier usage still burns them during their grace.

    No money moves now; what the plan gives back is paid after the grace (:mod:`billing.packages.cancellation`).
    """
    lasting = lasting_buckets(account, subscription, now_us)
    promise_refunds(account, subscription, lasting, span_of(subscription, plan_of), now_us, plan_of)
    for bucket in lasting:
        bucket.status = _in_use(bucket, now_us)  # a suspended bucket has its grace too
        cut_short(bucket, subscription, now_us, plan_of(bucket.plan_key))
    subscription.last_cycle, subscription.status = subscription.cycle, ENDED
    return [_ended(account, subscription)]


def cut_short(bucket: Bucket, subscription: Subscription, now_us: int, plan: Plan) -> None:
    """End a bucket now instead of at the end of its cycle."""
    end_with_validity(bucket, plan)
    bucket.valid_until_us = min(bucket.valid_until_us, max(now_us, bucket.valid_from_us))
    begun = not plan.buckets[bucket.bucket_no - 1].every or bucket.valid_from_us <= now_us
    lapses_us = lapse_us(plan, bucket.valid_until_us if begun else now_us)  # no usage waits for a portion to come
    bucket.lapse_at_us = min(bucket.lapse_at_us, lapses_us)
    if bucket.grant_id not in subscription.cut_short:
        subscription.cut_short.append(bucket.grant_id)


def lasting_buckets(account: Account, subscription: Subscription, now_us: int) -> list[Bucket]:
    """Return the subscription's buckets that have not expired, including empty ones, whose plan decides overage."""
    return [
        bucket
        for bucket in account.buckets
        if bucket.is_live(now_us) and account.subscription_of(bucket) is subscription
    ]


def _in_use(bucket: Bucket, now_us: int) -> str:
    """Return the status of a bucket that has neither expired nor is suspended."""
    if bucket.remaining_micro == 0:
        return USED_UP
    return PENDING if now_us < bucket.valid_from_us else ACTIVE


def _ended(account: Account, subscription: Subscription) -> AccountEvent:
    data: dict[str, str | int | None] = {
        "subscription_id": subscription.subscription_id,
        "plan": subscription.plan,
        "cycle": subscription.cycle,
    }
    return AccountEvent(account.account, "subscription.ended.v1", data)
