"""Application of one command to its account: time-driven changes, the rule of the command, notifications.

This module defines the order of these steps for all callers, including replay (:mod:`billing.corrections.replay`).
Identity and forwarding are decided in :mod:`billing.engine`. No SQL, no clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import wallet_alert
from billing.accounts.command_context import CommandContext, Message
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.accounts.movements import Movement
from billing.catalog.model import Catalog
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from billing.log_time import DecidedAt
from schemas.commands import Command
from schemas.refusals import Refusal

DecideCommand = Callable[[CommandContext], Account | Refusal]


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


def carry_out(
    command: Command,
    account: Account | None,
    at: DecidedAt,
    rule: DecideCommand,
    catalog: Catalog,
    plan_of: PlanOf,
    payment_known: Callable[[str, str], bool],
    postings: Postings,
) -> CarriedOut:
    """Roll the account forward to log time and apply a command to it by ``rule``."""
    of_time: list[AccountEvent] = []
    if account is not None:
        if at.simulated:
            account.clock_us = at.now_us
        of_time = roll_forward(account, at.now_us, plan_of, postings, catalog)
    context = CommandContext(command, account, catalog, at.now_us, payment_known, postings, plan_of)
    decided = rule(context)
    if isinstance(decided, Refusal):
        return CarriedOut(account, decided, context.messages, of_time, [], [])
    if at.simulated:
        decided.clock_us = at.now_us
    # A grant may be bought for a past period whose grace is over; then it expires at once.
    lapsed = roll_forward(decided, at.now_us, plan_of, postings, catalog)
    low = wallet_alert(decided)
    sort_buckets(decided, plan_of)
    return CarriedOut(decided, None, context.messages, of_time, [*context.events, *lapsed, *low], context.movements)
