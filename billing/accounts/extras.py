"""What accounts have beyond a wallet and buckets, kept as one JSON document in the account's row.

Owns: the form of that document. Usage that it has a say in (:attr:`Extras.wallet_floor_bits`, and what a bucket's plan
says of windows or members) is decided by the plain rule, event by event. Never: rules.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from pydantic import TypeAdapter

NOT_DUE_US = 0
FROM_ANY_WALLET, FROM_NO_WALLET = -1, 127
"""See :attr:`Extras.wallet_floor_bits`."""


class Counter(NamedTuple):
    """What an account used in one period of one period rule (:mod:`billing.pricing.period_prices`).

    ``used`` is in micro units (of meters or of standard tokens); for ``blocks`` it is what is left of the block that
    was begun, for a commitment it is pico of the currency. ``due_us`` is when a commitment is settled, by log time; 0
    for other rules.
    """

    used: int
    until_us: int
    due_us: int = NOT_DUE_US


@dataclass(slots=True)
class Refund:
    """What a bucket that is refunded, or was, is paid back by: the fee of its grant, and how that was paid."""

    fee_pico: int
    net_pico: int
    """The fee without tax."""
    gift_pico: int | None = None
    """What of the fee was gift money of the wallet; None: the fee was paid elsewhere."""


@dataclass(slots=True)
class Consent:
    """From when until when (excluded) an account agreed to pay for overage of a plan."""

    from_us: int
    until_us: int


@dataclass(slots=True)
class Subscription:
    """A plan that renews (:mod:`billing.packages.subscriptions`). Cycles are numbered from 1; times in microseconds."""

    subscription_id: str
    plan: str
    plan_version: int
    pay_from: str
    anchor_us: int
    """When cycle ``anchor_cycle`` began: later ones are counted from it."""
    anchor_cycle: int = 1
    cycle: int = 0
    """The cycle that began last."""
    granted: bool = False
    """Whether that cycle was granted: not where the wallet could not pay it, or while suspended."""
    status: str = "active"
    """``active``, ``unpaid``, ``suspended`` or ``ended``."""
    last_cycle: int = 0
    """The cycle with which a cancelled subscription ends; 0 where it renews until cancelled."""
    next_plan: str = ""
    """The plan from the next cycle on; empty where it stays."""
    next_plan_version: int = 0
    paid_pico: int = 0
    """What was paid, tax included, for the cycle since ``paid_from_us``: all of it, or the rest after a change."""
    paid_from_us: int = 0
    next_bucket: int = 1
    """Number of the next bucket of this cycle."""
    cut_short: list[str] = field(default_factory=list)
    """Buckets that were ended before their cycle."""

    @property
    def grant(self) -> str:
        """The grant of the cycle that began last."""
        return f"{self.subscription_id}/{self.cycle}"


@dataclass(slots=True)
class Bill:
    """What a postpaid account owed when a period closed (:mod:`billing.invoicing.bills`)."""

    bill_id: str
    amount_pico: int
    from_us: int
    until_us: int
    """The end of the period, when the bill was issued."""
    due_us: int
    paid_pico: int = 0

    @property
    def open_pico(self) -> int:
        """What is not paid."""
        return self.amount_pico - self.paid_pico


@dataclass(slots=True)
class BillTerms:
    """When a postpaid account is billed; ``since_us`` is when the running period began, ``next_us`` when it closes."""

    bill_day: int
    due_days: int
    since_us: int
    next_us: int


@dataclass(slots=True)
class Extras:
    """Fields are plain values (integers, texts, lists, dictionaries with text keys, dataclasses of those), each with a
    default that means "none": what equals its default is not written. Money in pico, quota in micro, times in
    microseconds."""

    gift_pico: int = 0
    """What of the wallet was given by the operator; it is spent first (:mod:`billing.accounts.wallet`)."""
    wallet_paid_pico: dict[str, int] = field(default_factory=dict)
    """Grants whose fee the wallet paid, and what of each fee was gift money; kept until their buckets have ended."""
    refunds: dict[str, Refund] = field(default_factory=dict)
    """Buckets that are refunded when they end, or were (:mod:`billing.packages.refunds`)."""
    counters: dict[str, Counter] = field(default_factory=dict)
    """Of period rules, by rule and first day (``monthly@2026-11-01``), sorted. What is over is dropped."""
    burns: dict[str, dict[str, str]] = field(default_factory=dict)
    """When standard tokens of plans with windows were burned: plan → hour → text (:mod:`billing.burning.windows`)."""
    members: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of shared plans: grant → member → micro standard tokens burned (:mod:`billing.burning.members`)."""
    overage_pico: dict[str, int] = field(default_factory=dict)
    """Of plans whose overage has a cap: grant → what the wallet paid (:mod:`billing.burning.overage`)."""
    consents: dict[str, Consent] = field(default_factory=dict)
    """Of plans whose overage needs consent: plan → when it was given for (:mod:`billing.burning.overage`)."""
    received: dict[str, str] = field(default_factory=dict)
    """Buckets that another account gave, and which (:mod:`billing.packages.transfers`)."""
    subscriptions: list[Subscription] = field(default_factory=list)
    """In the order in which they were started; those that ended too."""
    expiry_alerts: dict[str, int] = field(default_factory=dict)
    """How many alerts that its end is near a bucket has had, by grant id; only where there were any."""
    wallet_alert_pico: int | None = None
    """Below which amount of the wallet its owner is told."""
    wallet_alert_sent: bool = False
    """Whether that was told since the wallet was last at the amount or above it."""
    bill_terms: BillTerms | None = None
    bills: list[Bill] = field(default_factory=list)
    """In the order in which they were issued; paid ones too, which may be charged back."""

    @property
    def empty(self) -> bool:
        """Whether the account has nothing beyond wallet and buckets."""
        return self == _NOTHING

    @property
    def wallet_floor_bits(self) -> int:
        """The wallet may pay as long as it keeps 2 to the power of this pico, and nothing here has a say.

        ``FROM_ANY_WALLET`` where nothing ever has, ``FROM_NO_WALLET`` where gift money is spent first. Above the amount
        below which its owner is told, a power of two will do.
        """
        if self.gift_pico:
            return FROM_NO_WALLET
        if self.wallet_alert_pico is None or self.wallet_alert_sent:
            return FROM_ANY_WALLET
        return min(self.wallet_alert_pico.bit_length(), FROM_NO_WALLET)


_FORM = TypeAdapter(Extras)
_NOTHING = Extras()
NO_EXTRAS = "{}"
"""The document of an account that has nothing beyond wallet and buckets."""


def extras_json(extras: Extras) -> str:
    """The document: keys in the order of the fields, only what is not its default."""
    return NO_EXTRAS if extras.empty else _FORM.dump_json(extras, exclude_defaults=True).decode()


def parse_extras(document: str) -> Extras:
    """Read a document that :func:`extras_json` wrote.

    Raises:
        ValueError: it is not one.
    """
    return Extras() if document == NO_EXTRAS else _FORM.validate_json(document, strict=True)


def copied(extras: Extras) -> Extras:
    """An equal value that shares nothing that changes: by its document, in a quarter of ``deepcopy``'s time."""
    return parse_extras(extras_json(extras))
