"""What a fee buys: the buckets of one cycle, and the fee as liability and tax (CONTRACT §3). Plain rules.

Owns: the split of a fee, the buckets of a purchase or of a part of a cycle, and the begin of those that wait for their
first use. Never: when a cycle begins (:mod:`billing.cycles`), renewal (:mod:`billing.subscriptions`).
"""

from dataclasses import dataclass

from billing import ledger
from billing.accounts import ACTIVE, NO_END_US, PENDING, Account, Bucket
from billing.catalog.model import Plan
from billing.cycles import cycle_end_us
from billing.ledger import Postings
from billing.wallet import can_pay, put_in, take_out
from schemas.times import DAY_US, HOUR_US
from schemas.units import FEN_PICO, MILLION, divide_half_even, divide_half_up, part_to_fen

FIRST_USE = "first_use"
TOO_MANY_BUCKETS = "too_many_buckets"
"""Why nothing is granted to an account that has :data:`MOST_BUCKETS`."""
MOST_BUCKETS = 10_000
"""Of one account, those that ended included: they stay listed, so each is in every balance that is published (some
2 MB then), and the core counts them in 16 bits."""


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee with tax, in pico: ``net_pico`` is the part without it."""

    gross_pico: int
    net_pico: int

    @property
    def tax_pico(self) -> int:
        """The tax in it."""
        return self.gross_pico - self.net_pico


@dataclass(frozen=True, slots=True)
class Span:
    """From a time (included) until another (excluded)."""

    from_us: int
    until_us: int


def split_fee(price_pico: int, tax_rate_micro: int) -> tuple[int, int]:
    """Split a tax-inclusive fee to fen: (net, tax) in pico. 9.90 at 6 % is 9.34 + 0.56.

    A fee finer than a fen keeps what lies below the fen in the tax, so that the parts add up to the fee.
    """
    net_fen = divide_half_up(price_pico * MILLION, (MILLION + tax_rate_micro) * FEN_PICO)
    net_pico = net_fen * FEN_PICO
    return net_pico, price_pico - net_pico


def fee_of(plan: Plan, part: int = 1, whole: int = 1) -> Fee:
    """The fee of a plan for ``part`` of ``whole`` of its cycle."""
    return share_of(plan.price_pico, plan.tax_rate_micro, part, whole)


def share_of(gross_pico: int, tax_rate_micro: int, part: int, whole: int) -> Fee:
    """``part`` of ``whole`` of an amount with tax, half up to fen; all of it as it is."""
    if part != whole:
        gross_pico = part_to_fen(gross_pico, part, whole)
    return Fee(gross_pico, split_fee(gross_pico, tax_rate_micro)[0])


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


def lapse_us(plan: Plan, ends_us: int) -> int:
    """Log time at which what ends at ``ends_us`` lapses."""
    return NO_END_US if ends_us >= NO_END_US else ends_us + plan.grace_hours * HOUR_US


def add_buckets(
    account: Account,
    plan: Plan,
    grant_id: str,
    span: Span,
    now_us: int,
    net_pico: int,
    *,
    number: int = 1,
    part: int = 1,
    whole: int = 1,
) -> list[Bucket]:
    """Add the buckets of a plan for ``part`` of ``whole`` of a cycle, numbered from ``number``; returns them.

    An amount is cut half even to 1e-6, and never to nothing.
    """
    added = [
        Bucket(
            grant_id=f"{grant_id}/{number + place}",
            plan=plan.name,
            plan_version=plan.version,
            bucket_no=place + 1,
            unit=rule.unit,
            amount_micro=amount_micro,
            remaining_micro=amount_micro,
            liability_pico=liability_pico,
            valid_from_us=span.from_us,
            valid_until_us=span.until_us,
            lapse_at_us=lapse_us(plan, span.until_us),
            alerts_fired=0,
            status=PENDING if now_us < span.from_us else ACTIVE,
        )
        for place, (rule, liability_pico) in enumerate(
            zip(plan.buckets, share_liability(net_pico, plan), strict=True),
        )
        for amount_micro in [max(1, divide_half_even(rule.amount_micro * part, whole))]
    ]
    account.buckets += added
    return added


def has_room(account: Account, buckets: int) -> bool:
    """Whether an account may have so many buckets more."""
    return len(account.buckets) + buckets <= MOST_BUCKETS


def sell(account: Account, plan: Plan, grant_id: str, fee: Fee, pay_from: str, now_us: int, postings: Postings) -> None:
    """Take the fee of a grant, remembering what of it was gift money, and post it."""
    if pay_from == "wallet":
        paid_pico = account.extras.wallet_paid_pico
        for name in [name for name in paid_pico if _has_ended(account, name, now_us)]:
            del paid_pico[name]
        paid_pico[grant_id] = take_out(account, fee.gross_pico)
    _post_fee(account, plan, fee, pay_from, postings)


def give_back(account: Account, plan: Plan, fee: Fee, pay_from: str, gift_pico: int, postings: Postings) -> None:
    """Give part of a fee back, so much of it as gift money."""
    if pay_from == "wallet":
        put_in(account, fee.gross_pico - gift_pico, gift=False)
        put_in(account, gift_pico, gift=True)
    _post_fee(account, plan, Fee(-fee.gross_pico, -fee.net_pico), pay_from, postings)


def _has_ended(account: Account, grant_id: str, now_us: int) -> bool:
    return all(bucket.lapse_at_us <= now_us for bucket in account.granted(grant_id))


def _post_fee(account: Account, plan: Plan, fee: Fee, pay_from: str, postings: Postings) -> None:
    """A fee is liability, and tax that is not due yet."""
    paid_by = ledger.CUSTOMER_DEPOSITS if pay_from == "wallet" else ledger.CASH
    postings.post(
        account.currency,
        (paid_by, "", fee.gross_pico),
        (ledger.CONTRACT_LIABILITY, plan.label, -fee.net_pico),
        (ledger.OUTPUT_VAT_PENDING, plan.label, -fee.tax_pico),
    )


def fee_payable(account: Account, pay_from: str, amount_pico: int) -> bool:
    """Whether a fee can be taken: one paid elsewhere always, from the wallet within money and credit limit."""
    return pay_from != "wallet" or can_pay(account, amount_pico)


def grant_package(
    account: Account, plan: Plan, grant_id: str, starts_at_us: int, now_us: int, pay_from: str, postings: Postings
) -> None:
    """Add the buckets of one cycle to the account and post the sale.

    ``pay_from`` is ``external`` (the fee was paid elsewhere: cash) or ``wallet``. Buckets of a plan that begins with
    its first use wait for it, from ``starts_at_us`` until they must begin.
    """
    fee = fee_of(plan)
    span = Span(starts_at_us, cycle_end_us(plan.cycle, starts_at_us, 1))
    if plan.activation == FIRST_USE:
        days = plan.activate_within_days
        span = Span(starts_at_us, starts_at_us + days * DAY_US if days else NO_END_US)
    added = add_buckets(account, plan, grant_id, span, now_us, fee.net_pico)
    if plan.activation == FIRST_USE:
        for bucket in added:
            bucket.status, bucket.lapse_at_us = PENDING, NO_END_US
    sell(account, plan, grant_id, fee, pay_from, now_us, postings)


def waits_for_use(bucket: Bucket, plan: Plan) -> bool:
    """Whether a bucket begins with the first usage that reaches it."""
    # One that is being refunded lapses in any case.
    return bucket.status == PENDING and plan.activation == FIRST_USE and bucket.lapse_at_us >= NO_END_US


def never_begun(bucket: Bucket, plan: Plan) -> bool:
    """Whether no usage has reached a bucket that begins with its first use, even where it was emptied otherwise."""
    # Without an end (cycle ``once``) it cannot be told, and makes no difference.
    return plan.activation == FIRST_USE and plan.cycle.kind != "once" and bucket.lapse_at_us >= NO_END_US


def begin(account: Account, bucket: Bucket, plan: Plan, time_us: int) -> None:
    """Begin the cycle of a grant that waited, all its buckets together."""
    ends_us = cycle_end_us(plan.cycle, time_us, 1)
    for waiting in account.granted(bucket.grant):
        if waits_for_use(waiting, plan):
            waiting.status = ACTIVE
            waiting.valid_from_us, waiting.valid_until_us = time_us, ends_us
            waiting.lapse_at_us = lapse_us(plan, ends_us)
