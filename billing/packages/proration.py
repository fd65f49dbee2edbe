"""Proration: change of a subscription's plan within a cycle, with a credit and a fee for the remaining time."""

from billing.accounts.account import Account, Bucket
from billing.accounts.deduction_order import PlanOf
from billing.accounts.extras import Subscription
from billing.accounts.movements import Movement, of_units
from billing.catalog.model import Plan
from billing.ledger import Postings
from billing.log_time import RULES_NUMBER
from billing.packages.fees import (
    Fee,
    credit_by_time,
    fee_of,
    fee_payable,
    give_back,
    share_of,
    shares_of_credit,
)
from billing.packages.first_cycle import part_of_period
from billing.packages.grants import Span
from billing.packages.subscriptions import cut_short, grant_part, lasting_buckets, plan_of_subscription, span_of
from billing.tax import split_fee
from schemas.currencies import minor_unit_pico, part_to_minor_unit


def change_now(
    account: Account,
    subscription: Subscription,
    new: Plan,
    now_us: int,
    plan_of: PlanOf,
    postings: Postings,
    rules: int = RULES_NUMBER,
) -> list[Movement] | None:
    """Change the plan for the rest of the current cycle, which must be granted, and return what moved.

    Return None and change nothing if the wallet cannot pay the difference.

    Let T be the duration of the cycle (of its whole calendar period, for what the new plan prorates in a first cycle)
    and t the time left.

    The new plan costs fee x t / T, rounded to the minor unit, and grants amount x t / T, rounded half even to 1e-6.

    The credit by time is paid x t / since. ``paid`` is what the last payment for this cycle was: the fee of the cycle,
    or the fee of the last change. ``since`` is the time from that payment's start to the end of the cycle. Used quota
    is not paid back: the credit is at most the unused part of ``paid``, as a refund now would give it
    (:func:`billing.packages.fees.credit_by_time`). The part of the fee that gift money paid is credited as gift money,
    in proportion.

    Minor units of the currency (fen of CNY) are rounded half away from zero. Rules 1 rounded the net part and the tax
    of the unused part down.

    Example: 9.90 (9.34 net) was paid for December, and 16 of 31 days are left. The credit by time is 5.11 (4.82 net).
    If 8.1 of 10 million tokens were used, 1.7746 of the liability is left, so the credit is 1.88 (0.11 of it tax). A
    new plan of 29.90 for 40 million tokens costs 15.43 and grants 20,645,161.290323 tokens.
    """
    old = plan_of_subscription(subscription, plan_of)
    cycle = span_of(subscription, plan_of)
    begins_us = max(now_us, subscription.paid_from_us)
    left_us, whole_us = cycle.until_us - begins_us, cycle.until_us - cycle.from_us
    replaced = [
        bucket
        for bucket in lasting_buckets(account, subscription, now_us)
        if bucket.cycle_number == subscription.cycle
        and bucket.grant_id not in subscription.cut_short
        and bucket.grant_id not in account.extras.refunds
    ]
    credit = _credit(subscription, old, replaced, left_us, cycle.until_us - subscription.paid_from_us, rules)
    part_us, period_us = part_of_period(new, cycle.from_us)
    period_us = whole_us if part_us == period_us else period_us
    fee = fee_of(new, left_us, period_us if new.proration.fee else whole_us)
    if not fee_payable(account, subscription.pay_from, fee.gross_pico - credit.gross_pico):
        return None
    taken: list[Movement] = []
    parts_pico = shares_of_credit(credit.net_pico, [bucket.liability_pico for bucket in replaced])
    for bucket, part_pico in zip(replaced, parts_pico, strict=True):
        bucket.liability_pico -= part_pico
        cut_short(bucket, subscription, begins_us, old)
        taken += [of_units(account, "credit", bucket, 0, -part_pico)] if part_pico else []
    gift_pico = account.extras.wallet_paid_pico.get(subscription.grant, 0)
    gift_back_pico = part_to_minor_unit(credit.gross_pico, gift_pico, subscription.paid_pico, account.currency)
    given = give_back(account, old, subscription.grant, credit, subscription.pay_from, gift_back_pico, postings)
    subscription.plan, subscription.plan_version = new.name, new.version
    subscription.next_plan, subscription.next_plan_version = "", 0
    rest = Span(begins_us, cycle.until_us)
    of_us = period_us if new.proration.quota else whole_us
    granted = grant_part(account, subscription, new, cycle, rest, now_us, now_us, fee, postings, left_us, of_us)
    return [given, *taken, *granted]


def _credit(
    subscription: Subscription, old: Plan, replaced: list[Bucket], left_us: int, paid_us: int, rules: int
) -> Fee:
    by_time = share_of(subscription.paid_pico, old.tax_rate_micro, old.currency, left_us, paid_us)
    unearned_pico = sum(bucket.liability_pico for bucket in replaced)
    if rules < 2:
        return _credit_of_rules_1(subscription, old, by_time, unearned_pico)
    paid = share_of(subscription.paid_pico, old.tax_rate_micro, old.currency, 1, 1)
    return credit_by_time(by_time, paid, unearned_pico, old.currency)


def _credit_of_rules_1(subscription: Subscription, old: Plan, by_time: Fee, unearned_pico: int) -> Fee:
    """Return the credit with a net part of at most the liability in minor units, and a tax reduced in proportion."""
    unit_pico = minor_unit_pico(old.currency)
    unearned_pico -= unearned_pico % unit_pico
    if by_time.net_pico <= unearned_pico:
        return by_time
    paid_net_pico = split_fee(subscription.paid_pico, old.tax_rate_micro, old.currency)[0]
    tax_pico = (subscription.paid_pico - paid_net_pico) * unearned_pico // (paid_net_pico * unit_pico) * unit_pico
    return Fee(unearned_pico + tax_pico, unearned_pico)
