"""Windows: caps on the standard tokens of a plan that are burned within hours, a week or a month.

The rule is in docs/reference/plans.md, "Windows". A window counts the burns of all grants of its plan's name on the
account, whatever their version. A version without windows is the exception: its grants are not capped, and their burns
are not recorded, so no window counts them.

``Account.extras.burns`` stores when standard tokens were burned: by plan name, then by hour since 1970, as text of
:mod:`billing.burning.burn_times`. Two bounds keep it small. An hour is dropped when it is older than the longest window
plus 35 days; usage that comes later still does not find its burns. If a plan has more than :data:`MAX_BURNS` burns, the
burns of the oldest hours are merged by quarters of an hour: only of hours in which no rolling window of usage on time
begins. Fixed windows stay exact, because they begin on a quarter. No SQL, no clock.
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
"""Value for "no limit": more than any bucket holds."""
MAX_LATE_US = TimeLimits().past_us
"""Age up to which late usage finds the burns of its windows: the default limit for usage of unnumbered sources."""
MAX_BURNS = 10_000
"""Number of burns of a plan that an account keeps to the microsecond, besides those that usage on time can reach."""
_MAX_FIXED_US = {"week": 8 * DAY_US, "month": 32 * DAY_US}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def room_micro(account: Account, bucket: Bucket, plan: Plan, time_us: int) -> int:
    """Return the standard tokens that the windows of a bucket's plan leave for usage at ``time_us``; at least 0."""
    room = NO_LIMIT_MICRO
    hours = account.extras.burns.get(plan.name, {})
    for window in plan.windows:
        begins_us, ends_us = span_us(window, account, bucket, plan, time_us)
        room = min(room, window.cap_micro - burned_micro(hours, begins_us, ends_us))
    return max(0, room)


def span_us(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> tuple[int, int]:
    """Return the first and last microsecond of the window that contains usage at ``time_us``.

    A rolling window is (t - hours, t]. A fixed window begins at 00:00 in the plan's zone, on Monday or on the cycle's
    day of the month, and ends before the next one begins.
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
    """Return the standard tokens burned between two times, both included."""
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


def record_burn(
    account: Account, plan: Plan, time_us: int, added_micro: int, now_us: int, plan_of: Callable[[PlanKey], Plan]
) -> None:
    """Record the standard tokens that usage at ``time_us`` burned of a plan with windows."""
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
    """Drop the hours that no window can reach."""
    oldest = (now_us - max(map(_length_us, windows)) - MAX_LATE_US) // HOUR_US
    for name in [name for name in hours if int(name) < oldest]:
        del hours[name]


def _merge_old(hours: dict[str, str], now_us: int, windows: list[Window]) -> None:
    """Merge the burns of the oldest hours by quarters of an hour, if the number of burns exceeds its bound."""
    too_many = sum(map(burns, hours.values())) - MAX_BURNS
    if too_many <= 0:
        return
    rolling = max((window.hours for window in windows if window.kind == "rolling"), default=0)
    for hour in sorted(hour for name in hours if (hour := int(name)) < now_us // HOUR_US - rolling - 1):
        text = hours[str(hour)]
        if too_many > 0 and burns(text) > HOUR_US // QUARTER_US:
            hours[str(hour)] = merged(text, QUARTER_US)
            too_many -= burns(text) - burns(hours[str(hour)])


def _length_us(window: Window) -> int:
    return window.hours * HOUR_US if window.kind == "rolling" else _MAX_FIXED_US[window.every]


def _cycle_day(account: Account, bucket: Bucket, plan: Plan, zone: ZoneInfo) -> int:
    """Return the day of the month on which monthly windows of a grant begin.

    For a subscription this is the day on which its cycles begin, also for a bucket granted by a change within a cycle.
    A bucket received from another account, or whose subscription has changed to other cycles, may have begun on the
    last day of a shorter month; then the day of its end is used if it is later.
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
