"""The pricing rules that depend on a period, as values.

What a rule does to an event is :mod:`billing.pricing.period_prices`; when its periods begin is
:mod:`billing.catalog.period_calendar`, how it is written :mod:`billing.catalog.read_periods`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.units import PICO_DIGITS

GRADUATED, VOLUME, BLOCKS, COMMITMENT = KINDS = ("graduated", "volume", "blocks", "commitment")
EVERY: tuple[str, ...] = ("calendar_month", "week", "day")
STANDARD_TOKENS = "standard_tokens"
"""In place of meters in ``count``: what is counted are standard tokens."""
BLOCKS_LINE = "blocks"
"""The line with the blocks that an event begins; no meter may have this name."""
ONE_PICO = 10**PICO_DIGITS


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier: up to ``up_to`` counted units (excluded; None is open), at the row's prices times ``multiply_pico``
    (1e-12), or for the meters of ``price_pico`` (pico of the currency per unit) at these prices instead.
    """

    up_to: int | None
    multiply_pico: int = ONE_PICO
    price_pico: Mapping[str, int] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class PeriodRule:
    """A rule of a price book that prices by what an account used so far in a period.

    ``count`` are the meters that are counted together, or :data:`STANDARD_TOKENS` alone; none for a commitment, which
    counts money. ``tiers`` are those of ``graduated`` and ``volume``; ``block_units`` and ``block_price_pico`` those of
    ``blocks``; ``amount_pico`` is what is committed for each period, tax included, ``multiply_pico`` the factor (1e-12)
    within it and ``overflow_pico`` above it.
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
    line: int = field(default=0, compare=False)

    @property
    def counts_the_same(self) -> tuple[object, ...]:
        """What may not change while a counter of this name goes on from one version of a book to the next."""
        return (self.kind, self.every, self.timezone, self.count)

    def counter(self, first_day: str) -> str:
        """The key of an account's counter for the period that begins on a day."""
        return f"{self.name}@{first_day}"
