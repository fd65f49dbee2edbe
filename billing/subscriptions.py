"""Plans that renew: which cycle begins when, what it costs, and how suspension, cancellation and change work.

A subscription's cycles are numbered by time from 1, granted or not; its buckets are ``SUBSCRIPTION/CYCLE/n``. One is
granted when it begins, by log time, and its whole fee is taken then; one that the wallet cannot pay is missed until a
top-up pays it, and only while it lasts. A cycle that was granted stays so. Never: what one cycle grants
(:mod:`billing.grants`), whether a command may be carried out (:mod:`billing.subscription_commands`), SQL, the clock.
"""

from billing.accounts import ACTIVE, CLOSED, NO_END_US, PENDING, SUSPENDED, USED_UP, Account, Bucket, PlanKey
from billing.burn import AccountEvent, PlanOf
from billing.catalog.model import Plan
from billing.cycles import cycle_at, cycle_start_us
from billing.extras import Subscription
from billing.grants import (
    TOO_MANY_BUCKETS,
    Fee,
    Span,
    add_buckets,
    fee_of,
    fee_payable,
    give_back,
    has_room,
    lapse_us,
    sell,
    share_of,
    split_fee,
)
from billing.ledger import Postings
from schemas.units import FEN_PICO, part_to_fen

UNPAID = "unpaid"
ENDED = "ended"
RENEWAL_UNPAID = "renewal_unpaid"


def plan_of_subscription(subscription: Subscription, plan_of: PlanOf) -> Plan:
    """The plan of the cycle that began last."""
    return plan_of(PlanKey(subscription.plan, subscription.plan_version))


def cycle_start(subscription: Subscription, number: int, plan_of: PlanOf) -> int:
    """When a cycle begins, not before the anchor; ``NO_END_US`` where there is none."""
    cycle = plan_of_subscription(subscription, plan_of).cycle
    return cycle_start_us(cycle, subscription.anchor_us, number - subscription.anchor_cycle + 1)


def number_at(subscription: Subscription, time_us: int, plan_of: PlanOf) -> int:
    """The number of the cycle that a time lies in; of the anchor's for a time before it."""
    cycle = plan_of_subscription(subscription, plan_of).cycle
    return cycle_at(cycle, subscription.anchor_us, time_us) + subscription.anchor_cycle - 1


def renewal_us(account: Account, subscription: Subscription, plan_of: PlanOf) -> int:
    """When the next cycle begins or, of a cancelled subscription, would begin; ``NO_END_US`` where none will."""
    if subscription.status == ENDED or account.status == CLOSED:
        return NO_END_US
    return cycle_start(subscription, subscription.cycle + 1, plan_of)


def renew(
    account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings
) -> list[AccountEvent]:
    """Begin the next cycle, or end the subscription where it was cancelled."""
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
    """Make a plan that of the cycle that begins at ``starts_us`` and of later ones.

    Where its cycles are alike, they are counted on from the same day; else from this cycle.
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
    """Grant the cycle that began last, if its fee can be taken; tell what came of it. The fee is taken at ``paid_us``,
    which is now unless told: an account that was not rolled for long is no other for that."""
    plan = plan_of_subscription(subscription, plan_of)
    span = span_of(subscription, plan_of)
    data: dict[str, str | int | None] = {
        "subscription_id": subscription.subscription_id,
        "plan": plan.name,
        "cycle": subscription.cycle,
        "fee_pico": plan.price_pico,
        "valid_from_us": span.from_us,
        "valid_until_us": None if span.until_us >= NO_END_US else span.until_us,
    }
    room = has_room(account, len(plan.buckets))
    if not room or not fee_payable(account, subscription.pay_from, plan.price_pico):
        subscription.status = UNPAID
        data |= {"reason": RENEWAL_UNPAID, "wallet_pico": account.wallet_pico}
        data |= {} if room else {"detail": TOO_MANY_BUCKETS}
        return AccountEvent(account.account, "renewal.unpaid.v1", data)
    _grant(account, subscription, plan, span, now_us, now_us if paid_us is None else paid_us, fee_of(plan), postings)
    return AccountEvent(account.account, "subscription.renewed.v1", data)


def span_of(subscription: Subscription, plan_of: PlanOf) -> Span:
    """The cycle that began last."""
    return Span(*(cycle_start(subscription, subscription.cycle + ahead, plan_of) for ahead in (0, 1)))


def _grant(
    account: Account,
    subscription: Subscription,
    plan: Plan,
    span: Span,
    now_us: int,
    paid_us: int,
    fee: Fee,
    postings: Postings,
    part: int = 1,
    whole: int = 1,
) -> None:
    grant_id = subscription.grant
    add_buckets(
        account,
        plan,
        grant_id,
        span,
        now_us,
        fee.net_pico,
        number=subscription.next_bucket,
        part=part,
        whole=whole,
    )
    sell(account, plan, grant_id, fee, subscription.pay_from, paid_us, postings)
    subscription.status, subscription.granted = ACTIVE, True
    subscription.next_bucket += len(plan.buckets)
    subscription.paid_pico, subscription.paid_from_us = fee.gross_pico, span.from_us


def start(account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings) -> None:
    """Add a subscription and grant its first cycle, whose fee was found payable."""
    account.extras.subscriptions.append(subscription)
    subscription.cycle = subscription.anchor_cycle
    grant_cycle(account, subscription, now_us, plan_of, postings)


def retry_unpaid(account: Account, now_us: int, plan_of: PlanOf, postings: Postings) -> list[AccountEvent]:
    """After money came in: grant the running cycle of each unpaid subscription that can be paid now, oldest first."""
    events: list[AccountEvent] = []
    for subscription in account.extras.subscriptions:
        price_pico = plan_of_subscription(subscription, plan_of).price_pico
        if subscription.status == UNPAID and fee_payable(account, subscription.pay_from, price_pico):
            events.append(grant_cycle(account, subscription, now_us, plan_of, postings))
    return events


def suspend(account: Account, subscription: Subscription, now_us: int) -> None:
    """Take the buckets out of use; they go on ending in their time, and no cycle is granted."""
    subscription.status = SUSPENDED
    for bucket in _lasting_buckets(account, subscription, now_us):
        bucket.status = SUSPENDED


def resume(
    account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf, postings: Postings
) -> list[AccountEvent]:
    """Put the buckets into use again; a cycle that began meanwhile is granted now, as a renewal is."""
    for bucket in _lasting_buckets(account, subscription, now_us):
        bucket.status = _in_use(bucket, now_us)
    subscription.status = ACTIVE
    return [] if subscription.granted else [grant_cycle(account, subscription, now_us, plan_of, postings)]


def cancel(account: Account, subscription: Subscription, at_us: int, plan_of: PlanOf) -> list[AccountEvent]:
    """Let the subscription end with the cycle that ``at_us`` lies in, but not before one that has begun.

    One that is not granted now, because nobody paid it, ends at once.
    """
    last = number_at(subscription, at_us, plan_of)
    subscription.last_cycle = max(last, subscription.cycle)
    if subscription.granted or subscription.last_cycle > subscription.cycle:
        return []
    subscription.status = ENDED
    return [_ended(account, subscription)]


def cancel_now(account: Account, subscription: Subscription, now_us: int, plan_of: PlanOf) -> list[AccountEvent]:
    """End the subscription and its buckets now; usage of before still burns them during their grace. No money moves."""
    for bucket in _lasting_buckets(account, subscription, now_us):
        bucket.status = _in_use(bucket, now_us)  # a suspended one too has its grace
        _cut_short(bucket, subscription, now_us, plan_of(bucket.plan_key))
    subscription.last_cycle, subscription.status = subscription.cycle, ENDED
    return [_ended(account, subscription)]


def change_now(
    account: Account, subscription: Subscription, new: Plan, now_us: int, plan_of: PlanOf, postings: Postings
) -> bool:
    """Change the plan for the rest of the running, granted cycle; False, and nothing, where the wallet cannot pay it.

    With t of the cycle's time T left: the new plan costs its fee x t / T, half up to fen, and grants amounts x t / T,
    half even to 1e-6. What was paid since p is credited x t / (time from p to the end), half up to fen, but its part
    without tax is at most what the buckets have not earned, down to fen: quota that was used is not given back. What
    gift money paid comes back as gift money, in proportion.
    """
    old = plan_of_subscription(subscription, plan_of)
    cycle = span_of(subscription, plan_of)
    begins_us = max(now_us, subscription.paid_from_us)
    left_us, whole_us = cycle.until_us - begins_us, cycle.until_us - cycle.from_us
    replaced = [
        bucket
        for bucket in _lasting_buckets(account, subscription, now_us)
        if bucket.cycle_number == subscription.cycle
        and bucket.grant_id not in subscription.cut_short
        and bucket.grant_id not in account.extras.refunds
    ]
    credit = _credit(subscription, old, replaced, left_us, cycle.until_us - subscription.paid_from_us)
    fee = fee_of(new, left_us, whole_us)
    if not fee_payable(account, subscription.pay_from, fee.gross_pico - credit.gross_pico):
        return False
    liability_pico = sum(bucket.liability_pico for bucket in replaced)
    given_pico = upto_pico = 0
    for bucket in replaced:
        upto_pico += bucket.liability_pico
        part_pico = credit.net_pico * upto_pico // liability_pico - given_pico if liability_pico else 0
        bucket.liability_pico -= part_pico
        given_pico += part_pico
        _cut_short(bucket, subscription, begins_us, old)
    gift_pico = account.extras.wallet_paid_pico.get(subscription.grant, 0)
    gift_back_pico = part_to_fen(credit.gross_pico, gift_pico, subscription.paid_pico)
    give_back(account, old, credit, subscription.pay_from, gift_back_pico, postings)
    subscription.plan, subscription.plan_version = new.name, new.version
    subscription.next_plan, subscription.next_plan_version = "", 0
    rest = Span(begins_us, cycle.until_us)
    _grant(account, subscription, new, rest, now_us, now_us, fee, postings, left_us, whole_us)
    return True


def _credit(subscription: Subscription, old: Plan, replaced: list[Bucket], left_us: int, paid_us: int) -> Fee:
    by_time = share_of(subscription.paid_pico, old.tax_rate_micro, left_us, paid_us)
    unearned_pico = sum(bucket.liability_pico for bucket in replaced) // FEN_PICO * FEN_PICO
    if by_time.net_pico <= unearned_pico:
        return by_time
    paid_net_pico = split_fee(subscription.paid_pico, old.tax_rate_micro)[0]
    # The tax goes with the net: at most the share of the tax that was paid.
    tax_pico = (subscription.paid_pico - paid_net_pico) * unearned_pico // (paid_net_pico * FEN_PICO) * FEN_PICO
    return Fee(unearned_pico + tax_pico, unearned_pico)


def _cut_short(bucket: Bucket, subscription: Subscription, now_us: int, plan: Plan) -> None:
    """End a bucket now, not at the end of its cycle."""
    bucket.valid_until_us = min(bucket.valid_until_us, max(now_us, bucket.valid_from_us))
    bucket.lapse_at_us = min(bucket.lapse_at_us, lapse_us(plan, bucket.valid_until_us))
    if bucket.grant_id not in subscription.cut_short:
        subscription.cut_short.append(bucket.grant_id)


def _lasting_buckets(account: Account, subscription: Subscription, now_us: int) -> list[Bucket]:
    """Buckets of the subscription that have not lapsed; empty ones too, which still say what becomes of overage."""
    return [
        bucket for bucket in account.buckets if bucket.lasts(now_us) and account.subscription_of(bucket) is subscription
    ]


def _in_use(bucket: Bucket, now_us: int) -> str:
    """The status of a bucket that has not lapsed and is not suspended."""
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
