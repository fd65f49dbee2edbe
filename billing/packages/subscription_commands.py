"""Rules of the subscription commands: check whether a command is allowed, then apply it or refuse it.

A refused command changes nothing. The behaviour of a subscription is :mod:`billing.packages.subscriptions`. No SQL, no
Kafka, no clock.
"""

from billing.accounts.account import FIRST_USE, NO_END_US, SUSPENDED, Account, has_room
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Subscription
from billing.catalog.model import Plan
from billing.catalog.portion_counts import most_buckets
from billing.packages.cycles import LAST_START_US, cycle_at, first_start_us
from billing.packages.fees import fee_payable
from billing.packages.first_cycle import fee_of_cycle
from billing.packages.proration import change_now
from billing.packages.sale import insufficient_funds, plan_for_sale, too_many_buckets
from billing.packages.subscriptions import (
    ENDED,
    cancel,
    cancel_now,
    plan_of_subscription,
    resume,
    retry_unpaid,
    span_of,
    start,
    suspend,
)
from schemas.commands import (
    CancelSubscription,
    ChangeSubscription,
    ResumeSubscription,
    StartSubscription,
    SuspendSubscription,
)
from schemas.refusals import Refusal
from schemas.times import format_time_us

MAX_PAST_CYCLES = 1_000
"""Maximum number of begun cycles of a subscription that starts in the past; each is granted, and ended, at once."""


def start_subscription(data: StartSubscription, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``subscription.started.v1``: grant the first cycle now, even if it begins later, as for a purchase."""
    plan = _renewable_plan(data.plan, None, account, context)
    if isinstance(plan, Refusal):
        return plan
    prefix = f"{data.subscription_id}/"
    if account.subscription(data.subscription_id) or any(one.grant_id.startswith(prefix) for one in account.buckets):
        return Refusal("duplicate_subscription_id", f"{data.subscription_id!r} exists on this account")
    if data.starts_at_us >= LAST_START_US:
        begins, last = format_time_us(data.starts_at_us), format_time_us(LAST_START_US)
        return Refusal("invalid_starts_at", f"starts_at: {begins} is too far ahead; a cycle begins before {last}")
    starts_us = first_start_us(data.starts_at_us, context.command.time_us, context.rules)
    begun = cycle_at(plan.cycle, starts_us, context.now_us)
    if begun > MAX_PAST_CYCLES:
        begins = format_time_us(data.starts_at_us)
        return Refusal("invalid_starts_at", f"starts_at: {begins} is more than {MAX_PAST_CYCLES} cycles ago")
    if not has_room(account, max(1, begun) * most_buckets(plan)):
        return too_many_buckets(account)
    fee_pico = fee_of_cycle(plan, starts_us).gross_pico
    if not fee_payable(account, data.pay_from, fee_pico):
        return insufficient_funds(account, plan, fee_pico)
    subscription = Subscription(data.subscription_id, plan.name, plan.version, data.pay_from, starts_us)
    context.movements += start(account, subscription, context.now_us, context.plan_of, context.postings)
    return account


def cancel_subscription(data: CancelSubscription, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``subscription.cancelled.v1``: end the subscription at the end of a cycle, or immediately."""
    subscription = _running(data.subscription_id, account)
    if isinstance(subscription, Refusal):
        return subscription
    if data.immediately:
        context.events += cancel_now(account, subscription, context.now_us, context.plan_of)
    else:
        context.events += cancel(account, subscription, data.at_us, context.plan_of)
    return account


def change_subscription(data: ChangeSubscription, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``subscription.changed.v1``: change the plan now, with proration, or at the end of the cycle.

    A change now on a cycle that is not granted (unpaid) is not prorated: the plan is switched, and the whole fee is
    tried at once. If the wallet cannot pay it, the command is accepted, and the cycle stays unpaid.
    """
    subscription = _running(data.subscription_id, account)
    if isinstance(subscription, Refusal):
        return subscription
    plan = _renewable_plan(data.plan, data.plan_version, account, context)
    if isinstance(plan, Refusal):
        return plan
    if data.effective == "cycle_end":
        subscription.next_plan, subscription.next_plan_version = plan.name, plan.version
        return account
    if subscription.status == SUSPENDED:
        return Refusal("subscription_suspended", f"subscription {data.subscription_id!r} is suspended; resume it first")
    old = plan_of_subscription(subscription, context.plan_of)
    if plan.cycle != old.cycle:
        return Refusal(
            "cycle_mismatch",
            f"plan {plan.label} has other cycles than {old.label}; write effective: cycle_end",
        )
    if span_of(subscription, context.plan_of).until_us >= NO_END_US:
        return Refusal("cycle_without_end", f"the cycle of plan {old.label} has no end, so no part of it is left")
    if not has_room(account, most_buckets(plan)):
        return too_many_buckets(account)
    if subscription.granted:
        given = (account, subscription, plan, context.now_us, context.plan_of, context.postings)
        moved = change_now(*given, context.rules)
        if moved is None:
            return insufficient_funds(account, plan)
        context.movements += moved
        return account
    subscription.plan, subscription.plan_version = plan.name, plan.version
    subscription.next_plan, subscription.next_plan_version = "", 0
    context.events += retry_unpaid(account, context.now_us, context.plan_of, context.postings, context.held_pico)
    return account


def suspend_subscription(data: SuspendSubscription, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``subscription.suspended.v1``: suspend the subscription and its buckets."""
    subscription = _running(data.subscription_id, account)
    if isinstance(subscription, Refusal):
        return subscription
    if subscription.status == SUSPENDED:
        return Refusal("subscription_suspended", f"subscription {data.subscription_id!r} is suspended")
    suspend(account, subscription, context.now_us)
    return account


def resume_subscription(data: ResumeSubscription, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``subscription.resumed.v1``: resume the subscription, and grant the current cycle if it is not granted."""
    subscription = _running(data.subscription_id, account)
    if isinstance(subscription, Refusal):
        return subscription
    if subscription.status != SUSPENDED:
        return Refusal("subscription_not_suspended", f"subscription {data.subscription_id!r} is not suspended")
    context.events += resume(account, subscription, context.now_us, context.plan_of, context.postings)
    return account


def _running(subscription_id: str, account: Account) -> Subscription | Refusal:
    subscription = account.subscription(subscription_id)
    if subscription is None:
        return Refusal("unknown_subscription", f"there is no subscription {subscription_id!r} on this account")
    if subscription.status == ENDED:
        return Refusal("subscription_ended", f"subscription {subscription_id!r} has ended")
    return subscription


def _renewable_plan(name: str, version: int | None, account: Account, context: CommandContext) -> Plan | Refusal:
    plan = plan_for_sale(name, version, account, context)
    if isinstance(plan, Plan) and plan.activation == FIRST_USE:
        return Refusal(
            "plan_not_renewable", f"plan {plan.label} begins with its first use, so it has no cycles; buy a package"
        )
    return plan
