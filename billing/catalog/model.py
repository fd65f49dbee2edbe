"""Values of a catalogue: price books, plans and holiday tables.

They are immutable, and every number is an integer in the unit that its name ends with. :mod:`billing.catalog.load`
builds them from files, :mod:`billing.catalog.entries` from stored bodies. ``file`` and ``line`` give the place where a
value was written. They do not take part in equality: a book rebuilt from SQL equals the book that was read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from billing.catalog.period_rules import PeriodRule


class PlanKey(NamedTuple):
    """Plan version under which a bucket was granted."""

    plan: str
    version: int

    def __str__(self) -> str:
        return f"{self.plan}@{self.version}"


TEXT_DIMENSIONS: tuple[str, ...] = ("model", "hardware_tier", "energy_source", "site", "channel", "service_tier")
"""Dimensions of an event that a row, an adjustment or a scope matches by pattern, in order.

The winner rule compares them in this order (docs/reference/price-books.md, "Winning row").
"""
STD_TOKEN = "STD_TOKEN"
REQUEST = "REQUEST"
"""``STD_TOKEN`` and ``REQUEST`` are units of account with built-in rules, as is each currency.

Every other unit takes its coefficients from price rows.
"""
NO_REFUND, BY_TIME, BY_QUOTA = CANCELLATION_REFUNDS = ("none", "by_time", "by_quota")
"""Parts of the fee of the current cycle that an immediate cancellation of a subscription may give back."""
DAYS: tuple[str, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
ALL_DAY_MINUTES = 24 * 60
STACKING: tuple[str, ...] = ("multiply", "best_of", "replace")
"""Ways of combining several adjustments that match one event (:mod:`billing.pricing.adjust`)."""
MINIMUM_CHARGE = "minimum_charge"
"""Name of the line that raises an event to its row's minimum charge. No meter may have this name."""
ABOVE_COMMITMENT = "above_commitment"
"""Name of the line with what usage above a commitment costs more than within it. No meter may have this name."""


@dataclass(frozen=True, slots=True)
class Holidays:
    """Holiday table: ``off`` days are in no band that excepts the table, ``work`` days count as Monday to Friday there.

    Days are proleptic Gregorian ordinals (``date.toordinal``), sorted.
    """

    name: str
    version: int
    off: tuple[int, ...]
    work: tuple[int, ...]
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class TimeBand:
    """Hours of some weekdays in a time zone.

    ``days`` are numbers from 0 for Monday. ``hours`` are (start, end) in minutes of the local day, end excluded; an end
    that is not after its start is on the next day. ``excepts`` names a holiday table, whose days are copied to ``off``
    and ``work``.
    """

    name: str
    timezone: str
    days: tuple[int, ...]
    hours: tuple[tuple[int, int], ...]
    excepts: str | None = None
    off: frozenset[int] = frozenset()
    work: frozenset[int] = frozenset()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One row of a price book.

    ``index`` is its position from 0. The pattern of a dimension is an exact text, ``prefix*`` or ``*``. ``context`` is
    (from, to) in tokens of the prompt, the end excluded or None for open; ``output_context`` is the same for the tokens
    of the answer. ``price_pico`` is pico of the currency per unit of a meter. ``coefficient_micro`` is micro standard
    tokens per unit, default coefficients included. ``units`` are the coefficients of other units of account, in micro.
    ``minimum_charge_pico`` is the least that an event costs. ``increments`` are (minimum, step) of a meter: a counted
    quantity is billed as at least the minimum, rounded up to a whole number of steps. ``periods`` names the period
    rules of the book that apply to the row. ``unmetered`` rates completed requests that count nothing, which are
    rejected otherwise. ``stated`` are the meters whose coefficient the row itself states; it is None if that is not
    known (a book rebuilt from SQL) or if no coefficient has a default.
    """

    index: int
    model: str
    hardware_tier: str
    energy_source: str
    site: str
    channel: str
    service_tier: str
    outcome: tuple[str, ...]
    time_band: str | None
    context: tuple[int, int | None] | None
    price_pico: Mapping[str, int]
    coefficient_micro: Mapping[str, int]
    units: Mapping[str, Mapping[str, int]]
    minimum_charge_pico: int = 0
    periods: tuple[str, ...] = ()
    unmetered: bool = False
    stated: frozenset[str] | None = field(default=None, compare=False)
    line: int = field(default=0, compare=False)
    output_context: tuple[int, int | None] | None = None
    increments: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    declared: tuple[str, ...] = ()
    """Patterns of the dimensions that the book declares, in its order."""

    @property
    def is_banded(self) -> bool:
        """True if the time or the length of a request decides whether the row matches."""
        return self.time_band is not None or self.context is not None or self.output_context is not None

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of the text dimensions, in the order of :data:`TEXT_DIMENSIONS`, and of the declared ones."""
        texts = (self.model, self.hardware_tier, self.energy_source, self.site, self.channel, self.service_tier)
        return texts + self.declared


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Factor on the price of the events that it matches.

    An event matches if it fits one of the patterns of every dimension in ``scope``, lies in one of ``time_bands`` if
    there are any, and lies in the context band and the output band if there is one. ``multiply_pico`` is the factor in
    1e-12. It applies to
    the prices of ``meters``, or of every meter if that is empty.
    """

    scope: Mapping[str, tuple[str, ...]]
    multiply_pico: int
    reason: str
    time_bands: tuple[str, ...] = ()
    context: tuple[int, int | None] | None = None
    meters: tuple[str, ...] = ()
    line: int = field(default=0, compare=False)
    output_context: tuple[int, int | None] | None = None


@dataclass(frozen=True, slots=True)
class PriceBook:
    """One immutable version of a price book, in force from ``effective_from_us`` until a later version begins.

    ``tax_rate_micro`` is in 1e-6; prices include the tax. ``standard_token_price_pico_per_million`` is pico of the
    currency for a million standard tokens. ``meters`` are the meters that this book declares beyond the built-in ones.
    """

    name: str
    version: int
    currency: str
    tax_rate_micro: int
    effective_from_us: int
    standard_token_price_pico_per_million: int | None
    time_bands: Mapping[str, TimeBand]
    rows: tuple[PriceRow, ...]
    adjustments: tuple[Adjustment, ...] = ()
    meters: tuple[str, ...] = ()
    stacking: str = STACKING[0]
    periods: Mapping[str, PeriodRule] = field(default_factory=dict)
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)
    dimensions: Mapping[str, str] = field(default_factory=dict)
    """Declared dimensions: the attribute of an event (in ``data.attributes``) by the name that rows use."""
    has_output_bands: bool = field(init=False, compare=False)
    """True if a row or an adjustment has an output band."""

    def __post_init__(self) -> None:
        bands = [row.output_context for row in self.rows] + [one.output_context for one in self.adjustments]
        banded = any(band is not None for band in bands)
        object.__setattr__(self, "has_output_bands", banded)

    @property
    def label(self) -> str:
        """Name of the book on a rated event: ``name@version``."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Cycle:
    """Length of one cycle.

    ``subscription_month``, ``calendar_month``, ``day`` (a local day), ``days`` (with ``days`` > 0) and ``once``; and
    ``length`` > 0 ``weeks``, ``months`` or ``years``.
    """

    kind: str
    timezone: str
    days: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class PlanBucket:
    """Quota that one cycle of a plan grants: ``amount_micro`` of ``unit`` (for money, micro of the currency).

    ``scope`` is as in :class:`Adjustment`. ``fee_share_micro`` is this bucket's share of the fee in 1e-6. With
    ``every`` (``day``, ``week`` or ``month``) the quota is granted anew for each of them within the cycle
    (:mod:`billing.packages.portions`). Of a remainder that is carried over, at most ``carry_max_micro`` is kept (None:
    all of it), and none of a remainder below ``carry_min_micro``.
    """

    unit: str
    amount_micro: int
    kind: str
    priority: int
    carry_over_cycles: int
    scope: Mapping[str, tuple[str, ...]]
    fee_share_micro: int
    every: str = ""
    carry_max_micro: int | None = None
    carry_min_micro: int = 0
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Window:
    """Cap on what is burned of a plan's buckets of ``unit``.

    ``rolling`` and ``from_first_use`` windows last ``hours``; a ``fixed`` window is ``every`` ``day``, ``week`` or
    ``month``. ``cap_micro`` is in micro of the unit. ``alerts_micro`` are shares of the cap (1e-6), ascending, whose
    use is reported.
    """

    kind: str
    hours: int
    every: str
    cap_micro: int
    unit: str = STD_TOKEN
    alerts_micro: tuple[int, ...] = ()
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Overage:
    """Rule for usage that no bucket covers: ``pay_as_you_go``, ``block``, ``auto_pack`` or ``owe``.

    A pack is ``block_micro`` standard tokens for ``price_pico``, tax included; at most ``max_packs`` are bought in a
    cycle of a grant. ``cap_pico`` is the most that the wallet pays in a cycle of a grant (0: no cap). With
    ``consent_required`` the wallet pays only if the account has given its consent. At most ``max_owed_micro`` standard
    tokens of a plan are owed (0: no limit).
    """

    mode: str
    block_micro: int = 0
    price_pico: int = 0
    max_packs: int = 0
    cap_pico: int = 0
    consent_required: bool = False
    max_owed_micro: int = 0


@dataclass(frozen=True, slots=True)
class Members:
    """Limits for the members who share a plan.

    At most ``seats`` members use the buckets of a grant (0: any number), each at most ``cap_micro`` of its buckets of
    ``unit`` (0: no cap). A grant is one cycle.
    """

    seats: int
    cap_micro: int
    unit: str = STD_TOKEN


@dataclass(frozen=True, slots=True)
class Proration:
    """Parts of a plan that are shared by time in a first cycle that begins within its calendar period."""

    fee: bool = False
    quota: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One immutable version of a plan.

    ``price_pico`` includes the tax. ``alerts_micro`` are shares of a bucket (1e-6) whose use raises an alert.
    ``activation`` decides when a purchase begins: at the ``purchase`` (or its ``starts_at``), or at the ``first_use``,
    at the latest ``activate_within_days`` after the earliest start (0: no limit). ``expiry_alert_days`` are the numbers
    of days before the end of a bucket, descending, at which its owner is alerted. ``withdrawn_from_us`` of the latest
    version ends the sale of every version (None: on sale); grants sold before continue. ``proration`` concerns a first
    cycle that begins within its calendar period. ``cancellation`` says what of the fee an immediate cancellation gives
    back: :data:`NO_REFUND`, :data:`BY_TIME` or :data:`BY_QUOTA`.
    """

    name: str
    version: int
    title: Mapping[str, str]
    price_pico: int
    currency: str
    tax_rate_micro: int
    cycle: Cycle
    buckets: tuple[PlanBucket, ...]
    windows: tuple[Window, ...] = ()
    overage: Overage = Overage("block")
    grace_hours: int = 24
    breakage: str = "at_expiry"
    alerts_micro: tuple[int, ...] = ()
    members: Members | None = None
    activation: str = "purchase"
    activate_within_days: int = 0
    expiry_alert_days: tuple[int, ...] = ()
    withdrawn_from_us: int | None = None
    proration: Proration = Proration()
    cancellation: str = NO_REFUND
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """Name of the plan with its version: ``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def units(self) -> tuple[str, ...]:
        """Units of the plan's buckets and packs, each once, in the order of the buckets."""
        packs = [STD_TOKEN] if self.overage.mode == "auto_pack" else []
        return tuple(dict.fromkeys([*(bucket.unit for bucket in self.buckets), *packs]))

    @property
    def caps_other_units(self) -> bool:
        """True if a window or a member's cap counts another unit than standard tokens."""
        capped = [window.unit for window in self.windows]
        capped += [self.members.unit] if self.members is not None and self.members.cap_micro else []
        return any(unit != STD_TOKEN for unit in capped)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Revenue-sharing agreement that was read. This version refuses it (:mod:`billing.catalog.unsupported`)."""

    name: str
    version: int
    file: str = field(default="", compare=False)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All catalogue entries, each kind sorted by name and version."""

    price_books: tuple[PriceBook, ...] = ()
    plans: tuple[Plan, ...] = ()
    holidays: tuple[Holidays, ...] = ()
    agreements: tuple[Agreement, ...] = ()

    @property
    def books(self) -> tuple[str, ...]:
        """Names of the price books, sorted."""
        return tuple(sorted({book.name for book in self.price_books}))

    def price_book_at(self, name: str, time_us: int) -> PriceBook | None:
        """Return the version of a book in force at a time, which is the one that began last; None before the first."""
        begun = (b for b in self.price_books if b.name == name and b.effective_from_us <= time_us)
        return max(begun, key=lambda book: (book.effective_from_us, book.version), default=None)

    def price_book(self, name: str, version: int) -> PriceBook | None:
        """Return one version of a book, or None."""
        return next((b for b in self.price_books if b.name == name and b.version == version), None)

    def plan(self, name: str, version: int | None = None) -> Plan | None:
        """Return a version of a plan, or the latest if no version is given; None if there is none."""
        found = (p for p in self.plans if p.name == name and version in (None, p.version))
        return max(found, key=lambda plan: plan.version, default=None)

    def declared_meters(self) -> frozenset[str]:
        """Return the meters that price books declare beyond the built-in ones."""
        return frozenset(meter for book in self.price_books for meter in book.meters)

    def declared_attributes(self) -> frozenset[str]:
        """Return the attributes of events that price books declare as dimensions."""
        return frozenset(attribute for book in self.price_books for attribute in book.dimensions.values())

    def plans_by_key(self) -> "dict[PlanKey, Plan]":
        """Return every version of every plan by the key that a bucket holds."""
        return {PlanKey(plan.name, plan.version): plan for plan in self.plans}

    def holidays_named(self, name: str) -> Holidays | None:
        """Return the latest version of a holiday table, or None."""
        found = (table for table in self.holidays if table.name == name)
        return max(found, key=lambda table: table.version, default=None)
