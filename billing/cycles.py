"""When a grant's cycle ends (CONTRACT §3 "Cycles"): half-open, in the plan's time zone."""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.accounts import NO_END_US
from schemas.fields import MAX_TIME_US
from schemas.times import DAY_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LAST_START_US = MAX_TIME_US - 36_600 * DAY_US
"""A cycle may begin before this: the longest (36,500 days) must end in a year that can be written."""


def first_cycle_end_us(kind: str, days: int | None, timezone: str, start_us: int) -> int:
    """The end of the cycle that begins at ``start_us``.

    ``subscription_month``: 00:00 on the same day of the next month (its last day where the month lacks it);
    ``calendar_month``: 00:00 on the first of the next month; ``days``: that many times 24 hours; ``once``: no end.

    Raises:
        ValueError: a kind that does not exist.
    """
    if kind == "once":
        return NO_END_US
    if kind == "days":
        if days is None:
            raise ValueError("a cycle of kind days needs days")
        return start_us + days * DAY_US
    local = (_EPOCH + start_us * _MICROSECOND).astimezone(ZoneInfo(timezone))
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    if kind == "subscription_month":
        day = min(local.day, monthrange(year, month)[1])
    elif kind == "calendar_month":
        day = 1
    else:
        raise ValueError(f"cycle kind {kind!r} does not exist")
    end = datetime(year, month, day, tzinfo=ZoneInfo(timezone))
    return (end.astimezone(UTC) - _EPOCH) // _MICROSECOND
