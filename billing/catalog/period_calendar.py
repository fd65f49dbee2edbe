"""Calendar periods in which a rule counts: local months, weeks and days. Reads no clock."""

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple

from billing.catalog.period_rules import PeriodRule
from billing.catalog.timebands import local_day_and_offset, zone_of
from schemas.fields import MAX_TIME_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_DAY = date.max.toordinal()


class Period(NamedTuple):
    """Half-open period in microseconds UTC. ``first_day`` is its first local day, such as ``2026-11-01``."""

    first_day: str
    from_us: int
    until_us: int


def period_of(rule: PeriodRule, time_us: int) -> Period:
    """Return the period of a rule that contains an instant: its local month, week from Monday, or day."""
    day, _ = local_day_and_offset(zone_of(rule.timezone), time_us)
    return _period(rule.every, rule.timezone, day)


@lru_cache(maxsize=4096)
def _period(every: str, timezone: str, day: int) -> Period:
    if every == "calendar_month":
        local = date.fromordinal(day)
        first = day - local.day + 1
        following = first + monthrange(local.year, local.month)[1]
    elif every == "week":
        first = day - (day - 1) % 7
        following = first + 7
    elif every == "day":
        first, following = day, day + 1
    else:
        raise ValueError(f"{every!r} is not a period")
    until_us = _midnight_us(timezone, following) if following <= _LAST_DAY else MAX_TIME_US
    return Period(date.fromordinal(first).isoformat(), _midnight_us(timezone, first), until_us)


def _midnight_us(timezone: str, day: int) -> int:
    local = datetime.combine(date.fromordinal(day), time(), tzinfo=zone_of(timezone))
    return (local - _EPOCH) // _MICROSECOND
