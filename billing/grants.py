"""What a purchase grants: the buckets of one cycle, and the fee as liability and tax (CONTRACT §3). Plain rules."""

from billing import ledger
from billing.accounts import ACTIVE, NO_END_US, PENDING, Account, Bucket
from billing.catalog.model import Plan
from billing.cycles import first_cycle_end_us
from billing.ledger import Postings
from billing.wallet import take_out
from schemas.times import HOUR_US
from schemas.units import FEN_PICO, MILLION, divide_half_up


def split_fee(price_pico: int, tax_rate_micro: int) -> tuple[int, int]:
    """Split a tax-inclusive fee to fen: (net, tax) in pico. 9.90 at 6 % is 9.34 + 0.56.

    A fee finer than a fen keeps what lies below the fen in the tax, so that the parts add up to the fee.
    """
    net_fen = divide_half_up(price_pico * MILLION, (MILLION + tax_rate_micro) * FEN_PICO)
    net_pico = net_fen * FEN_PICO
    return net_pico, price_pico - net_pico


def share_liability(net_pico: int, plan: Plan) -> list[int]:
    """The liability of each bucket of a plan by its fee share, to fen; the last bucket takes the rest.

    What is rounded is the sum up to and with each bucket, so that no bucket's part can be negative.
    """
    parts: list[int] = []
    share_micro = 0
    for bucket in plan.buckets[:-1]:
        share_micro += bucket.fee_share_micro
        upto_pico = divide_half_up(net_pico * share_micro, MILLION * FEN_PICO) * FEN_PICO
        parts.append(upto_pico - sum(parts))
    return [*parts, net_pico - sum(parts)]


def grant_package(
    account: Account, plan: Plan, grant_id: str, starts_at_us: int, now_us: int, pay_from: str, postings: Postings
) -> None:
    """Add the buckets of one cycle to the account and post the sale.

    ``pay_from`` is ``external`` (the fee was paid elsewhere: cash) or ``wallet``.
    """
    net_pico, tax_pico = split_fee(plan.price_pico, plan.tax_rate_micro)
    ends_us = first_cycle_end_us(plan.cycle.kind, plan.cycle.days, plan.cycle.timezone, starts_at_us)
    lapse_us = NO_END_US if ends_us >= NO_END_US else ends_us + plan.grace_hours * HOUR_US
    for number, (rule, liability_pico) in enumerate(
        zip(plan.buckets, share_liability(net_pico, plan), strict=True), start=1
    ):
        account.buckets.append(
            Bucket(
                grant_id=f"{grant_id}/{number}",
                plan=plan.name,
                plan_version=plan.version,
                bucket_no=number,
                unit=rule.unit,
                amount_micro=rule.amount_micro,
                remaining_micro=rule.amount_micro,
                liability_pico=liability_pico,
                valid_from_us=starts_at_us,
                valid_until_us=ends_us,
                lapse_at_us=lapse_us,
                alerts_fired=0,
                status=PENDING if now_us < starts_at_us else ACTIVE,
            )
        )
    paid_by = ledger.CUSTOMER_DEPOSITS if pay_from == "wallet" else ledger.CASH
    if pay_from == "wallet":
        ended = {name for name in account.extras.wallet_paid_pico if _has_ended(account, name, now_us)}
        for name in ended:
            del account.extras.wallet_paid_pico[name]
        account.extras.wallet_paid_pico[grant_id] = take_out(account, plan.price_pico)
    postings.post(
        account.currency,
        (paid_by, "", plan.price_pico),
        (ledger.CONTRACT_LIABILITY, plan.label, -net_pico),
        (ledger.OUTPUT_VAT_PENDING, plan.label, -tax_pico),
    )


def _has_ended(account: Account, grant_id: str, now_us: int) -> bool:
    return all(bucket.lapse_at_us <= now_us for bucket in account.granted(grant_id))
