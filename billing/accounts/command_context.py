"""Values that a command's rule works with: its context, and the messages it sends.

The rules are in the modules that :data:`billing.decide.command_rules.RULES` names. A rule that refuses a command
returns a :class:`schemas.refusals.Refusal`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from billing.accounts.account import Account
from billing.accounts.account_event import AccountEvent
from billing.accounts.deduction_order import PlanOf
from billing.accounts.movements import Movement
from billing.catalog.model import Catalog
from billing.ledger import Postings
from billing.log_time import RULES_NUMBER
from schemas.commands import Command
from schemas.units import PICO_DIGITS

MAX_WALLET_PICO = 10 ** (18 + PICO_DIGITS)
"""Largest balance of a wallet; a command that would exceed it is refused.

The limit keeps every balance within SQL (38 digits) and the compiled core (128 bits).
"""


@dataclass(frozen=True, slots=True)
class Message:
    """A command from one account to another, which may be on another partition.

    ``type`` is one of :data:`schemas.commands.MESSAGES`; (``source``, ``id``) is the identity of the command.
    """

    type: str
    source: str
    id: str
    account: str
    data: dict[str, Any]


@dataclass(slots=True)
class CommandContext:
    """Input and output of a command's rule.

    The input includes the account, rolled forward to ``now_us`` (None: never opened). The rule adds to postings,
    messages and events.
    """

    command: Command
    account: Account | None
    catalog: Catalog
    now_us: int
    payment_known: Callable[[str, str], bool]
    """Returns True if (account, payment_ref) was used before."""
    postings: Postings
    plan_of: PlanOf
    rules: int = RULES_NUMBER
    """Number of the rules that decide; less than those of now only in a replay."""
    held_pico: int = 0
    """Money of the wallet that open holds hold; a fee that is only tried leaves it."""
    messages: list[Message] = field(default_factory=list)
    """Messages that the rule sends to other accounts, in order."""
    events: list[AccountEvent] = field(default_factory=list)
    """Events for the account's owner besides the outcome of the command."""
    movements: list[Movement] = field(default_factory=list)
    """Money and units that the command itself moved, in order; published with its outcome."""
