"""Money that changes by time will take from a wallet: fees of renewals, what is missing to a commitment, true-ups.

A hold on the wallet is granted beyond this money, so a renewal during the hold takes nothing that is held
(docs/decisions/holds.md, "Commands leave what is held"). No SQL, no clock.
"""

from billing.accounts.account import Account
from billing.accounts.copies import copied_account
from billing.accounts.deduction_order import PlanOf
from billing.catalog.model import Catalog
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings


def fees_ahead_pico(account: Account, until_us: int, plan_of: PlanOf, catalog: Catalog) -> int:
    """Return by how much changes due up to ``until_us`` lower the wallet at most, if no usage comes meanwhile.

    Renewals that the wallet cannot pay take nothing. Changes nothing.
    """
    extras = account.extras
    if account.next_due_us > until_us or not (
        any(one.pay_from == "wallet" for one in extras.subscriptions)
        or any(counter.due_us for counter in extras.counters.values())
        or any(true_up.due_us for true_up in extras.true_ups.values())
    ):
        return 0
    rolled = copied_account(account)
    lowest_pico = rolled.wallet_pico
    due_us = rolled.next_due_us
    while due_us <= until_us:
        roll_forward(rolled, due_us, plan_of, Postings(), catalog)
        lowest_pico = min(lowest_pico, rolled.wallet_pico)
        due_us = max(due_us + 1, rolled.next_due_us)
    return account.wallet_pico - lowest_pico
