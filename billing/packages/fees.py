"""Plan fees: the amount with its tax, a share of it, and taking or returning it."""

from dataclasses import dataclass

from billing import ledger
from billing.accounts.account import Account
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


def sell(
    account: Account, plan: Plan, grant_id: str, fee: Fee, pay_from: str, now_us: int, postings: Postings
) -> Movement:
    """Take the fee of a grant, record how much of it was gift money, post it, and return its movement.

    A fee paid elsewhere (``pay_from`` other than ``wallet``) is posted as cash. Records of grants that have ended are
    dropped.
    """
    before = purse(account)
    if pay_from == "wallet":
        paid_pico = account.extras.wallet_paid_pico
        for name in [name for name in paid_pico if _has_ended(account, name, now_us)]:
            del paid_pico[name]
        paid_pico[grant_id] = withdraw(account, fee.gross_pico)
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


def _has_ended(account: Account, grant_id: str, now_us: int) -> bool:
    return all(bucket.lapse_at_us <= now_us for bucket in account.granted(grant_id))


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
