"""The state of an account: wallet, buckets of its grants, what was absorbed. Plain values; the rules are elsewhere."""

from dataclasses import dataclass, field

from billing.accounts.extras import Extras, Subscription
from billing.catalog.model import Plan, PlanKey

FIRST_USE = "first_use"
TOO_MANY_BUCKETS = "too_many_buckets"
"""Why nothing is granted to an account that has :data:`MOST_BUCKETS`."""
MOST_BUCKETS = 10_000
"""Of one account, those that ended included: they stay listed, so each is in every balance that is published (some
2 MB then), and the core counts them in 16 bits."""


NO_END_US = 2**62
"""``valid_until_us`` of a bucket that never expires (cycle ``once``); null in SQL and JSON."""

PENDING = "pending"
ACTIVE = "active"
USED_UP = "used_up"
EXPIRED = "expired"
SUSPENDED = "suspended"
REFUNDED = "refunded"
CANCELLED = "cancelled"
LIVE = frozenset((PENDING, ACTIVE, SUSPENDED))
"""A bucket in one of these has not ended: what is left of it will be used, or lapse."""
OPEN = "open"
PACK = "pack-"
"""A pack's grant id is ``GRANT/pack-n``: no bucket of a plan, ``GRANT/n``, can have it."""
CLOSED = "closed"
SUSPENDED = "suspended"
"""Of an account: a bill is past due (:mod:`billing.invoicing.bills`)."""


@dataclass(slots=True)
class Bucket:
    """One bucket of one grant. ``remaining_micro`` of an expired bucket is what lapsed."""

    grant_id: str
    """Grant and number of the bucket in its plan: ``GRANT/1``."""
    plan: str
    plan_version: int
    bucket_no: int
    """Position among the plan's buckets, from 1."""
    unit: str
    amount_micro: int
    remaining_micro: int
    liability_pico: int
    """Contract liability left: tax-excluded fee not yet earned."""
    valid_from_us: int
    valid_until_us: int
    lapse_at_us: int
    """Log time from which what remains lapses: end plus grace."""
    alerts_fired: int
    """How many of the plan's alert thresholds were reported."""
    status: str
    carried_cycles: int = 0
    """By how many cycles what was left over was carried beyond the end of its own cycle."""

    @property
    def grant(self) -> str:
        """What gave the bucket: a purchase, or one cycle of a subscription (``SUBSCRIPTION/cycle``)."""
        return self.grant_id.rpartition("/")[0]

    @property
    def is_pack(self) -> bool:
        """Whether the overage rule ``auto_pack`` bought it."""
        return self.grant_id.rpartition("/")[2].startswith(PACK)

    @property
    def cycle_number(self) -> int:
        """Of a subscription's bucket: the cycle that it was granted for."""
        return int(self.grant.rpartition("/")[2])

    @property
    def sale(self) -> str:
        """What was paid for at once: the grant, or the pack by itself."""
        return self.grant_id if self.is_pack else self.grant

    def lasts(self, now_us: int) -> bool:
        """Whether the bucket has not lapsed at log time ``now_us``; one that is used up lasts until it would."""
        return self.status in LIVE or (self.status == USED_UP and now_us < self.lapse_at_us)

    @property
    def plan_key(self) -> PlanKey:
        """The plan version that holds this bucket's priority, scope and overage rule."""
        return PlanKey(self.plan, self.plan_version)


@dataclass(slots=True)
class Account:
    """An account that pays. ``buckets`` are kept in deduction order
    (:func:`billing.accounts.deduction_order.deduction_order`)."""

    account: str
    currency: str
    price_book: str
    payment: str
    """``prepaid`` or ``postpaid``."""
    credit_limit_pico: int
    wallet_pico: int = 0
    absorbed_micro: int = 0
    absorbed_pico: int = 0
    status: str = OPEN
    clock_us: int = 0
    """Greatest log time this account was rolled to."""
    next_due_us: int = NO_END_US
    """Log time at which the account next changes by itself (a bucket begins or lapses)."""
    buckets: list[Bucket] = field(default_factory=list)
    extras: Extras = field(default_factory=Extras)

    def granted(self, name: str) -> list[Bucket]:
        """The buckets of a grant; where no grant has that name, the bucket of that id."""
        of_grant = [bucket for bucket in self.buckets if bucket.grant == name]
        return of_grant or [bucket for bucket in self.buckets if bucket.grant_id == name]

    def subscription(self, subscription_id: str) -> Subscription | None:
        """The subscription of this id."""
        return next((one for one in self.extras.subscriptions if one.subscription_id == subscription_id), None)

    def subscription_of(self, bucket: Bucket) -> Subscription | None:
        """The subscription that granted a bucket; None for a purchase."""
        if not self.extras.subscriptions:
            return None
        return self.subscription(bucket.grant.rpartition("/")[0])


def has_room(account: Account, buckets: int) -> bool:
    """Whether an account may have so many buckets more."""
    return len(account.buckets) + buckets <= MOST_BUCKETS


def waits_for_use(bucket: Bucket, plan: Plan) -> bool:
    """Whether a bucket begins with the first usage that reaches it."""
    # One that is being refunded lapses in any case.
    return bucket.status == PENDING and plan.activation == FIRST_USE and bucket.lapse_at_us >= NO_END_US


def never_begun(bucket: Bucket, plan: Plan) -> bool:
    """Whether no usage has reached a bucket that begins with its first use, even where it was emptied otherwise."""
    # Without an end (cycle ``once``) it cannot be told, and makes no difference.
    return plan.activation == FIRST_USE and plan.cycle.kind != "once" and bucket.lapse_at_us >= NO_END_US
