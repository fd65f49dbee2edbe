"""Period rules of a price book as values: prices that depend on an account's usage in a month, week or day.

:mod:`billing.pricing.period_prices` applies a rule to an event, :mod:`billing.catalog.period_calendar` finds its
periods, and :mod:`billing.catalog.read_periods` reads its YAML.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.units import PICO_DIGITS

GRADUATED, VOLUME, BLOCKS, COMMITMENT = PERIOD_KINDS = ("graduated", "volume", "blocks", "commitment")
EVERY: tuple[str, ...] = ("calendar_month", "week", "day")
STANDARD_TOKENS = "standard_tokens"
"""Value of ``count`` for a rule that counts standard tokens instead of meters."""
USAGE_IN, USAGE_OUT = INCLUDED_USAGE = ("in", "out")
"""Values of ``included_usage`` of a commitment: usage that buckets pay draws it, or does not."""
SETTLE_AT_ONCE, SETTLE_AT_END = SETTLEMENTS = ("at_once", "at_end")
"""Values of ``settle`` of a volume rule: usage keeps its price, or the whole period gets the tier that it reached."""
BLOCKS_LINE = "blocks"
"""Name of the line with the blocks that an event begins. No meter may have this name."""
ONE_PICO = 10**PICO_DIGITS


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier of a rule: up to ``up_to`` counted units, excluded; None is open.

    Units in the tier cost the row's prices times ``multiply_pico`` (1e-12). For the meters of ``price_pico`` they cost
    these prices instead (pico of the currency per unit).
    """

    up_to: int | None
    multiply_pico: int = ONE_PICO
    price_pico: Mapping[str, int] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PeriodRule:
    """Rule of a price book that prices an event by the account's usage so far in a period.

    ``count`` are the meters that are counted together, or :data:`STANDARD_TOKENS` alone; it is empty for a commitment,
    which counts money. ``tiers`` belong to ``graduated`` and ``volume``; ``block_units`` and ``block_price_pico`` to
    ``blocks``. For a commitment, ``amount_pico`` is the amount committed for each period, tax included,
    ``multiply_pico`` the factor (1e-12) within it and ``overflow_pico`` the factor above it; ``included_usage`` is one
    of :data:`INCLUDED_USAGE`. For ``volume``, ``settle`` is one of :data:`SETTLEMENTS`.
    """

    name: str
    kind: str
    every: str
    timezone: str
    count: tuple[str, ...] = ()
    tiers: tuple[Tier, ...] = ()
    block_units: int = 0
    block_price_pico: int = 0
    amount_pico: int = 0
    multiply_pico: int = ONE_PICO
    overflow_pico: int = ONE_PICO
    included_usage: str = USAGE_IN
    settle: str = SETTLE_AT_ONCE
    line: int = field(default=0, compare=False)

    @property
    def counts_the_same(self) -> tuple[object, ...]:
        """Fields that may not change while a counter of this name continues from one version of a book to the next."""
        return (self.kind, self.every, self.timezone, self.count, self.settle)

    def counter(self, first_day: str) -> str:
        """Return the key of an account's counter for the period that begins on a day."""
        return f"{self.name}@{first_day}"
