"""Overage: usage that no bucket covers is charged to the wallet, covered by a pack, owed, or absorbed.

The rule is in docs/reference/plans.md, "Overage". This module applies a plan's overage rule with its cap and consent,
buys packs, and charges the wallet for usage. The rule of the last matching bucket applies. No prices, no SQL, no clock.
"""

from fractions import Fraction

from billing import ledger
from billing.accounts.account import ACTIVE, CANCELLED, PACK, Account, Bucket, has_room
from billing.accounts.account_event import AccountEvent
from billing.accounts.movements import granted, of_money, purse
from billing.accounts.wallet import can_pay, withdraw
from billing.burning.deduct import EventPayment, deduct, limit_micro, need_pico
from billing.catalog.model import STD_TOKEN, Plan
from billing.packages.debts import owe
from billing.tax import net_of_tax, split_fee
from schemas.units import MILLION, divide_half_even


def settle_overage(payment: EventPayment, bucket: Bucket | None) -> None:
    """Settle the uncovered share of an event by the overage rule of the last matching bucket, empty or not.

    The wallet pays if no bucket matches, or if the event has no standard tokens.
    """
    if bucket is None or payment.rated.standard_micro == 0:
        charge_wallet(payment, payment.uncovered_pico, payment.share)
        return
    plan = payment.plan_of(bucket.plan_key)
    if plan.overage.mode == "pay_as_you_go":
        _pay_as_you_go(payment, bucket, plan)
        return
    if plan.overage.mode == "owe":
        _owe_or_absorb(payment, bucket, plan)
        return
    if plan.overage.mode == "auto_pack":
        _buy_packs(payment, bucket, plan)
    if payment.share:
        _absorb(payment, payment.uncovered_micro, payment.uncovered_pico, bucket, plan)


def charge_wallet(payment: EventPayment, amount_pico: int, share: Fraction) -> None:
    """Charge a share of the event to the wallet, which may fall below zero, and post revenue and tax."""
    account, burned, price_book = payment.account, payment.burned, payment.rated.price_book
    net_pico = net_of_tax(amount_pico, payment.tax_rate_micro)
    burned.charged_gift_pico += withdraw(account, amount_pico)
    burned.charged_share += share
    burned.charged_pico += amount_pico
    burned.charged_net_pico += net_pico
    payment.postings.post(
        account.currency,
        (ledger.CUSTOMER_DEPOSITS, "", amount_pico),
        (ledger.REVENUE_USAGE, price_book, -net_pico),
        (ledger.OUTPUT_VAT, price_book, net_pico - amount_pico),
    )


def _absorb(
    payment: EventPayment,
    uncovered_micro: int,
    uncovered_pico: int,
    bucket: Bucket,
    plan: Plan,
    part: int = 1,
    whole: int = 1,
) -> None:
    """Absorb ``part`` of ``whole`` of the uncovered share.

    A plan that caps another unit than standard tokens is sold in that unit, so the absorbed quantity is recorded in the
    unit of the bucket whose rule applies, too.
    """
    if plan.caps_other_units and bucket.unit != STD_TOKEN:
        needed_pico = need_pico(bucket.unit, payment.event, payment.rated)
        share = payment.share
        micro = divide_half_even(needed_pico * share.numerator * part, share.denominator * whole * MILLION)
        units = payment.account.extras.absorbed_units
        units[bucket.unit] = units.get(bucket.unit, 0) + micro
        payment.burned.absorbed_unit, payment.burned.absorbed_unit_micro = bucket.unit, micro
    payment.burned.absorbed_micro += uncovered_micro
    payment.burned.absorbed_pico += uncovered_pico
    payment.account.absorbed_micro += uncovered_micro
    payment.account.absorbed_pico += uncovered_pico


def _pay_as_you_go(payment: EventPayment, bucket: Bucket, plan: Plan) -> None:
    """Charge the wallet up to the cap for the grant's cycle, only with consent if required; absorb the rest."""
    due_pico, due_micro = payment.uncovered_pico, payment.uncovered_micro
    if plan.overage.consent_required and not consented(payment.account, plan.name, payment.event.time_us):
        _absorb(payment, due_micro, due_pico, bucket, plan)
        return
    charged_pico = due_pico
    if plan.overage.cap_pico:
        spent = payment.account.extras.overage_pico
        charged_pico = min(due_pico, plan.overage.cap_pico - spent.get(bucket.grant, 0))
        if charged_pico:
            spent[bucket.grant] = spent.get(bucket.grant, 0) + charged_pico
    if charged_pico or not due_pico:
        charge_wallet(
            payment, charged_pico, payment.share * Fraction(charged_pico, due_pico) if due_pico else payment.share
        )
    if charged_pico < due_pico:
        beyond_pico = due_pico - charged_pico
        beyond_micro = divide_half_even(due_micro * beyond_pico, due_pico)
        _absorb(payment, beyond_micro, beyond_pico, bucket, plan, beyond_pico, due_pico)


def _owe_or_absorb(payment: EventPayment, bucket: Bucket, plan: Plan) -> None:
    """Add the uncovered standard tokens to the debt of the plan; absorb those beyond its limit."""
    due_micro = payment.uncovered_micro
    payment.burned.owed_micro = owe(payment.account, plan, due_micro)
    beyond_micro = due_micro - payment.burned.owed_micro
    if beyond_micro:
        beyond_pico = divide_half_even(payment.uncovered_pico * beyond_micro, due_micro)
        _absorb(payment, beyond_micro, beyond_pico, bucket, plan, beyond_micro, due_micro)


def _buy_packs(payment: EventPayment, bucket: Bucket, plan: Plan) -> None:
    """Buy packs from the wallet while the event is not covered, the wallet can pay, and a new pack could be burned."""
    account, rule = payment.account, plan.overage
    packs = [other for other in account.buckets if other.grant == bucket.grant and other.is_pack]
    bought = sum(pack.status != CANCELLED for pack in packs)
    while (
        payment.uncovered_micro
        and bought < rule.max_packs
        and bucket.is_live(payment.now_us)
        and can_pay(account, rule.price_pico)
        and has_room(account, 1)
    ):
        pack = _pack(bucket, plan, len(packs) + 1)
        if limit_micro(payment, pack, plan) == 0:
            break
        bought += 1
        packs.append(pack)
        account.buckets.append(pack)
        account.next_due_us = min(account.next_due_us, pack.lapse_at_us)
        _post_sale(payment, plan, pack)
        deduct(payment, pack)


def _pack(extended: Bucket, plan: Plan, number: int) -> Bucket:
    """Return a pack with the scope, plan and validity of the bucket it extends.

    A pack fires no alerts, because its grant has already fired them.
    """
    net_pico, _ = split_fee(plan.overage.price_pico, plan.tax_rate_micro, plan.currency)
    return Bucket(
        grant_id=f"{extended.grant}/{PACK}{number}",
        plan=extended.plan,
        plan_version=extended.plan_version,
        bucket_no=extended.bucket_no,
        unit=STD_TOKEN,
        amount_micro=plan.overage.block_micro,
        remaining_micro=plan.overage.block_micro,
        liability_pico=net_pico,
        valid_from_us=extended.valid_from_us,
        valid_until_us=extended.valid_until_us,
        lapse_at_us=extended.lapse_at_us,
        alerts_fired=len(plan.alerts_micro),
        status=ACTIVE,
        carried_cycles=extended.carried_cycles,
    )


def _post_sale(payment: EventPayment, plan: Plan, pack: Bucket) -> None:
    account, price_pico = payment.account, plan.overage.price_pico
    net_pico, tax_pico = split_fee(price_pico, plan.tax_rate_micro, plan.currency)
    before = purse(account)
    account.extras.wallet_paid_pico[pack.sale] = withdraw(account, price_pico)
    about = {"plan": plan.label, "grant_id": pack.grant_id, "pay_from": "wallet"}
    paid = of_money(account, "pack", -price_pico, before, tax_pico=-tax_pico, **about)
    payment.postings.post(
        account.currency,
        (ledger.CUSTOMER_DEPOSITS, "", price_pico),
        (ledger.CONTRACT_LIABILITY, plan.label, -net_pico),
        (ledger.OUTPUT_VAT_PENDING, plan.label, -tax_pico),
    )
    payment.burned.events.append(
        AccountEvent(
            account.account,
            "pack.bought.v1",
            {
                "grant_id": pack.grant_id,
                "plan": pack.plan,
                "amount_micro": pack.amount_micro,
                "price_pico": price_pico,
            },
            (paid, granted(account, pack, "pack")),
        )
    )


def consented(account: Account, plan_name: str, time_us: int) -> bool:
    """Return True if the account's consent to pay for overage of a plan covers the time of the usage."""
    consent = account.extras.consents.get(plan_name)
    return consent is not None and consent.from_us <= time_us < consent.until_us
