"""Account state: wallet, buckets of grants, absorbed usage. Values only; the rules are in the other packages."""

from dataclasses import dataclass, field

from billing.accounts.extras import Extras, Subscription
from billing.catalog.model import Plan, PlanKey

FIRST_USE = "first_use"
TOO_MANY_BUCKETS = "too_many_buckets"
"""Reason for refusing a grant that would exceed :data:`MAX_BUCKETS`."""
MAX_BUCKETS = 10_000
"""Maximum number of buckets of one account, including ended ones.

Ended buckets stay listed, so every published balance contains all of them (about 2 MB at the maximum), and the
compiled core counts buckets in 16 bits.
"""


NO_END_US = 2**62
"""Time that stands for "no end", such as ``valid_until_us`` of a bucket with cycle ``once``; null in SQL and JSON."""

PENDING = "pending"
ACTIVE = "active"
USED_UP = "used_up"
EXPIRED = "expired"
SUSPENDED = "suspended"
"""Status of a suspended subscription and of its buckets."""
REFUNDED = "refunded"
CANCELLED = "cancelled"
LIVE = frozenset((PENDING, ACTIVE, SUSPENDED))
"""Statuses of a bucket that has not ended: its remainder will be used or will expire."""
PACK = "pack-"
"""Prefix in the id of a pack, ``GRANT/pack-n``, which differs from every id of a plan's bucket, ``GRANT/n``."""

ACCOUNT_OPEN = "open"
ACCOUNT_CLOSED = "closed"
ACCOUNT_SUSPENDED = "suspended"
"""Status of an account with a bill past due (:mod:`billing.invoicing.bills`)."""


@dataclass(slots=True)
class Bucket:
    """One bucket of one grant. ``remaining_micro`` of an expired bucket is the quantity that expired unused.

    ``grant_id`` is the id of the bucket, as on the wire; the id of the grant is :attr:`grant`.
    """

    grant_id: str
    """Id of the bucket: the grant and the bucket's number in it, ``GRANT/1``."""
    plan: str
    plan_version: int
    bucket_no: int
    """Position in the plan's list of buckets, from 1."""
    unit: str
    amount_micro: int
    remaining_micro: int
    liability_pico: int
    """Contract liability left: the part of the fee, without tax, that is not yet earned."""
    valid_from_us: int
    valid_until_us: int
    lapse_at_us: int
    """Log time at which the remainder expires: end plus grace."""
    alerts_fired: int
    """Number of the plan's alert thresholds that were reported."""
    status: str
    carried_cycles: int = 0
    """Number of cycles by which the remainder was carried over beyond the bucket's own cycle."""

    @property
    def grant(self) -> str:
        """Id of the grant: a purchase, or one cycle of a subscription (``SUBSCRIPTION/cycle``)."""
        return self.grant_id.rpartition("/")[0]

    @property
    def is_pack(self) -> bool:
        """True if the bucket was bought by the overage rule ``auto_pack``."""
        return self.grant_id.rpartition("/")[2].startswith(PACK)

    @property
    def cycle_number(self) -> int:
        """Number of the cycle for which a subscription granted the bucket."""
        return int(self.grant.rpartition("/")[2])

    @property
    def sale(self) -> str:
        """Id under which the fee was paid: the grant, or the pack itself."""
        return self.grant_id if self.is_pack else self.grant

    def is_live(self, now_us: int) -> bool:
        """Return True if the bucket has not expired at log time ``now_us``.

        A used-up bucket lasts until the time at which it would expire.
        """
        return self.status in LIVE or (self.status == USED_UP and now_us < self.lapse_at_us)

    @property
    def plan_key(self) -> PlanKey:
        """The plan version that defines the bucket's priority, scope and overage rule."""
        return PlanKey(self.plan, self.plan_version)


@dataclass(slots=True)
class Hints:
    """Facts about an account between commands that only add buckets; it saves a look at each of them.

    Never stored, compared or copied. Whatever changes buckets otherwise drops the hints.
    """

    grants: set[str]
    """Ids of the grants of all buckets."""
    due_known: bool = False
    """True if ``next_due_us`` is exact: usage leaves it too early where it empties the bucket that it comes from."""
    paid_until_us: int = 0
    """Log time until which no grant paid from the wallet ends."""


class _Hinted:
    """A value with hints, which are no field of it."""

    __slots__ = ("_hints",)

    @property
    def hints(self) -> Hints | None:
        """The hints, or None if nothing is known."""
        return self._hints

    @hints.setter
    def hints(self, hints: Hints | None) -> None:
        self._hints = hints


@dataclass(slots=True)
class Account(_Hinted):
    """A paying account.

    ``buckets`` are kept in deduction order (:func:`billing.accounts.deduction_order.deduction_order`).
    """

    account: str
    currency: str
    price_book: str
    payment: str
    """``prepaid`` or ``postpaid``."""
    credit_limit_pico: int
    wallet_pico: int = 0
    absorbed_micro: int = 0
    absorbed_pico: int = 0
    status: str = ACCOUNT_OPEN
    clock_us: int = 0
    """Greatest log time to which the account was rolled forward."""
    next_due_us: int = NO_END_US
    """Log time of the account's next time-driven change, such as the start or the expiry of a bucket."""
    buckets: list[Bucket] = field(default_factory=list)
    extras: Extras = field(default_factory=Extras)

    def __post_init__(self) -> None:
        self.hints = None

    def granted(self, name: str) -> list[Bucket]:
        """Return the buckets of the grant ``name``; if there is no such grant, the bucket with that id."""
        of_grant = [bucket for bucket in self.buckets if bucket.grant == name]
        return of_grant or [bucket for bucket in self.buckets if bucket.grant_id == name]

    def subscription(self, subscription_id: str) -> Subscription | None:
        """Return the subscription with this id, or None."""
        return next((one for one in self.extras.subscriptions if one.subscription_id == subscription_id), None)

    def subscription_of(self, bucket: Bucket) -> Subscription | None:
        """Return the subscription that granted a bucket; None for a purchase."""
        if not self.extras.subscriptions:
            return None
        return self.subscription(bucket.grant.rpartition("/")[0])


def grants_of(account: Account) -> set[str]:
    """Return the ids of the grants of all buckets, from the hints if they are known."""
    if account.hints is not None:
        return account.hints.grants
    return {bucket.grant for bucket in account.buckets}


def has_room(account: Account, buckets: int) -> bool:
    """Return True if the account may have ``buckets`` more buckets."""
    return len(account.buckets) + buckets <= MAX_BUCKETS


def waits_for_use(bucket: Bucket, plan: Plan) -> bool:
    """Return True if the bucket will begin with the first usage that reaches it."""
    # A bucket that is being refunded has an expiry time and expires in any case.
    return bucket.status == PENDING and plan.activation == FIRST_USE and bucket.lapse_at_us >= NO_END_US


def never_begun(bucket: Bucket, plan: Plan) -> bool:
    """Return True if a bucket that begins with its first use was never reached by usage, even if it is empty."""
    # With cycle ``once`` a bucket that has begun has no end either; the distinction is not needed there.
    return plan.activation == FIRST_USE and plan.cycle.kind != "once" and bucket.lapse_at_us >= NO_END_US
