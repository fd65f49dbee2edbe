"""Money in and out of a wallet: paid money, and gift money of the operator, which is spent first.

In the journal both are one customer deposit; this module posts nothing. No prices, no SQL.
"""

from billing.accounts.account import ACCOUNT_SUSPENDED, Account


def put_in(account: Account, amount_pico: int, *, gift: bool) -> None:
    """Add paid or gift money. Debt of the wallet is covered first; only the rest of a gift counts as gift money."""
    account.wallet_pico += amount_pico
    if gift:
        account.extras.gift_pico = max(0, min(account.extras.gift_pico + amount_pico, account.wallet_pico))


def can_pay(account: Account, amount_pico: int) -> bool:
    """Return True if the wallet, less open bills and plus the credit limit, covers a cost that may be refused.

    A suspended account may not spend. A cost of zero or below can always be paid.
    """
    if amount_pico <= 0:
        return True
    billed_pico = sum(bill.open_pico for bill in account.extras.bills)
    return (
        account.status != ACCOUNT_SUSPENDED
        and account.wallet_pico - billed_pico + account.credit_limit_pico >= amount_pico
    )


def take_out(account: Account, amount_pico: int) -> int:
    """Take money for usage or a fee, gift money first.

    The wallet may fall below zero; the caller decides if that is allowed.

    Returns:
        The part of the amount that was gift money.
    """
    gift_pico = min(account.extras.gift_pico, amount_pico)
    account.wallet_pico -= amount_pico
    account.extras.gift_pico -= gift_pico
    return gift_pico
