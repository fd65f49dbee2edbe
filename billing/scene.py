"""What the rule of a command works with: the scene it is decided on, and the refusal that it may return. Plain values.

Never: a rule. Those are in the modules that :data:`billing.commands.RULES` names.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from billing.accounts import Account
from billing.burn import AccountEvent, PlanOf
from billing.catalog.model import Catalog, Plan
from billing.grants import MOST_BUCKETS, TOO_MANY_BUCKETS
from billing.ledger import Postings
from schemas.commands import Command
from schemas.times import format_time_us
from schemas.units import PICO_DIGITS, format_pico

WALLET_MAX_PICO = 10 ** (18 + PICO_DIGITS)
"""No command lifts a wallet above this: what SQL (38 digits) and the core (128 bits) hold must never be in doubt."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command was refused: a reason for programs, a sentence for people."""

    reason: str
    detail: str


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
class Scene:
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


def no_room(account: Account) -> Refusal:
    """The refusal of buckets beyond what an account may have."""
    return Refusal(
        TOO_MANY_BUCKETS,
        f"the account has {len(account.buckets)} buckets, and {MOST_BUCKETS} are the most; use another account",
    )


def insufficient_funds(account: Account, plan: Plan) -> Refusal:
    """The refusal of a fee that the wallet cannot pay."""
    return Refusal(
        "insufficient_funds",
        f"plan {plan.label} costs {format_pico(plan.price_pico)}, the wallet holds {format_pico(account.wallet_pico)} "
        f"with a credit limit of {format_pico(account.credit_limit_pico)}",
    )


def plan_for_sale(name: str, version: int | None, account: Account, scene: Scene) -> Plan | Refusal:
    """The plan version that an account may buy; the latest where no version is given.

    Whether the plan is sold at all is said by its latest version: older ones never change.
    """
    plan, latest = scene.catalog.plan(name, version), scene.catalog.plan(name)
    if plan is None or latest is None:
        wanted = "" if version is None else f" version {version}"
        return Refusal("unknown_plan", f"there is no plan {name!r}{wanted}")
    withdrawn_us = latest.withdrawn_from_us
    if withdrawn_us is not None and withdrawn_us <= scene.now_us:
        since = format_time_us(withdrawn_us)
        return Refusal("plan_withdrawn", f"plan {name!r} is not sold since {since}, by its version {latest.version}")
    if plan.currency != account.currency:
        return Refusal(
            "currency_mismatch", f"plan {plan.label} costs {plan.currency}, the account is {account.currency}"
        )
    return plan
