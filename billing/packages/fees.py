"""Plan fees: the amount with its tax, a share of it, and taking or returning it."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing import ledger
from billing.accounts.account import NO_END_US, Account
from billing.accounts.movements import Movement, Purse, of_money, purse
from billing.accounts.wallet import can_pay, deposit, withdraw
from billing.catalog.model import Plan
from billing.ledger import Postings
from billing.tax import split_fee
from schemas.currencies import part_to_minor_unit


@dataclass(frozen=True, slots=True)
class Fee:
    """A fee in pico: ``gross_pico`` includes tax, ``net_pico`` does not."""

    gross_pico: int
    net_pico: int
    rounding_pico: int = 0
    """Difference between gross, in whole minor units, and the exact net part and tax (:func:`unused_part`)."""

    @property
    def tax_pico(self) -> int:
        """The tax part of the fee."""
        return self.gross_pico - self.net_pico - self.rounding_pico

    def negative(self) -> "Fee":
        """Return the same fee with the opposite sign: what is given back."""
        return Fee(-self.gross_pico, -self.net_pico, -self.rounding_pico)


def fee_of(plan: Plan, part: int = 1, whole: int = 1) -> Fee:
    """Return the fee of a plan for ``part`` of ``whole`` of its cycle."""
    return share_of(plan.price_pico, plan.tax_rate_micro, plan.currency, part, whole)


def share_of(gross_pico: int, tax_rate_micro: int, currency: str, part: int, whole: int) -> Fee:
    """Return ``part`` of ``whole`` of a tax-inclusive amount, to the minor unit, half away from zero.

    The whole is not rounded.
    """
    if part != whole:
        gross_pico = part_to_minor_unit(gross_pico, part, whole, currency)
    return Fee(gross_pico, split_fee(gross_pico, tax_rate_micro, currency)[0])


def unused_part(paid: Fee, unearned_pico: int, currency: str) -> Fee:
    """Return the part of a paid fee that its buckets have not earned: what a refund and a change of plan give back.

    The amount is paid gross x unearned / paid net, and its tax paid tax x unearned / paid net, each rounded to
    the minor unit once, half away from zero.
    """
    gross_pico = part_to_minor_unit(paid.gross_pico, unearned_pico, paid.net_pico, currency)
    tax_pico = part_to_minor_unit(paid.tax_pico, unearned_pico, paid.net_pico, currency)
    return Fee(gross_pico, unearned_pico, gross_pico - unearned_pico - tax_pico)


def credit_by_time(by_time: Fee, paid: Fee, unearned_pico: int, currency: str) -> Fee:
    """Return what is given back of a paid fee: its part by time, at most the part that its buckets have not earned.

    Used quota is not paid back (:func:`unused_part`).
    """
    if by_time.net_pico <= unearned_pico:
        return by_time
    unused = unused_part(paid, unearned_pico, currency)
    beyond_pico = max(0, unused.gross_pico - by_time.gross_pico)  # less than a minor unit of net may round to one more
    return Fee(unused.gross_pico - beyond_pico, unearned_pico, unused.rounding_pico - beyond_pico)


def shares_of_credit(net_pico: int, liabilities_pico: Sequence[int]) -> list[int]:
    """Split the net part of a credit over the liabilities of its buckets, in proportion to their cumulative sum."""
    whole_pico = sum(liabilities_pico)
    parts: list[int] = []
    given_pico = upto_pico = 0
    for liability_pico in liabilities_pico:
        upto_pico += liability_pico
        part_pico = net_pico * upto_pico // whole_pico - given_pico if whole_pico else 0
        given_pico += part_pico
        parts.append(part_pico)
    return parts


def sell(
    account: Account, plan: Plan, grant_id: str, fee: Fee, pay_from: str, now_us: int, postings: Postings
) -> Movement:
    """Take the fee of a grant, record how much of it was gift money, post it, and return its movement.

    A fee paid elsewhere (``pay_from`` other than ``wallet``) is posted as cash. Records of grants that have ended are
    dropped. The buckets of the grant are the last that were added, and the last of them ends last.
    """
    before = purse(account)
    if pay_from == "wallet":
        paid_pico = account.extras.wallet_paid_pico
        _drop_ended(account, now_us)
        paid_pico[grant_id] = withdraw(account, fee.gross_pico)
        if account.hints is not None:
            account.hints.paid_until_us = min(account.hints.paid_until_us, account.buckets[-1].lapse_at_us)
    _post_fee(account, plan, fee, pay_from, postings)
    return _moved(account, "fee", plan, grant_id, fee.negative(), pay_from, before)


def give_back(
    account: Account, plan: Plan, grant_id: str, fee: Fee, pay_from: str, gift_pico: int, postings: Postings
) -> Movement:
    """Return part of a fee of a grant, ``gift_pico`` of it as gift money, post it, and return its movement."""
    before = purse(account)
    if pay_from == "wallet":
        deposit(account, fee.gross_pico - gift_pico, gift=False)
        deposit(account, gift_pico, gift=True)
    _post_fee(account, plan, fee.negative(), pay_from, postings)
    return _moved(account, "credit", plan, grant_id, fee, pay_from, before)


def _moved(
    account: Account, purpose: str, plan: Plan, grant_id: str, fee: Fee, pay_from: str, before: Purse
) -> Movement:
    about = {"plan": plan.label, "grant_id": grant_id, "pay_from": pay_from}
    return of_money(account, purpose, fee.gross_pico, before, tax_pico=fee.tax_pico, **about)


def _drop_ended(account: Account, now_us: int) -> None:
    """Drop the records of grants and packs whose buckets have all ended, in one pass over the buckets."""
    hints, paid_pico = account.hints, account.extras.wallet_paid_pico
    if not paid_pico or (hints is not None and now_us < hints.paid_until_us):
        return
    ends_us = {bucket.grant_id: bucket.lapse_at_us for bucket in account.buckets}
    of_grants_us: dict[str, int] = {}
    for bucket in account.buckets:
        of_grants_us[bucket.grant] = max(bucket.lapse_at_us, of_grants_us.get(bucket.grant, 0))
    ends_us |= of_grants_us
    for name in [name for name in paid_pico if ends_us.get(name, 0) <= now_us]:
        del paid_pico[name]
    if hints is not None:
        hints.paid_until_us = min((ends_us[name] for name in paid_pico), default=NO_END_US)


def _post_fee(account: Account, plan: Plan, fee: Fee, pay_from: str, postings: Postings) -> None:
    """Post a fee: net as contract liability, tax as output VAT that is not yet due, the rest as rounding."""
    paid_by = ledger.CUSTOMER_DEPOSITS if pay_from == "wallet" else ledger.CASH
    postings.post(
        account.currency,
        (paid_by, "", fee.gross_pico),
        (ledger.CONTRACT_LIABILITY, plan.label, -fee.net_pico),
        (ledger.OUTPUT_VAT_PENDING, plan.label, -fee.tax_pico),
        (ledger.ROUNDING, plan.label, -fee.rounding_pico),
    )


def fee_payable(account: Account, pay_from: str, amount_pico: int, held_pico: int = 0) -> bool:
    """Return True if a fee can be taken: always if it is paid elsewhere, else within wallet and credit limit.

    ``held_pico`` of the wallet is to be left.
    """
    if pay_from != "wallet" or amount_pico <= 0:
        return True
    return can_pay(account, amount_pico + held_pico)
