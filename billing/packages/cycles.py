"""Start and end of each cycle of a grant or subscription (docs/reference/plans.md, "Cycles").

Cycles are half-open intervals in the plan's time zone. Except for cycles of kind ``days``, a later cycle begins at the
first moment of its local day. Where a clock change skips midnight, that is the moment after the change; where midnight
occurs twice, it is the first one. Each cycle is computed from the first cycle, not from the previous one, so a month
end stays a month end (31, 28, 31).

What a cycle grants is :mod:`billing.packages.grants`. No clock.
"""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.accounts.account import NO_END_US
from billing.catalog.model import Cycle
from billing.log_time import RULES_NUMBER
from schemas.fields import MAX_TIME_US
from schemas.times import DAY_US, SECOND_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LAST_YEAR = 9998
_NO_START = date(_LAST_YEAR + 1, 1, 1).toordinal()
"""The first day on which no cycle begins."""
_MONTHS = {"subscription_month": 1, "calendar_month": 1, "months": 1, "years": 12}
"""Kinds of cycle that months define, with the months in a unit of their length."""
LAST_START_US = MAX_TIME_US - 36_600 * DAY_US
"""Exclusive upper bound for the start of a first cycle.

The longest cycle (36,500 days) must end in a year that can be written.
"""


def first_start_us(starts_at_us: int, ordered_us: int, rules: int = RULES_NUMBER) -> int:
    """Return the start of the first cycle of what is sold by a command of ``ordered_us``, by default its time.

    A start within the command's own second is moved to the beginning of that second, so that usage timed in whole
    seconds finds the plan that was bought just before. Rules 1 did not move it.
    """
    if rules < 2:
        return starts_at_us
    second_us = ordered_us - ordered_us % SECOND_US
    return second_us if second_us <= starts_at_us < second_us + SECOND_US else starts_at_us


def cycle_start_us(cycle: Cycle, first_us: int, number: int) -> int:
    """Return the start of cycle ``number`` (from 1), where the first cycle begins at ``first_us``.

    By kind: ``subscription_month``, ``months`` and ``years`` begin at 00:00 on the day of the month on which the first
    cycle began, or on the last day of a shorter month; ``calendar_month`` at 00:00 on the first of the month; ``weeks``
    at 00:00 on the weekday of the first cycle; ``day`` at 00:00 each day; ``days`` that many times 24 hours after the
    previous cycle; ``once`` has no second cycle. Returns ``NO_END_US`` if the cycle does not exist or would begin after
    the year 9998.

    Raises:
        ValueError: the kind does not exist, or the number is below 1.
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
    zone = ZoneInfo(cycle.timezone)
    first = (_EPOCH + first_us * _MICROSECOND).astimezone(zone)
    if cycle.kind not in _MONTHS:
        begins = first.toordinal() + (number - 1) * _days(cycle)
        return NO_END_US if begins >= _NO_START else _first_moment_us(datetime.fromordinal(begins), zone)
    years, month = divmod(first.month - 1 + (number - 1) * _months(cycle), 12)
    year, month = first.year + years, month + 1
    if year > _LAST_YEAR:
        return NO_END_US
    day = 1 if cycle.kind == "calendar_month" else min(first.day, monthrange(year, month)[1])
    return _first_moment_us(datetime(year, month, day), zone)


def _months(cycle: Cycle) -> int:
    return _MONTHS[cycle.kind] * max(cycle.length, 1)


def _days(cycle: Cycle) -> int:
    """Return the number of local days of a cycle that local days define."""
    if cycle.kind not in ("day", "weeks"):
        raise ValueError(f"cycle kind {cycle.kind!r} does not exist")
    return 7 * cycle.length if cycle.kind == "weeks" else 1


def cycle_end_us(cycle: Cycle, first_us: int, number: int) -> int:
    """Return the end of cycle ``number``, which is the start of the next one; ``NO_END_US`` if it has no end."""
    return cycle_start_us(cycle, first_us, number + 1)


def cycle_at(cycle: Cycle, first_us: int, time_us: int) -> int:
    """Return the number of the cycle that contains ``time_us``; 1 for a time before the first cycle."""
    if time_us < first_us or cycle.kind == "once":
        return 1
    if cycle.kind == "days":
        number = (time_us - first_us) // (cycle.days * DAY_US) + 1
    else:
        zone = ZoneInfo(cycle.timezone)
        first, at = ((_EPOCH + us * _MICROSECOND).astimezone(zone) for us in (first_us, time_us))
        # The cycle that begins last in the month, or on the day, of time_us; the loop steps back if it begins later.
        if cycle.kind in _MONTHS:
            number = (12 * (at.year - first.year) + at.month - first.month) // _months(cycle) + 1
        else:
            number = (at.toordinal() - first.toordinal()) // _days(cycle) + 1
    while number > 1 and cycle_start_us(cycle, first_us, number) > time_us:
        number -= 1
    return number


def period_start_us(cycle: Cycle, time_us: int) -> int:
    """Return the start of the calendar period that contains a time, for cycles that the calendar defines.

    These are ``calendar_month`` and ``day``; for other kinds it is the time itself, because their first cycle is whole.
    """
    if cycle.kind not in ("calendar_month", "day"):
        return time_us
    zone = ZoneInfo(cycle.timezone)
    local = (_EPOCH + time_us * _MICROSECOND).astimezone(zone)
    day = 1 if cycle.kind == "calendar_month" else local.day
    return min(time_us, _first_moment_us(datetime(local.year, local.month, day), zone))


def _first_moment_us(midnight: datetime, zone: ZoneInfo) -> int:
    """Return the first moment at which the local time is ``midnight`` or, where that is skipped, later."""
    # fold=0 uses the UTC offset before a clock change, fold=1 the offset after it.
    begins_us, before_us = (_utc_us(midnight.replace(tzinfo=zone, fold=fold)) for fold in (0, 1))
    if _wall(begins_us, zone) == midnight:
        return begins_us
    while begins_us - before_us > 1:  # midnight is skipped: search for the moment of the clock change
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
