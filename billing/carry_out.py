"""What one command does to its account: what time has changed meanwhile, its rule, what is told.

Owns: the order of these, once, for whoever decides commands, for the first time or again (:mod:`billing.replay`).
Never: identity, forwarding, SQL, the clock.
"""

from collections.abc import Callable
from dataclasses import dataclass

from billing.accounts import Account
from billing.alerts import wallet_alert
from billing.burn import AccountEvent, PlanOf, sort_buckets
from billing.catalog.model import Catalog
from billing.ledger import Postings
from billing.lifecycle import roll_forward
from billing.limits import DecidedAt
from billing.scene import Message, Refusal, Scene
from schemas.commands import Command

Rule = Callable[[Scene], Account | Refusal]


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
    scene = Scene(command, account, catalog, at.now_us, payment_known, postings, plan_of)
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
