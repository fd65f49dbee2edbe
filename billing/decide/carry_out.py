"""What one command does to its account: what time has changed meanwhile, its rule, what is told.

Owns: the order of these, once, for whoever decides commands, for the first time or again
(:mod:`billing.corrections.replay`).
Never: identity, forwarding, SQL, the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.alerts import wallet_alert
from billing.accounts.command_context import CommandContext, Message
from billing.accounts.deduction_order import PlanOf, sort_buckets
from billing.catalog.model import Catalog
from billing.decide.roll_forward import roll_forward
from billing.ledger import Postings
from billing.log_time import DecidedAt
from schemas.commands import Command
from schemas.refusals import Refusal

Rule = Callable[[CommandContext], Account | Refusal]


@dataclass(frozen=True, slots=True)
class CarriedOut:
    """What came of a command."""

    account: Account | None
    """As it is now: rolled forward where the command was refused; None where there is none."""
    refusal: Refusal | None
    messages: list[Message]
    of_time: list[AccountEvent]
    """What time alone had brought before; told before the outcome."""
    events: list[AccountEvent]
    """What else the account's owner should know, in order; told after the outcome."""


def carry_out(
    command: Command,
    account: Account | None,
    at: DecidedAt,
    rule: Rule,
    catalog: Catalog,
    plan_of: PlanOf,
    payment_known: Callable[[str, str], bool],
    postings: Postings,
) -> CarriedOut:
    """Let ``rule`` decide a command on its account as it stands at a log time."""
    of_time: list[AccountEvent] = []
    if account is not None:
        if at.simulated:
            account.clock_us = at.now_us
        of_time = roll_forward(account, at.now_us, plan_of, postings, catalog)
    scene = CommandContext(command, account, catalog, at.now_us, payment_known, postings, plan_of)
    decided = rule(scene)
    if isinstance(decided, Refusal):
        return CarriedOut(account, decided, scene.messages, of_time, [])
    if at.simulated:
        decided.clock_us = at.now_us
    # A grant may be bought for a time whose grace is over: it lapses at once.
    lapsed = roll_forward(decided, at.now_us, plan_of, postings, catalog)
    low = wallet_alert(decided)
    sort_buckets(decided, plan_of)
    return CarriedOut(decided, None, scene.messages, of_time, [*scene.events, *lapsed, *low])
