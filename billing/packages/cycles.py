"""When the cycles of a grant or subscription begin and end (CONTRACT §3 "Cycles"): half-open, in the plan's time zone.

Owns: the start of the n-th cycle of every kind. A later cycle begins at the first moment of its local day: where clocks
skip midnight that is when they had been put forward, where midnight comes twice it is the first one. Every cycle is
counted from the first, never from the one before, so a month end stays a month end (31, 28, 31). Never: what a cycle
grants, the clock.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.accounts.account import NO_END_US
from billing.catalog.model import Cycle
from schemas.fields import MAX_TIME_US
from schemas.times import DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_YEAR = 9998
LAST_START_US = MAX_TIME_US - 36_600 * DAY_US
"""A first cycle may begin before this: the longest (36,500 days) must end in a year that can be written."""


def cycle_start_us(cycle: Cycle, first_us: int, number: int) -> int:
    """When cycle ``number`` (from 1) begins, of cycles of which the first begins at ``first_us``.

    ``subscription_month``: 00:00 on the day of the month that the first began on, or the month's last day where it
    lacks it; ``calendar_month``: 00:00 on the first of the month; ``days``: that many times 24 hours after the one
    before; ``once``: there is no second one. ``NO_END_US`` where a cycle would begin after the year 9998, or never.

    Raises:
        ValueError: a kind that does not exist, or a number below 1.
    """
    if number < 1:
        raise ValueError(f"there is no cycle {number}")
    if number == 1:
        return first_us
    if cycle.kind == "once":
        return NO_END_US
    if cycle.kind == "days":
        start_us = first_us + (number - 1) * cycle.days * DAY_US
        return start_us if start_us < MAX_TIME_US - DAY_US else NO_END_US
    if cycle.kind not in ("subscription_month", "calendar_month"):
        raise ValueError(f"cycle kind {cycle.kind!r} does not exist")
    zone = ZoneInfo(cycle.timezone)
    first = (_EPOCH + first_us * _MICROSECOND).astimezone(zone)
    years, month = divmod(first.month - 1 + number - 1, 12)
    year, month = first.year + years, month + 1
    if year > _LAST_YEAR:
        return NO_END_US
    day = 1 if cycle.kind == "calendar_month" else min(first.day, monthrange(year, month)[1])
    return _first_moment_us(datetime(year, month, day), zone)


def cycle_end_us(cycle: Cycle, first_us: int, number: int) -> int:
    """When cycle ``number`` ends: where the next one begins. ``NO_END_US`` where it has no end."""
    return cycle_start_us(cycle, first_us, number + 1)


def cycle_at(cycle: Cycle, first_us: int, time_us: int) -> int:
    """The number of the cycle that a time lies in; 1 for a time before the first begins."""
    if time_us < first_us or cycle.kind == "once":
        return 1
    if cycle.kind == "days":
        number = (time_us - first_us) // (cycle.days * DAY_US) + 1
    else:
        zone = ZoneInfo(cycle.timezone)
        first, at = ((_EPOCH + us * _MICROSECOND).astimezone(zone) for us in (first_us, time_us))
        # The cycle that begins in the month of the time, or the one before it.
        number = 12 * (at.year - first.year) + at.month - first.month + 1
    while number > 1 and cycle_start_us(cycle, first_us, number) > time_us:
        number -= 1
    return number


def _first_moment_us(midnight: datetime, zone: ZoneInfo) -> int:
    """The first moment at which the clocks of a zone show this local time or, where they skip it, a later one."""
    # fold 0 is the offset before a change of the clocks, fold 1 the offset after it.
    begins_us, before_us = (_utc_us(midnight.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if _wall(begins_us, zone) == midnight:
        return begins_us
    while begins_us - before_us > 1:  # skipped: between the two the clocks were put forward
        middle_us = (before_us + begins_us) // 2
        if _wall(middle_us, zone) < midnight:
            before_us = middle_us
        else:
            begins_us = middle_us
    return begins_us


def _utc_us(local: datetime) -> int:
    return (local.astimezone(UTC) - _EPOCH) // _MICROSECOND


def _wall(time_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + time_us * _MICROSECOND).astimezone(zone).replace(tzinfo=None)
