"""Rules of account commands: opening, top-up, purchase, closing, and the table of the rules of all commands.

A rule takes the command's data, the account and the command's context, and returns the account after the command or a
refusal with a reason. A refused command changes nothing. No SQL, no Kafka, no clock.
"""

from collections.abc import Callable
from typing import Any

from billing import ledger
from billing.accounts.account import ACCOUNT_CLOSED, ACCOUNT_SUSPENDED, Account, grants_of, has_room
from billing.accounts.command_context import MAX_WALLET_PICO, CommandContext
from billing.accounts.movements import of_money, purse
from billing.accounts.wallet import deposit
from billing.catalog.portion_counts import most_buckets
from billing.decide.carry_out import ONLY_ADD
from billing.decide.roll_forward import due_with_us, next_due_us
from billing.invoicing.bills import change_credit, charge_back, collect, terms
from billing.invoicing.commitments import begin_commitments
from billing.packages.adjustments import adjust
from billing.packages.consent import consent_overage
from billing.packages.cycles import LAST_START_US, first_start_us
from billing.packages.fees import fee_payable
from billing.packages.first_cycle import fee_of_cycle
from billing.packages.grants import grant_package
from billing.packages.refunds import refund
from billing.packages.sale import insufficient_funds, plan_for_sale, too_many_buckets
from billing.packages.subscription_commands import (
    cancel_subscription,
    change_subscription,
    resume_subscription,
    start_subscription,
    suspend_subscription,
)
from billing.packages.subscriptions import retry_unpaid
from billing.packages.transfers import receive, receive_return, return_transfer, send
from schemas.commands import (
    AdjustBalance,
    CancelSubscription,
    ChangeCredit,
    ChangeSubscription,
    ChargeBackBill,
    CloseAccount,
    CollectBill,
    CommandData,
    ConsentOverage,
    OpenAccount,
    PassTime,
    PurchasePackage,
    ReceivePackage,
    RefundPackage,
    ResumeSubscription,
    ReturnPackage,
    SetWalletAlert,
    StartSubscription,
    SuspendSubscription,
    TopUpWallet,
    TransferPackage,
)
from schemas.refusals import Refusal
from schemas.times import format_time_us
from schemas.units import format_pico

Rule = Callable[[Any, Account, CommandContext], Account | Refusal]


def decide(context: CommandContext) -> Account | Refusal:
    """Apply the command of a context and return the account, or the refusal.

    A refused command changes nothing in the context, except that a refused transfer adds the message that returns it.
    """
    known = 0 if context.account is None else len(context.account.buckets)
    data, decided = context.command.data, _decide(context)
    if isinstance(decided, Account):
        hints = decided.hints
        if hints is not None and hints.due_known and isinstance(data, ONLY_ADD):
            decided.next_due_us = due_with_us(decided, decided.buckets[known:], context.plan_of)
        else:
            decided.next_due_us = next_due_us(decided, context.plan_of)
        if hints is not None:
            hints.due_known = True
    elif isinstance(data, ReceivePackage):
        return_transfer(data, decided, context)
    return decided


def _decide(context: CommandContext) -> Account | Refusal:
    command = context.command
    if isinstance(command.data, OpenAccount):
        return _open(command.data, context)
    if context.account is None:
        return Refusal("unknown_account", f"account {command.account!r} was never opened")
    if context.account.status == ACCOUNT_CLOSED and not isinstance(command.data, WHEN_CLOSED):
        return Refusal("account_closed", f"account {command.account!r} is closed")
    if context.account.status == ACCOUNT_SUSPENDED and isinstance(command.data, NOT_WHEN_SUSPENDED):
        return Refusal("account_suspended", f"account {command.account!r} has a bill past due")
    return RULES[type(command.data)](command.data, context.account, context)


def _open(data: OpenAccount, context: CommandContext) -> Account | Refusal:
    if context.account is not None:
        return Refusal("account_exists", f"account {context.command.account!r} was opened before")
    if data.bill_day is not None and data.payment != "postpaid":
        return Refusal("not_postpaid", "bill_day: a prepaid account gets no bills")
    currencies: dict[str, set[str]] = {}
    for book in context.catalog.price_books:
        currencies.setdefault(book.name, set()).add(book.currency)
    if data.price_book is None:
        candidates = sorted(name for name, known in currencies.items() if known == {data.currency})
        if len(candidates) != 1:
            found = ", ".join(candidates) or "none"
            return Refusal(
                "ambiguous_price_book", f"price books in {data.currency}: {found}; name one in data.price_book"
            )
        price_book = candidates[0]
    elif data.price_book not in currencies:
        return Refusal("ambiguous_price_book", f"there is no price book {data.price_book!r}")
    elif currencies[data.price_book] != {data.currency}:
        known = ", ".join(sorted(currencies[data.price_book]))
        return Refusal("currency_mismatch", f"price book {data.price_book!r} is in {known}, not {data.currency}")
    else:
        price_book = data.price_book
    account = Account(
        account=context.command.account,
        currency=data.currency,
        price_book=price_book,
        payment=data.payment,
        credit_limit_pico=data.credit_limit_pico or 0,
    )
    begin_commitments(account, context.now_us, context.catalog)
    if data.bill_day is not None:
        account.extras.bill_terms = terms(data.bill_day, data.due_days, context.now_us)
    return account


def _top_up(data: TopUpWallet, account: Account, context: CommandContext) -> Account | Refusal:
    if context.payment_known(account.account, data.payment_ref):
        return Refusal("duplicate_payment_ref", f"payment {data.payment_ref!r} was booked before on this account")
    if account.wallet_pico + data.amount_pico > MAX_WALLET_PICO:
        return Refusal(
            "overflow",
            f"with {format_pico(data.amount_pico)} the wallet would hold more than {format_pico(MAX_WALLET_PICO)}",
        )
    before = purse(account)
    deposit(account, data.amount_pico, gift=data.gift)
    context.movements.append(of_money(account, "gift" if data.gift else "top_up", data.amount_pico, before))
    paid_by = ledger.PROMOTION_EXPENSE if data.gift else ledger.CASH
    context.postings.post(
        account.currency,
        (paid_by, "", data.amount_pico),
        (ledger.CUSTOMER_DEPOSITS, "", -data.amount_pico),
    )
    context.events += retry_unpaid(account, context.now_us, context.plan_of, context.postings, context.held_pico)
    return account


def _purchase(data: PurchasePackage, account: Account, context: CommandContext) -> Account | Refusal:
    plan = plan_for_sale(data.plan, data.plan_version, account, context)
    if isinstance(plan, Refusal):
        return plan
    names = grants_of(account)
    # Ids of a subscription's later cycles begin with its own id and must stay free.
    renewing = tuple(f"{subscription.subscription_id}/" for subscription in account.extras.subscriptions)
    if data.grant_id in names or data.grant_id.startswith(renewing):
        return Refusal("duplicate_grant_id", f"grant {data.grant_id!r} exists on this account")
    if data.starts_at_us >= LAST_START_US:
        begins, last = format_time_us(data.starts_at_us), format_time_us(LAST_START_US)
        return Refusal("invalid_starts_at", f"starts_at: {begins} is too far ahead; a cycle begins before {last}")
    if not has_room(account, most_buckets(plan)):
        return too_many_buckets(account)
    starts_us = first_start_us(data.starts_at_us, context.command.time_us, context.rules)
    fee_pico = fee_of_cycle(plan, starts_us).gross_pico
    if not fee_payable(account, data.pay_from, fee_pico):
        return insufficient_funds(account, plan, fee_pico)
    context.movements += grant_package(
        account, plan, data.grant_id, starts_us, context.now_us, data.pay_from, context.postings
    )
    return account


def _set_wallet_alert(data: SetWalletAlert, account: Account, context: CommandContext) -> Account | Refusal:
    account.extras.wallet_alert_pico, account.extras.wallet_alert_sent = data.below_pico, False
    return account


def _pass_time(data: PassTime, account: Account, context: CommandContext) -> Account | Refusal:
    return account  # the caller has already rolled the account forward


def _close(data: CloseAccount, account: Account, context: CommandContext) -> Account | Refusal:
    account.status = ACCOUNT_CLOSED
    return account


RULES: dict[type[CommandData], Rule] = {
    ConsentOverage: consent_overage,
    TopUpWallet: _top_up,
    PurchasePackage: _purchase,
    RefundPackage: refund,
    TransferPackage: send,
    ReceivePackage: receive,
    ReturnPackage: receive_return,
    AdjustBalance: adjust,
    StartSubscription: start_subscription,
    CancelSubscription: cancel_subscription,
    ChangeSubscription: change_subscription,
    SuspendSubscription: suspend_subscription,
    ResumeSubscription: resume_subscription,
    SetWalletAlert: _set_wallet_alert,
    PassTime: _pass_time,
    ChangeCredit: change_credit,
    CollectBill: collect,
    ChargeBackBill: charge_back,
    CloseAccount: _close,
}
"""Rule of each command for an existing account.

``account.opened.v1`` is handled separately. Void and correction of usage are in :mod:`billing.corrections.correct`,
because they need more than a :class:`~billing.accounts.command_context.CommandContext`.
"""
WHEN_CLOSED = (ReturnPackage, CollectBill, ChargeBackBill)
"""Commands that are also allowed on a closed account."""
NOT_WHEN_SUSPENDED = (PurchasePackage, StartSubscription, TransferPackage)
"""Commands that are refused for an account with a bill past due."""
