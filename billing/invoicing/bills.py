"""Postpaid accounts: bills on their day, collected elsewhere (with the phone bill), and arrears. Plain rules.

On the bill day at 00:00 (:data:`BILL_ZONE`), by log time, what the wallet owes, in whole fen, leaves the wallet and
becomes a bill: an amount receivable that is due some days later. A bill is paid by the confirmation of who collects it
and opened again by a chargeback. While a bill is past due the account is suspended: it may not buy and not reserve, but
usage that happened is billed as ever. Never: usage, SQL, the clock.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing import ledger
from billing.accounts.account import CLOSED, NO_END_US, OPEN, SUSPENDED, Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.command_context import CommandContext
from billing.accounts.extras import Bill, BillTerms
from billing.accounts.wallet import put_in
from billing.ledger import Postings
from schemas.commands import ChangeCredit, ChargeBackBill, CollectBill
from schemas.refusals import Refusal
from schemas.times import DAY_US
from schemas.units import FEN_PICO, format_pico

BILL_ZONE = ZoneInfo("Asia/Shanghai")
"""Where a bill day begins."""
DUE_DAYS = 30
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def terms(bill_day: int, due_days: int | None, now_us: int) -> BillTerms:
    """The terms of an account that is opened now: its first period begins now and ends on the next bill day."""
    return BillTerms(bill_day, DUE_DAYS if due_days is None else due_days, now_us, next_bill_us(bill_day, now_us))


def next_bill_us(bill_day: int, after_us: int) -> int:
    """The first beginning of a bill day after a time."""
    local = _local(after_us)
    year, month = local.year, local.month
    day = datetime(year, month, bill_day, tzinfo=BILL_ZONE)
    if _us(day) <= after_us:
        day = datetime(year + month // 12, month % 12 + 1, bill_day, tzinfo=BILL_ZONE)
    return _us(day)


def next_due_us(account: Account) -> int:
    """When time next does something here: a bill day, or the due day of a bill that is open."""
    due_us = NO_END_US if account.extras.bill_terms is None else account.extras.bill_terms.next_us
    if account.status == OPEN:
        due_us = min([due_us, *(bill.due_us for bill in account.extras.bills if bill.open_pico)])
    return due_us


def roll_bills(account: Account, now_us: int, postings: Postings) -> list[AccountEvent]:
    """A bill whose day has come, and the suspension of an account with a bill past due."""
    events: list[AccountEvent] = []
    if account.extras.bill_terms is not None and account.extras.bill_terms.next_us <= now_us:
        events += _issue(account, account.extras.bill_terms, postings)
    overdue = _overdue(account, now_us)
    if account.status == OPEN and overdue is not None:
        account.status = SUSPENDED
        events.append(AccountEvent(account.account, "account.suspended.v1", {"bill_id": overdue.bill_id}))
    return events


def _issue(account: Account, agreed: BillTerms, postings: Postings) -> list[AccountEvent]:
    from_us, until_us = agreed.since_us, agreed.next_us
    owed_pico = max(0, -account.wallet_pico)
    amount_pico = owed_pico - owed_pico % FEN_PICO  # What lies below the fen stays in the wallet, for the next bill.
    agreed.since_us, agreed.next_us = until_us, next_bill_us(agreed.bill_day, until_us)
    if account.status == CLOSED:
        account.extras.bill_terms = None  # That was the last one.
    if amount_pico == 0:
        return []
    put_in(account, amount_pico, gift=False)
    bill_id = f"{account.account}/{_local(until_us - 1 - (agreed.bill_day - 1) * DAY_US):%Y-%m}"
    bill = Bill(bill_id, amount_pico, from_us, until_us, until_us + agreed.due_days * DAY_US)
    account.extras.bills.append(bill)
    postings.post(
        account.currency,
        (ledger.RECEIVABLES, "", amount_pico),
        (ledger.CUSTOMER_DEPOSITS, "", -amount_pico),
    )
    data: dict[str, str | int | None] = {"bill_id": bill_id, "amount_pico": amount_pico, "begin_us": from_us}
    data |= {"end_us": until_us, "due_us": bill.due_us}
    return [AccountEvent(account.account, "bill.issued.v1", data)]


def collect(data: CollectBill, account: Account, scene: CommandContext) -> Account | Refusal:
    """A bill, or a part of it, was paid; the last one past due lets the account go on."""
    bill = _bill(account, data.bill_id)
    if bill is None:
        return _unknown(data.bill_id)
    if scene.payment_known(account.account, data.payment_ref):
        return Refusal("duplicate_payment_ref", f"payment {data.payment_ref!r} was booked before on this account")
    if data.amount_pico > bill.open_pico:
        return Refusal(
            "amount_exceeds_bill",
            f"{format_pico(data.amount_pico)} is more than the {format_pico(bill.open_pico)} open on {data.bill_id!r}",
        )
    bill.paid_pico += data.amount_pico
    _post_cash(account, scene, data.amount_pico)
    if account.status == SUSPENDED and _overdue(account, scene.now_us) is None:
        account.status = OPEN
        scene.events.append(AccountEvent(account.account, "account.resumed.v1", {"bill_id": data.bill_id}))
    return account


def charge_back(data: ChargeBackBill, account: Account, scene: CommandContext) -> Account | Refusal:
    """What was collected went back to the payer: the bill is open again, due when it was."""
    bill = _bill(account, data.bill_id)
    if bill is None:
        return _unknown(data.bill_id)
    if data.amount_pico > bill.paid_pico:
        return Refusal(
            "amount_exceeds_bill",
            f"{format_pico(data.amount_pico)} is more than the {format_pico(bill.paid_pico)} paid of {data.bill_id!r}",
        )
    bill.paid_pico -= data.amount_pico
    _post_cash(account, scene, -data.amount_pico)
    return account


def change_credit(data: ChangeCredit, account: Account, scene: CommandContext) -> Account | Refusal:
    """How far the wallet, with what is billed and open, may fall below zero from now on."""
    account.credit_limit_pico = data.credit_limit_pico
    return account


def _post_cash(account: Account, scene: CommandContext, amount_pico: int) -> None:
    scene.postings.post(account.currency, (ledger.CASH, "", amount_pico), (ledger.RECEIVABLES, "", -amount_pico))


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
