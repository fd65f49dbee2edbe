"""Windows: how much of a plan's standard tokens may be burned within some hours, a week or a month (CONTRACT §3).

Owns: ``Account.extras.burns``, when each standard token of a plan with windows was burned: by plan name, then by hour
since 1970, in the words of :mod:`billing.burning.burn_times`. Windows of every version of a plan see what was burned
of any
grant of that plan name, but for versions without windows, whose burns are not noted. An hour is dropped when it is
older than the longest window and 35 days more; where a plan has more than :data:`MOST_BURNS`, the oldest hours that
only late usage can reach are known to a quarter of an hour. Never: SQL, the clock.
"""

from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.burning.burn_times import QUARTER_US, between_micro, burns, merged, noted, sum_micro
from billing.catalog.model import Plan, PlanKey, Window
from billing.log_time import TimeLimits
from billing.packages.cycles import cycle_start_us
from schemas.times import DAY_US, HOUR_US

NO_LIMIT_MICRO = 2**127
"""More than any bucket holds."""
LATE_US = TimeLimits().past_us
"""How late usage still finds what its windows counted (the default of the limit for unnumbered usage)."""
MOST_BURNS = 10_000
"""How many burns of a plan an account knows to the microsecond, beyond those that usage on time can reach."""
_LONGEST_FIXED_US = {"week": 8 * DAY_US, "month": 32 * DAY_US}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def room_micro(account: Account, bucket: Bucket, plan: Plan, time_us: int) -> int:
    """What the windows of a bucket's plan leave for usage at a time; never below 0."""
    room = NO_LIMIT_MICRO
    hours = account.extras.burns.get(plan.name, {})
    for window in plan.windows:
        begins_us, ends_us = span_us(window, account, bucket, plan, time_us)
        room = min(room, window.cap_micro - burned_micro(hours, begins_us, ends_us))
    return max(0, room)


def span_us(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> tuple[int, int]:
    """The window that usage at a time falls into: first and last microsecond.

    Rolling: the hours up to the usage, (t - hours, t]. Fixed: from Monday, or from the cycle's day of a month, 00:00 of
    the plan's zone, up to the next.
    """
    if window.kind == "rolling":
        return time_us - window.hours * HOUR_US + 1, time_us
    zone = ZoneInfo(plan.cycle.timezone)
    today = _local(time_us, zone).date()
    if window.every == "week":
        monday = today - timedelta(days=today.weekday())
        return _midnight_us(monday, zone), _midnight_us(monday + timedelta(days=7), zone) - 1
    day = _cycle_day(account, bucket, plan, zone)
    begins = _on_day(today.year, today.month, day)
    if begins > today:
        begins = _on_day(*_month_after(today, -1), day)
    return _midnight_us(begins, zone), _midnight_us(_on_day(*_month_after(begins, 1), day), zone) - 1


def burned_micro(hours: dict[str, str], begins_us: int, ends_us: int) -> int:
    """What was burned between two microseconds, both included."""
    first, last = begins_us // HOUR_US, ends_us // HOUR_US
    if last - first < len(hours):
        reached = [(hour, text) for hour in range(first, last + 1) if (text := hours.get(str(hour)))]
    else:
        reached = [(hour, text) for name, text in hours.items() if first <= (hour := int(name)) <= last]
    return sum(
        between_micro(text, begins_us - hour * HOUR_US, ends_us - hour * HOUR_US)
        if hour in (first, last)
        else sum_micro(text)
        for hour, text in reached
    )


def count(
    account: Account, plan: Plan, time_us: int, added_micro: int, now_us: int, plan_of: Callable[[PlanKey], Plan]
) -> None:
    """Note what usage at a time burned of a plan with windows."""
    if not plan.windows or not added_micro:
        return
    hours = account.extras.burns.setdefault(plan.name, {})
    hour, offset_us = divmod(time_us, HOUR_US)
    known = hours.get(str(hour))
    if known is None:
        versions = {bucket.plan_key for bucket in account.buckets if bucket.plan == plan.name}
        windows = [window for key in versions for window in plan_of(key).windows]
        _drop_old(hours, now_us, windows)
        _merge_old(hours, now_us, windows)
    hours[str(hour)] = noted(known, offset_us, added_micro)


def _drop_old(hours: dict[str, str], now_us: int, windows: list[Window]) -> None:
    """Drop the hours that no window reaches."""
    oldest = (now_us - max(map(_length_us, windows)) - LATE_US) // HOUR_US
    for name in [name for name in hours if int(name) < oldest]:
        del hours[name]


def _merge_old(hours: dict[str, str], now_us: int, windows: list[Window]) -> None:
    """Know less of the oldest hours, of those that only late usage can reach, where there is too much to hold."""
    too_many = sum(map(burns, hours.values())) - MOST_BURNS
    if too_many <= 0:
        return
    rolling = max((window.hours for window in windows if window.kind == "rolling"), default=0)
    for hour in sorted(hour for name in hours if (hour := int(name)) < now_us // HOUR_US - rolling - 1):
        text = hours[str(hour)]
        if too_many > 0 and burns(text) > HOUR_US // QUARTER_US:
            hours[str(hour)] = merged(text, QUARTER_US)
            too_many -= burns(text) - burns(hours[str(hour)])


def _length_us(window: Window) -> int:
    return window.hours * HOUR_US if window.kind == "rolling" else _LONGEST_FIXED_US[window.every]


def _cycle_day(account: Account, bucket: Bucket, plan: Plan, zone: ZoneInfo) -> int:
    """The day of the month on which a grant's months begin: of a subscription's, on which its cycles do, whenever a
    change within the cycle gave this bucket.

    A bucket whose subscription is another account's, or has other cycles now, may have begun on a shorter month's last
    day: its end then tells.
    """
    if plan.cycle.kind == "calendar_month":
        return 1
    by_months = plan.cycle.kind == "subscription_month"
    subscription = account.subscription_of(bucket)
    if subscription is not None and bucket.cycle_number >= subscription.anchor_cycle:
        number = 1 if by_months else bucket.cycle_number - subscription.anchor_cycle + 1
        return _local(cycle_start_us(plan.cycle, subscription.anchor_us, number), zone).day
    day = _local(bucket.valid_from_us, zone).day
    elsewhere = subscription is not None or bucket.grant_id in account.extras.received
    if by_months and elsewhere and bucket.valid_until_us < NO_END_US:
        return max(day, _local(bucket.valid_until_us, zone).day)
    return day


def _local(time_us: int, zone: ZoneInfo) -> datetime:
    return (_EPOCH + time_us * _MICROSECOND).astimezone(zone)


def _midnight_us(day: date, zone: ZoneInfo) -> int:
    midnight = datetime(day.year, day.month, day.day, tzinfo=zone)
    return (midnight.astimezone(UTC) - _EPOCH) // _MICROSECOND


def _on_day(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))


def _month_after(day: date, months: int) -> tuple[int, int]:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return year, month + 1
