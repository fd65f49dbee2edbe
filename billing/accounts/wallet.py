"""Money in and out of a wallet: what people paid, and what the operator gave (gift money, spent first). Plain rules.

Never: the journal (gift and principal are one deposit there), prices, SQL.
"""

from billing.accounts.account import SUSPENDED, Account


def put_in(account: Account, amount_pico: int, *, gift: bool) -> None:
    """Add money that was paid, or given. What is owed is covered before anything counts as a gift that is left."""
    account.wallet_pico += amount_pico
    if gift:
        account.extras.gift_pico = max(0, min(account.extras.gift_pico + amount_pico, account.wallet_pico))


def can_pay(account: Account, amount_pico: int) -> bool:
    """Whether the wallet, less what is billed and open, with its credit limit, holds what something costs that may be
    refused. A suspended account may not spend; what costs nothing, or gives money back, any wallet can pay."""
    if amount_pico <= 0:
        return True
    billed_pico = sum(bill.open_pico for bill in account.extras.bills)
    return account.status != SUSPENDED and account.wallet_pico - billed_pico + account.credit_limit_pico >= amount_pico


def take_out(account: Account, amount_pico: int) -> int:
    """Take money for usage or a fee: gift first. The wallet may fall below zero; whether it may, others decide.

    Returns:
        What of it was gift money.
    """
    gift_pico = min(account.extras.gift_pico, amount_pico)
    account.wallet_pico -= amount_pico
    account.extras.gift_pico -= gift_pico
    return gift_pico
