"""Additional account state beyond wallet and buckets, stored as one JSON document in the account's row.

This module defines the form of the document. Usage that depends on it (:attr:`Extras.wallet_floor_bits`, and plans with
windows or members) is decided by the plain rule, event by event. The rules are in other modules.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from pydantic import TypeAdapter

NOT_DUE_US = 0
FROM_ANY_WALLET, FROM_NO_WALLET = -1, 127
"""Special values of :attr:`Extras.wallet_floor_bits`."""


class Counter(NamedTuple):
    """Usage of an account in one period of one period rule (:mod:`billing.pricing.period_prices`).

    ``used`` is in micro units (of meters or of standard tokens). For ``blocks`` it is the unused rest of the current
    block; for a commitment it is in pico of the currency. ``until_us`` is the end of the period. ``due_us`` is the log
    time at which a commitment is settled, and 0 for other rules.
    """

    used: int
    until_us: int
    due_us: int = NOT_DUE_US


@dataclass(slots=True)
class Refund:
    """Basis of the refund of a bucket, pending or paid: the fee of its grant and how the fee was paid."""

    fee_pico: int
    net_pico: int
    """The fee without tax."""
    gift_pico: int | None = None
    """The part of the fee paid with gift money of the wallet; None: the fee was paid elsewhere."""
    most_pico: int | None = None
    """The most that is paid, tax included: what a cancellation gives back by time; None: all that is unused."""
    most_net_pico: int = 0
    """``most_pico`` without tax."""


@dataclass(slots=True)
class TrueUpPart:
    """Usage of one period under one price book version: what the wallet paid, and what it would have paid."""

    charged_pico: int = 0
    """Amount that the wallet paid so far, true-ups included."""
    gift_pico: int = 0
    """The part of that which was gift money."""
    at_tiers_pico: list[int] = field(default_factory=list)
    """Amount that the wallet would have paid if all of the usage had been priced in each tier of the rule."""


@dataclass(slots=True)
class TrueUp:
    """Volume price of a whole period, to be settled at its end (:mod:`billing.invoicing.true_ups`)."""

    used: int
    """Counter of the period after the last event, in micro units."""
    until_us: int
    """End of the period."""
    due_us: int
    """Log time of the next settlement; 0: nothing came since the last one."""
    parts: dict[str, TrueUpPart] = field(default_factory=dict)
    """By price book version, as ``name@version``, sorted."""


@dataclass(slots=True)
class Consent:
    """Time in which an account agrees to pay for overage of a plan: ``from_us`` included, ``until_us`` excluded."""

    from_us: int
    until_us: int


@dataclass(slots=True)
class Subscription:
    """A plan that renews (:mod:`billing.packages.subscriptions`); its cycles are numbered from 1."""

    subscription_id: str
    plan: str
    plan_version: int
    pay_from: str
    anchor_us: int
    """Start of cycle ``anchor_cycle``; later cycles are computed from it."""
    anchor_cycle: int = 1
    cycle: int = 0
    """The current cycle: the one that began last."""
    granted: bool = False
    """True if the current cycle is granted; False if the wallet could not pay it, or it began while suspended."""
    status: str = "active"
    """``active``, ``unpaid``, ``suspended`` or ``ended``."""
    last_cycle: int = 0
    """The last cycle of a cancelled subscription; 0 if it renews until cancelled."""
    next_plan: str = ""
    """The plan from the next cycle on; empty if it does not change."""
    next_plan_version: int = 0
    paid_pico: int = 0
    """Fee paid, tax included, for the part of the cycle since ``paid_from_us``: all of it, or the rest after a change
    of plan."""
    paid_from_us: int = 0
    next_bucket: int = 1
    """Number of the next bucket granted in this cycle."""
    cut_short: list[str] = field(default_factory=list)
    """Ids of buckets that were ended before the end of their cycle."""

    @property
    def grant(self) -> str:
        """Id of the current cycle's grant."""
        return f"{self.subscription_id}/{self.cycle}"


@dataclass(slots=True)
class Bill:
    """Amount that a postpaid account owed at the end of a billing period (:mod:`billing.invoicing.bills`)."""

    bill_id: str
    amount_pico: int
    from_us: int
    until_us: int
    """End of the period, which is the time of issue."""
    due_us: int
    paid_pico: int = 0

    @property
    def open_pico(self) -> int:
        """The unpaid part."""
        return self.amount_pico - self.paid_pico


@dataclass(slots=True)
class BillTerms:
    """Billing terms of a postpaid account; the current period is from ``since_us`` to ``next_us``."""

    bill_day: int
    due_days: int
    since_us: int
    next_us: int


@dataclass(slots=True)
class Extras:
    """Additional state of an account: money in pico, quota in micro, times in microseconds.

    Fields are plain values (integers, texts, lists, dictionaries with text keys, dataclasses of those). The default of
    each field means "none", and a field that equals its default is not written.
    """

    gift_pico: int = 0
    """The part of the wallet that the operator gave; it is spent first (:mod:`billing.accounts.wallet`)."""
    wallet_paid_pico: dict[str, int] = field(default_factory=dict)
    """Grants and packs paid from the wallet: id → the part of the fee that was gift money; kept until the buckets
    have ended."""
    refunds: dict[str, Refund] = field(default_factory=dict)
    """Bucket id → its refund, pending or paid (:mod:`billing.packages.refunds`)."""
    counters: dict[str, Counter] = field(default_factory=dict)
    """Counters of period rules, by rule and first day (``monthly@2026-11-01``), sorted. Counters of periods that are no
    longer counted are dropped."""
    burns: dict[str, dict[str, str]] = field(default_factory=dict)
    """Burn times of plans with windows: plan → hour → text (:mod:`billing.burning.windows`). Of another unit than
    standard tokens, the key is ``PLAN/UNIT``."""
    openings: dict[str, list[int]] = field(default_factory=dict)
    """Starts of windows that begin with a first use, ascending: ``PLAN/UNIT/HOURS`` → times."""
    absorbed_units: dict[str, int] = field(default_factory=dict)
    """Usage absorbed by plans that cap other units than standard tokens: unit → micro (:mod:`billing.burning.overage`).
    """
    members: dict[str, dict[str, int]] = field(default_factory=dict)
    """Shared plans: grant → member → micro burned of the unit that the plan caps (:mod:`billing.burning.members`)."""
    overage_pico: dict[str, int] = field(default_factory=dict)
    """Plans with an overage cap: grant → amount that the wallet paid (:mod:`billing.burning.overage`)."""
    consents: dict[str, Consent] = field(default_factory=dict)
    """Plans whose overage needs consent: plan → period of consent (:mod:`billing.packages.consent`)."""
    received: dict[str, str] = field(default_factory=dict)
    """Buckets received by transfer: bucket id → sending account (:mod:`billing.packages.transfers`)."""
    subscriptions: list[Subscription] = field(default_factory=list)
    """Subscriptions in the order of their start, including ended ones."""
    expiry_alerts: dict[str, int] = field(default_factory=dict)
    """Bucket id → number of expiry alerts sent, if any."""
    true_ups: dict[str, TrueUp] = field(default_factory=dict)
    """Periods of volume rules that are settled at their end: key of the counter → what is to be settled, sorted."""
    owed_micro: dict[str, int] = field(default_factory=dict)
    """Plans whose overage is owed: plan → standard tokens that the next grant pays (:mod:`billing.packages.debts`)."""
    unburned_micro: int = 0
    """Standard tokens that left buckets otherwise than by a burn: debts paid, and what a carry-over left behind."""
    carried_used_micro: dict[str, int] = field(default_factory=dict)
    """Bucket id → what usage of later cycles burned before the grace of the bucket's own cycle was over, if its plan
    limits what is carried over (:mod:`billing.packages.carry_over`)."""
    wallet_alert_pico: int | None = None
    """Threshold of the wallet alert: the owner is notified when the wallet falls below it; None: no alert."""
    wallet_alert_sent: bool = False
    """True if the alert was sent since the wallet was last at the threshold or above."""
    bill_terms: BillTerms | None = None
    bills: list[Bill] = field(default_factory=list)
    """Bills in the order of issue, including paid ones, which may be charged back."""

    @property
    def empty(self) -> bool:
        """True if the account has no additional state."""
        return self == _NOTHING

    @property
    def wallet_floor_bits(self) -> int:
        """Exponent of the wallet floor: the core may charge the wallet if at least 2**bits pico remain in it.

        Otherwise the event is decided by the plain rule. ``FROM_ANY_WALLET`` means that no floor applies,
        ``FROM_NO_WALLET`` that the core never charges the wallet, because gift money is spent first. With a wallet
        alert, the floor is the next power of two above the alert's threshold.
        """
        if self.gift_pico:
            return FROM_NO_WALLET
        if self.wallet_alert_pico is None or self.wallet_alert_sent:
            return FROM_ANY_WALLET
        return min(self.wallet_alert_pico.bit_length(), FROM_NO_WALLET)


_FORM = TypeAdapter(Extras)
_NOTHING = Extras()
NO_EXTRAS = "{}"
"""Document of an account without additional state."""


def extras_json(extras: Extras) -> str:
    """Return the document: keys in the order of the fields, without fields that equal their default."""
    return NO_EXTRAS if extras.empty else _FORM.dump_json(extras, exclude_defaults=True).decode()


def parse_extras(document: str) -> Extras:
    """Parse a document that :func:`extras_json` wrote.

    Raises:
        ValueError: the document is not valid.
    """
    return Extras() if document == NO_EXTRAS else _FORM.validate_json(document, strict=True)


def copied(extras: Extras) -> Extras:
    """Return a deep copy, made through the document, which takes a quarter of the time of ``deepcopy``."""
    return parse_extras(extras_json(extras))


_FLAT = ("wallet_paid_pico", "counters", "overage_pico", "received", "expiry_alerts", "owed_micro")
"""Fields that are dictionaries of values that never change themselves."""


def snapshot(extras: Extras) -> tuple[object, ...]:
    """Return a value that later equals another snapshot of the same extras if and only if nothing has changed.

    Large fields are copied flat, which takes a hundredth of the time of writing them.
    """
    flat = [getattr(extras, name).copy() for name in _FLAT]
    without: dict[str, Any] = {name: {} for name in _FLAT}
    return *flat, extras_json(replace(extras, **without))
