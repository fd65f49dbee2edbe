"""Application of one command to its account: time-driven changes, the rule of the command, notifications.

This module defines the order of these steps for all callers, including replay (:mod:`billing.corrections.replay`).
Identity and forwarding are decided in :mod:`billing.engine`. No SQL, no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import wallet_alert
from billing.accounts.command_context import CommandContext, Message
from billing.accounts.copies import copied_account
from billing.accounts.deduction_order import PlanOf, place_added, sort_buckets
from billing.accounts.held import NO_HOLDS, NO_LIMIT, Held, HeldLimit, Holdable, credit_pico, holdable, limit_after
from billing.accounts.movements import Movement
from billing.catalog.model import Catalog
from billing.decide.fees_ahead import fees_ahead_pico
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from billing.log_time import DecidedAt
from schemas.commands import (
    ChargeBackBill,
    CollectBill,
    Command,
    ConsentOverage,
    CorrectUsage,
    OpenAccount,
    PassTime,
    PurchasePackage,
    ReceivePackage,
    ReturnPackage,
    SetWalletAlert,
    TopUpWallet,
    VoidUsage,
)
from schemas.refusals import Refusal

DecideCommand = Callable[[CommandContext], Account | Refusal]

NEVER_TAKE = (
    *(OpenAccount, TopUpWallet, ReceivePackage, ReturnPackage, CollectBill, ChargeBackBill),
    *(ConsentOverage, SetWalletAlert, PassTime, VoidUsage, CorrectUsage),
)
"""Commands that holds never refuse: they give, or they only note something, or they correct usage that happened."""
READ_NO_HOLDS = tuple(kind for kind in NEVER_TAKE if kind is not TopUpWallet)
"""Commands whose decision does not read holds. A top-up pays unpaid renewals only with money that is not held."""
ONLY_ADD = (PurchasePackage, TopUpWallet)
"""Commands that change no bucket and no subscription's dates; they add buckets, and they move money.

With the hints of an account (:class:`billing.accounts.account.Hints`) they look at no bucket that was there before.
"""


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """Result of applying a command."""

    account: Account | None
    """The account after the command; only rolled forward if the command was refused; None if it does not exist."""
    refusal: Refusal | None
    messages: list[Message]
    of_time: list[AccountEvent]
    """Events of time-driven changes before the command; published before the outcome."""
    events: list[AccountEvent]
    """Other events for the account's owner, in order; published after the outcome."""
    movements: list[Movement]
    """Money and units that the command itself moved; published with the outcome."""
    limit: HeldLimit = NO_LIMIT
    """The most that may still be held of the account, of all that the command took from."""


def carry_out(
    command: Command,
    account: Account | None,
    at: DecidedAt,
    rule: DecideCommand,
    catalog: Catalog,
    plan_of: PlanOf,
    payment_known: Callable[[str, str], bool],
    postings: Postings,
    held: Held = NO_HOLDS,
    *,
    again: bool = False,
) -> CarriedOut:
    """Roll the account forward to log time and apply a command to it by ``rule``.

    A command that would take what ``held`` names is refused with ``held``. With ``again``, a command that was accepted
    before is carried out once more; holds have not refused it.
    """
    of_time: list[AccountEvent] = []
    if account is not None:
        if at.simulated:
            account.clock_us = at.now_us
        of_time = roll_forward(account, at.now_us, plan_of, postings, catalog, rules=at.rules)
    may_take = account is not None and not again and not isinstance(command.data, NEVER_TAKE)
    only_adds = account is not None and account.hints is not None and isinstance(command.data, ONLY_ADD)
    countable = partial(_holdable, until_us=held.until_us, plan_of=plan_of, catalog=catalog, buckets=not only_adds)
    before = countable(account) if may_take and account is not None else None
    # A refused command changes nothing. Without holds the rule itself refuses, before it changes anything.
    tried, spent = account, postings
    if before is not None and account is not None and held.holds:
        tried, spent = copied_account(account), Postings()
    known = 0 if tried is None else len(tried.buckets)
    context = CommandContext(
        *(command, tried, catalog, at.now_us, payment_known, spent, plan_of, at.rules.now),
        held_pico=_held_pico(account, held),
    )
    decided = rule(context)
    if isinstance(decided, Refusal):
        return CarriedOut(account, decided, context.messages, of_time, [], [])
    if at.simulated:
        decided.clock_us = at.now_us
    # A grant may be bought for a past period whose grace is over; then it expires at once.
    lapsed = roll_forward(decided, at.now_us, plan_of, spent, catalog, rules=at.rules)
    limit = NO_LIMIT if before is None else limit_after(before, countable(decided))
    taken = limit.exceeded_by(held.amounts, held.holds)
    if taken is not None:
        detail = f"{taken}; settle or release the holds, or wait until they expire"
        return CarriedOut(account, Refusal("held", detail), [], of_time, [], [])
    if spent is not postings:
        postings.merge(spent)
    low = wallet_alert(decided)
    if only_adds and decided.hints is not None:
        place_added(decided, known, plan_of)
    else:
        sort_buckets(decided, plan_of)
    events = [*context.events, *lapsed, *low]
    return CarriedOut(decided, None, context.messages, of_time, events, context.movements, limit)


def _holdable(account: Account, until_us: int, plan_of: PlanOf, catalog: Catalog, buckets: bool) -> Holdable:
    fees_pico = fees_ahead_pico(account, until_us, plan_of, catalog) if until_us else 0
    return holdable(account, fees_pico, account.buckets if buckets else ())


def _held_pico(account: Account | None, held: Held) -> int:
    """Return the money that fees must leave: none where the wallet has no limit."""
    return 0 if account is None or credit_pico(account) is None else held.amounts.wallet_pico
