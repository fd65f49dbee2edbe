"""What the rule of a command works with: the scene it is decided on, and the refusal that it may return. Plain values.

Never: a rule. Those are in the modules that :data:`billing.decide.command_rules.RULES` names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.deduction_order import PlanOf
from billing.catalog.model import Catalog
from billing.ledger import Postings
from schemas.commands import Command
from schemas.units import PICO_DIGITS

WALLET_MAX_PICO = 10 ** (18 + PICO_DIGITS)
"""No command lifts a wallet above this: what SQL (38 digits) and the core (128 bits) hold must never be in doubt."""


@dataclass(frozen=True, slots=True)
class Message:
    """A command of ours to an account that may live on another partition; ``type`` is one of
    :data:`schemas.commands.MESSAGES`, (``source``, ``id``) its identity."""

    type: str
    source: str
    id: str
    account: str
    data: dict[str, Any]


@dataclass(slots=True)
class CommandContext:
    """What a command is decided on: the account as it stands (None: never opened), rolled forward to ``now_us``;
    and what the rule adds to postings, messages and events."""

    command: Command
    account: Account | None
    catalog: Catalog
    now_us: int
    payment_known: Callable[[str, str], bool]
    """Whether (account, payment_ref) was used before."""
    postings: Postings
    plan_of: PlanOf
    messages: list[Message] = field(default_factory=list)
    """What the rule sends to other accounts, in order."""
    events: list[AccountEvent] = field(default_factory=list)
    """What the account's owner should know besides the outcome."""
