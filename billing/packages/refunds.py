"""Refunds of the unused part of a grant: ordered by a command, paid after the grace period.

The command ``package.refunded.v1`` ends the grant's buckets, so later usage burns other buckets. The unused part is
paid once, like breakage, at the bucket's end plus grace by log time, so that late usage from before the command still
burns it (docs/reference/plans.md, "Refund"). The refund is paid the way the fee was paid: to the wallet, with gift
money as gift money, or from cash if the fee was paid elsewhere.

The time at which a bucket ends is decided in :mod:`billing.decide.roll_forward`. No SQL, no clock.
"""

from billing import ledger
from billing.accounts.account import REFUNDED, Account, Bucket
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Refund
from billing.accounts.movements import Movement, of_money, of_units, purse
from billing.accounts.wallet import deposit
from billing.catalog.model import Plan, PlanKey
from billing.ledger import Postings
from billing.packages.fees import Fee, credit_by_time, shares_of_credit, unused_part
from billing.packages.first_cycle import fee_of_grant
from billing.packages.grants import end_with_validity
from billing.tax import split_fee
from schemas.commands import RefundPackage
from schemas.currencies import part_to_minor_unit
from schemas.refusals import Refusal
from schemas.times import HOUR_US


def refund(data: RefundPackage, account: Account, context: CommandContext) -> Account | Refusal:
    """End a grant now, or one bucket if ``grant_id`` names a bucket, and record the refund that is due for it."""
    buckets = account.granted(data.grant_id)
    if not buckets:
        return Refusal("unknown_grant", f"there is no grant {data.grant_id!r} on this account")
    if any(one.grant_id in account.extras.received for one in buckets):
        return Refusal("not_refundable", f"grant {data.grant_id!r} was given by another account, which paid for it")
    lasting = [one for one in buckets if one.is_live(context.now_us) and one.grant_id not in account.extras.refunds]
    left = [one for one in lasting if one.remaining_micro]
    if not left:
        return Refusal(
            "nothing_to_refund", f"grant {data.grant_id!r} is used up, has ended, or is being refunded already"
        )
    for bucket in lasting:  # empty buckets end too, because their plan would otherwise decide overage
        plan = context.catalog.plan(bucket.plan, bucket.plan_version)
        if plan is None:
            return Refusal("unknown_plan", f"there is no plan {bucket.plan_key}")
        if bucket in left:
            promise_refund(account, bucket, plan)
        end_with_validity(bucket, plan)
        bucket.valid_until_us = min(bucket.valid_until_us, max(bucket.valid_from_us, context.now_us))
        bucket.lapse_at_us = min(bucket.lapse_at_us, context.now_us + plan.grace_hours * HOUR_US)
    return account


def promise_refund(account: Account, bucket: Bucket, plan: Plan, most: Fee | None = None) -> None:
    """Record that the unused part of a bucket is paid back when it ends, at most ``most`` for all of its sale."""
    fee_pico = _fee_pico(account, bucket, plan)
    net_pico, _ = split_fee(fee_pico, plan.tax_rate_micro, plan.currency)
    paid = Refund(fee_pico, net_pico, account.extras.wallet_paid_pico.get(bucket.sale))
    if most is not None:
        paid.most_pico, paid.most_net_pico = most.gross_pico, most.net_pico
    account.extras.refunds[bucket.grant_id] = paid


def _fee_pico(account: Account, bucket: Bucket, plan: Plan) -> int:
    """Return the fee that was paid for the sale a bucket belongs to, tax included.

    For the current plan in a subscription's current cycle, this is the amount paid since the plan last changed.
    """
    if bucket.is_pack:
        return plan.overage.price_pico
    subscription = account.subscription_of(bucket)
    if subscription is not None and bucket.grant == subscription.grant and bucket.plan == subscription.plan:
        return subscription.paid_pico
    return fee_of_grant(account, bucket, plan)


def pay_back(account: Account, ended: list[Bucket], postings: Postings) -> list[AccountEvent]:
    """Pay the refunds that are due for the unused part of these buckets, whose status becomes ``refunded``.

    One refund is paid per grant; each pack, and each plan of a cycle whose plan changed, has a refund of its own.
    """
    by_sale: dict[tuple[str, PlanKey], list[Bucket]] = {}
    for bucket in ended:
        by_sale.setdefault((bucket.sale, bucket.plan_key), []).append(bucket)
    events: list[AccountEvent] = []
    for (grant, _), buckets in sorted(by_sale.items()):
        events += _pay_grant(account, grant, buckets, postings)
    return events


def _pay_grant(account: Account, grant: str, buckets: list[Bucket], postings: Postings) -> list[AccountEvent]:
    paid, detail = account.extras.refunds[buckets[0].grant_id], str(buckets[0].plan_key)
    liabilities_pico = [bucket.liability_pico for bucket in buckets]
    unearned_pico, fee = sum(liabilities_pico), Fee(paid.fee_pico, paid.net_pico)
    if paid.most_pico is None:
        back = unused_part(fee, unearned_pico, account.currency)
    else:
        most = Fee(paid.most_pico, paid.most_net_pico)
        back = credit_by_time(most, fee, unearned_pico, account.currency)
    refund_pico = back.gross_pico
    gift_pico, before = 0, purse(account)
    if paid.gift_pico is not None:
        gift_pico = part_to_minor_unit(refund_pico, paid.gift_pico, paid.fee_pico, account.currency)
        deposit(account, refund_pico - gift_pico, gift=False)
        deposit(account, gift_pico, gift=True)
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, back.net_pico),
        (ledger.OUTPUT_VAT_PENDING, detail, back.tax_pico),
        (ledger.CASH if paid.gift_pico is None else ledger.CUSTOMER_DEPOSITS, "", -refund_pico),
        (ledger.ROUNDING, detail, back.rounding_pico),
    )
    lapsed_pico = unearned_pico - back.net_pico
    postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, lapsed_pico),
        (ledger.REVENUE_BREAKAGE, detail, -lapsed_pico),
    )
    events = []
    for bucket, part_pico in zip(buckets, shares_of_credit(back.net_pico, liabilities_pico), strict=True):
        rest_pico = bucket.liability_pico - part_pico
        moved = [of_units(account, "refund", bucket, 0, -part_pico)]
        moved += [of_units(account, "breakage", bucket, 0, -rest_pico)] if rest_pico else []
        bucket.status = REFUNDED
        bucket.liability_pico = 0
        events.append(bucket_ended(account, bucket, rest_pico, *moved))
    pay_from = "external" if paid.gift_pico is None else "wallet"
    about = {"plan": detail, "grant_id": grant, "pay_from": pay_from}
    money = of_money(account, "refund", refund_pico, before, tax_pico=back.tax_pico, **about)
    data: dict[str, str | int | None] = {
        "grant_id": grant,
        "plan": buckets[0].plan,
        "amount_pico": refund_pico,
        "gift_pico": gift_pico,
        "paid_to": pay_from,
    }
    return [*events, AccountEvent(account.account, "refund.paid.v1", data, (money,))]


def bucket_ended(account: Account, bucket: Bucket, breakage_pico: int, *moved: Movement) -> AccountEvent:
    """Return the event ``bucket.ended.v1``: the bucket, its unused quantity and its breakage revenue.

    ``moved`` are the movements that took the rest of its liability.
    """
    return AccountEvent(
        account.account,
        "bucket.ended.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": bucket.plan,
            "remaining_micro": bucket.remaining_micro,
            "breakage_pico": breakage_pico,
        },
        moved,
    )
