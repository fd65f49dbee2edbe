"""Deduction from one bucket for one event: quantity, revenue, alerts (docs/reference/plans.md, "Deduction order").

This module computes the quantity that an event needs in each unit of account, the exact share of the event that is not
covered yet, the split of an event that empties a bucket, the revenue of a burn and the alert thresholds. The order of
buckets is :mod:`billing.burning.burn`, the uncovered rest :mod:`billing.burning.overage`. No prices, no SQL, no clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from billing import ledger
from billing.accounts.account import ACTIVE, PENDING, USED_UP, Account, Bucket, waits_for_use
from billing.accounts.account_event import AccountEvent
from billing.accounts.deduction_order import PlanOf
from billing.burning import members, windows
from billing.catalog.model import REQUEST, STD_TOKEN, Plan, Window
from billing.ledger import Postings
from billing.packages.carry_over import kept_micro, used_ahead
from billing.packages.grants import begin
from billing.packages.liability import earned_pico
from billing.pricing.rate import Rated
from schemas.units import MILLION, divide_half_even
from schemas.usage import UsageEvent

USABLE = frozenset((ACTIVE, PENDING))
"""Statuses of a bucket that usage may burn."""


@dataclass(frozen=True, slots=True)
class Deduction:
    """A deduction from one bucket, in micro of its unit, and the revenue it earns."""

    grant_id: str
    unit: str
    taken_micro: int
    revenue_pico: int


@dataclass(slots=True)
class Burned:
    """Payment of one event: burned, charged and absorbed parts.

    Amounts in pico include tax, except net amounts and revenue. ``absorbed_micro`` is in standard tokens.
    """

    deductions: list[Deduction] = field(default_factory=list)
    charged_pico: int = 0
    """Amount that the wallet paid, tax included."""
    charged_net_pico: int = 0
    absorbed_micro: int = 0
    absorbed_pico: int = 0
    absorbed_unit: str = ""
    """Unit of :attr:`absorbed_unit_micro`; empty if usage was not absorbed in another unit than standard tokens."""
    absorbed_unit_micro: int = 0
    owed_micro: int = 0
    """Standard tokens that the account owes."""
    charged_gift_pico: int = 0
    """The part of ``charged_pico`` that was gift money."""
    charged_share: Fraction = Fraction(0)
    """The exact share of the event that the wallet paid."""
    unpaid_share: Fraction = Fraction(0)
    """The exact share of the event that no bucket paid."""
    begun: bool = False
    """True if the event began a grant that waited for its first use."""
    events: list[AccountEvent] = field(default_factory=list)

    @property
    def revenue_pico(self) -> int:
        """Revenue earned by this event, without tax."""
        return self.charged_net_pico + sum(deduction.revenue_pico for deduction in self.deductions)

    @property
    def burned_micro(self) -> int:
        """Standard tokens deducted from buckets of standard tokens."""
        return sum(deduction.taken_micro for deduction in self.deductions if deduction.unit == STD_TOKEN)


@dataclass(slots=True)
class EventPayment:
    """Payment in progress for one rated event; ``share`` is the exact fraction of it that is not covered yet."""

    account: Account
    event: UsageEvent
    rated: Rated
    tax_rate_micro: int
    plan_of: PlanOf
    now_us: int
    postings: Postings
    share: Fraction = Fraction(1)
    burned: Burned = field(default_factory=Burned)

    @property
    def uncovered_pico(self) -> int:
        """Price of the uncovered share, rounded half even to 1e-12."""
        return self.rated.share_pico(self.share)

    @property
    def uncovered_micro(self) -> int:
        """Standard tokens of the uncovered share, rounded half even to 1e-6."""
        return divide_half_even(self.rated.standard_micro * self.share.numerator, self.share.denominator)


def need_pico(unit: str, event: UsageEvent, rated: Rated) -> int:
    """Return the quantity that the whole event needs in a unit, in 1e-12 of it.

    0 means that no bucket of that unit matches the event.
    """
    if unit == STD_TOKEN:
        return rated.standard_micro * MILLION
    if unit == REQUEST:
        counted_micro = dict(event.counts).get("requests", 1) * MILLION
        return rated.units_micro.get(REQUEST, counted_micro) * MILLION
    if unit == rated.currency:
        return rated.within_pico
    return rated.units_micro.get(unit, 0) * MILLION


def limit_micro(payment: EventPayment, bucket: Bucket, plan: Plan) -> int:
    """Return the quantity that the plan's windows and member caps allow, regardless of what remains in the bucket.

    Never below 0. A window of another unit than the bucket's allows the part of the event that it has room for.
    """
    account, event = payment.account, payment.event
    limit_micro = members.room_micro(account, bucket, plan, event.member)
    for window in plan.windows:
        if not windows.counts(window, bucket, plan):
            continue
        left_micro = windows.left_micro(window, account, bucket, plan, event.time_us)
        if window.unit == bucket.unit:
            limit_micro = min(limit_micro, left_micro)
            continue
        needed_pico = need_pico(window.unit, event, payment.rated)
        if left_micro * MILLION < needed_pico * payment.share:
            of_bucket_pico = need_pico(bucket.unit, event, payment.rated)
            limit_micro = min(limit_micro, of_bucket_pico * left_micro // needed_pico)
    return limit_micro


def deduct(payment: EventPayment, bucket: Bucket) -> None:
    """Cover as much of the uncovered share as the bucket can.

    Deducts the quantity of the whole share, rounded half even to 1e-6, or all that the bucket may give.
    """
    if bucket.status not in USABLE or bucket.remaining_micro == 0 or payment.share == 0:
        return
    plan = payment.plan_of(bucket.plan_key)
    room_micro = min(bucket.remaining_micro, limit_micro(payment, bucket, plan))
    ahead = used_ahead(bucket, plan, payment.event.time_us)
    if ahead:
        room_micro = min(room_micro, kept_micro(payment.account, bucket, plan.buckets[bucket.bucket_no - 1]))
    if room_micro == 0:
        return
    needed_pico = need_pico(bucket.unit, payment.event, payment.rated)
    share = payment.share
    taken_micro = divide_half_even(needed_pico * share.numerator, share.denominator * MILLION)
    if taken_micro <= room_micro:
        payment.share = Fraction(0)
    else:
        taken_micro = room_micro
        payment.share -= Fraction(taken_micro * MILLION, needed_pico)
    if taken_micro:
        if waits_for_use(bucket, plan):
            begin(payment.account, bucket, plan, payment.event.time_us)
            payment.burned.begun = True
        if ahead:
            used = payment.account.extras.carried_used_micro
            used[bucket.grant_id] = used.get(bucket.grant_id, 0) + taken_micro
        _deduct(payment, bucket, plan, taken_micro, share - payment.share)


def alert_floor_micro(amount_micro: int, alerts_fired: int, alerts_micro: Sequence[int]) -> int:
    """Return the largest remainder at which a bucket's next alert is due; -1 if all alerts were fired.

    ``alerts_micro`` are the plan's thresholds: used shares of the bucket's amount, in millionths. The used quantity at
    which an alert is due is rounded up to 1e-6.
    """
    if alerts_fired >= len(alerts_micro):
        return -1
    used_micro = -(-amount_micro * alerts_micro[alerts_fired] // MILLION)
    return amount_micro - used_micro


def _deduct(payment: EventPayment, bucket: Bucket, plan: Plan, taken_micro: int, covered: Fraction) -> None:
    account, event, burned = payment.account, payment.event, payment.burned
    revenue_pico = earned_pico(bucket.liability_pico, taken_micro, bucket.remaining_micro)
    bucket.remaining_micro -= taken_micro
    bucket.liability_pico -= revenue_pico
    if bucket.remaining_micro == 0:
        bucket.status = USED_UP
    detail = str(bucket.plan_key)
    payment.postings.post(
        account.currency,
        (ledger.CONTRACT_LIABILITY, detail, revenue_pico),
        (ledger.REVENUE_USAGE, detail, -revenue_pico),
    )
    burned.deductions.append(Deduction(bucket.grant_id, bucket.unit, taken_micro, revenue_pico))
    if plan.windows:
        _count_in_windows(payment, bucket, plan, taken_micro, covered)
    of_cap_micro = taken_micro if plan.members is not None and bucket.unit == plan.members.unit else 0
    members.record_burn(account, bucket, plan, event.member, of_cap_micro, payment.now_us)
    while 0 <= bucket.remaining_micro <= alert_floor_micro(bucket.amount_micro, bucket.alerts_fired, plan.alerts_micro):
        threshold_micro = plan.alerts_micro[bucket.alerts_fired]
        bucket.alerts_fired += 1
        burned.events.append(
            AccountEvent(
                account.account,
                "threshold.reached.v1",
                {
                    "grant_id": bucket.grant_id,
                    "plan": bucket.plan,
                    "unit": bucket.unit,
                    "threshold_micro": threshold_micro,
                    "remaining_micro": bucket.remaining_micro,
                    "amount_micro": bucket.amount_micro,
                },
            )
        )


def _count_in_windows(payment: EventPayment, bucket: Bucket, plan: Plan, taken_micro: int, covered: Fraction) -> None:
    """Record the burn for the windows of its plan, and report the shares of their caps that it reached."""
    account, event = payment.account, payment.event
    added_micro: dict[str, int] = {}
    counting = [window for window in plan.windows if windows.counts(window, bucket, plan)]
    for window in counting:
        if window.unit == bucket.unit:
            added_micro[window.unit] = taken_micro
        else:
            needed_pico = need_pico(window.unit, event, payment.rated)
            added_micro[window.unit] = divide_half_even(needed_pico * covered.numerator, covered.denominator * MILLION)
    windows.record_burn(account, plan, event.time_us, added_micro, payment.now_us, payment.plan_of)
    for window in counting:
        if not window.alerts_micro:
            continue
        used_micro = windows.used_micro(window, account, bucket, plan, event.time_us)
        before_micro = used_micro - added_micro[window.unit]
        for alert_micro in window.alerts_micro:
            if before_micro < -(-window.cap_micro * alert_micro // MILLION) <= used_micro:
                payment.burned.events.append(_window_reached(payment, bucket, plan, window, alert_micro, used_micro))


def _window_reached(
    payment: EventPayment, bucket: Bucket, plan: Plan, window: Window, alert_micro: int, used_micro: int
) -> AccountEvent:
    account, time_us = payment.account, payment.event.time_us
    begins_us, last_us = windows.span_us(window, account, bucket, plan, time_us)
    rolls = window.kind == "rolling"
    return AccountEvent(
        account.account,
        "window.reached.v1",
        {
            "grant_id": bucket.grant_id,
            "plan": plan.name,
            "window": window.kind,
            "unit": window.unit,
            "threshold_micro": alert_micro,
            "cap_micro": window.cap_micro,
            "used_micro": used_micro,
            "begins_us": None if rolls else begins_us,
            "ends_us": windows.freed_us(window, account, bucket, plan, time_us) if rolls else last_us + 1,
        },
    )
