"""Bills of postpaid accounts: issue on the bill day, collection, chargeback, arrears.

Bills are collected elsewhere, for example with the phone bill. On the bill day at 00:00 (:data:`BILL_ZONE`), by log
time, the debt of the wallet moves to a bill, rounded down to the minor unit (fen); the rest stays in the wallet for the
next bill. The bill is an amount receivable that is due some days later. The collector's confirmation pays a bill; a
chargeback reopens it. While a bill is past due, the account is suspended: it may not buy or reserve, but its usage is
still billed. No usage, no SQL, no clock.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing import ledger
from billing.accounts.account import ACCOUNT_CLOSED, ACCOUNT_OPEN, ACCOUNT_SUSPENDED, NO_END_US, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Bill, BillTerms
from billing.accounts.movements import of_money, purse
from billing.accounts.wallet import deposit
from billing.ledger import Postings
from billing.log_time import RULES_NUMBER
from schemas.commands import ChangeCredit, ChargeBackBill, CollectBill
from schemas.currencies import minor_unit_pico
from schemas.refusals import Refusal
from schemas.times import DAY_US
from schemas.units import format_pico

BILL_ZONE = ZoneInfo("Asia/Shanghai")
"""Time zone of the bill day."""
DUE_DAYS = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def terms(bill_day: int, due_days: int | None, now_us: int) -> BillTerms:
    """Return the terms of an account opened at ``now_us``: its first period ends on the next bill day."""
    return BillTerms(bill_day, DUE_DAYS if due_days is None else due_days, now_us, next_bill_us(bill_day, now_us))


def next_bill_us(bill_day: int, after_us: int) -> int:
    """Return the start of the first bill day after ``after_us``."""
    local = _local(after_us)
    year, month = local.year, local.month
    day = datetime(year, month, bill_day, tzinfo=BILL_ZONE)
    if _us(day) <= after_us:
        day = datetime(year + month // 12, month % 12 + 1, bill_day, tzinfo=BILL_ZONE)
    return _us(day)


def next_due_us(account: Account) -> int:
    """Return the next bill day or due time of an open bill; ``NO_END_US`` if there is none.

    Due times matter only while the account is open.
    """
    due_us = NO_END_US if account.extras.bill_terms is None else account.extras.bill_terms.next_us
    if account.status == ACCOUNT_OPEN:
        due_us = min([due_us, *(bill.due_us for bill in account.extras.bills if bill.open_pico)])
    return due_us


def roll_bills(account: Account, now_us: int, postings: Postings, rules: int = RULES_NUMBER) -> list[AccountEvent]:
    """Issue a bill if the bill day has come, and suspend an account with a bill past due. ``rules`` name the bill."""
    events: list[AccountEvent] = []
    if account.extras.bill_terms is not None and account.extras.bill_terms.next_us <= now_us:
        events += _issue(account, account.extras.bill_terms, postings, rules)
    overdue = _overdue(account, now_us)
    if account.status == ACCOUNT_OPEN and overdue is not None:
        account.status = ACCOUNT_SUSPENDED
        events.append(AccountEvent(account.account, "account.suspended.v1", {"bill_id": overdue.bill_id}))
    return events


def _issue(account: Account, agreed: BillTerms, postings: Postings, rules: int) -> list[AccountEvent]:
    from_us, until_us = agreed.since_us, agreed.next_us
    owed_pico = max(0, -account.wallet_pico)
    # The part below one minor unit stays in the wallet for the next bill.
    amount_pico = owed_pico - owed_pico % minor_unit_pico(account.currency)
    agreed.since_us, agreed.next_us = until_us, next_bill_us(agreed.bill_day, until_us)
    if account.status == ACCOUNT_CLOSED:
        account.extras.bill_terms = None  # This was the last bill.
    if amount_pico == 0:
        return []
    before = purse(account)
    deposit(account, amount_pico, gift=False)
    # The last month that the period reaches: each has one bill day, so no two bills of an account share it.
    named_us = until_us - 1 if rules > 1 else until_us - 1 - (agreed.bill_day - 1) * DAY_US
    bill_id = f"{account.account}/{_local(named_us):%Y-%m}"
    bill = Bill(bill_id, amount_pico, from_us, until_us, until_us + agreed.due_days * DAY_US)
    account.extras.bills.append(bill)
    postings.post(
        account.currency,
        (ledger.RECEIVABLES, "", amount_pico),
        (ledger.CUSTOMER_DEPOSITS, "", -amount_pico),
    )
    data: dict[str, str | int | None] = {"bill_id": bill_id, "amount_pico": amount_pico, "begin_us": from_us}
    data |= {"end_us": until_us, "due_us": bill.due_us}
    moved = of_money(account, "bill", amount_pico, before, bill_id=bill_id)
    return [AccountEvent(account.account, "bill.issued.v1", data, (moved,))]


def collect(data: CollectBill, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``bill.collected.v1``: pay a bill or part of it; resume the account if no bill is past due any more."""
    bill = _bill(account, data.bill_id)
    if bill is None:
        return _unknown(data.bill_id)
    if context.payment_known(account.account, data.payment_ref):
        return Refusal("duplicate_payment_ref", f"payment {data.payment_ref!r} was booked before on this account")
    if data.amount_pico > bill.open_pico:
        return Refusal(
            "amount_exceeds_bill",
            f"{format_pico(data.amount_pico)} is more than the {format_pico(bill.open_pico)} open on {data.bill_id!r}",
        )
    bill.paid_pico += data.amount_pico
    _post_cash(account, context, data.amount_pico)
    paid = of_money(account, "bill_payment", -data.amount_pico, purse(account), bill_id=bill.bill_id)
    context.movements.append(paid)
    if account.status == ACCOUNT_SUSPENDED and _overdue(account, context.now_us) is None:
        account.status = ACCOUNT_OPEN
        context.events.append(AccountEvent(account.account, "account.resumed.v1", {"bill_id": data.bill_id}))
    return account


def charge_back(data: ChargeBackBill, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``bill.charged_back.v1``: reopen a bill whose payment was returned; its due date does not change."""
    bill = _bill(account, data.bill_id)
    if bill is None:
        return _unknown(data.bill_id)
    if data.amount_pico > bill.paid_pico:
        return Refusal(
            "amount_exceeds_bill",
            f"{format_pico(data.amount_pico)} is more than the {format_pico(bill.paid_pico)} paid of {data.bill_id!r}",
        )
    bill.paid_pico -= data.amount_pico
    _post_cash(account, context, -data.amount_pico)
    back = of_money(account, "chargeback", data.amount_pico, purse(account), bill_id=bill.bill_id)
    context.movements.append(back)
    return account


def change_credit(data: ChangeCredit, account: Account, context: CommandContext) -> Account | Refusal:
    """Apply ``credit.changed.v1``: set the credit limit, which covers wallet debt and open bills together."""
    account.credit_limit_pico = data.credit_limit_pico
    return account


def _post_cash(account: Account, context: CommandContext, amount_pico: int) -> None:
    context.postings.post(account.currency, (ledger.CASH, "", amount_pico), (ledger.RECEIVABLES, "", -amount_pico))


def _bill(account: Account, bill_id: str) -> Bill | None:
    return next((bill for bill in account.extras.bills if bill.bill_id == bill_id), None)


def _unknown(bill_id: str) -> Refusal:
    return Refusal("unknown_bill", f"there is no bill {bill_id!r} on this account")


def _overdue(account: Account, now_us: int) -> Bill | None:
    return next((bill for bill in account.extras.bills if bill.open_pico and bill.due_us <= now_us), None)


def _local(time_us: int) -> datetime:
    return (_EPOCH + time_us * _MICROSECOND).astimezone(BILL_ZONE)


def _us(moment: datetime) -> int:
    return (moment.astimezone(UTC) - _EPOCH) // _MICROSECOND
