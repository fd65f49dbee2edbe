"""Windows: caps on what is burned of a plan's buckets of one unit within hours, a day, a week or a month.

The rule is in docs/reference/plans.md, "Windows". A window counts the burns of all grants of its plan's name on the
account, whatever their version. A version without windows is the exception: its grants are not capped, and their burns
are not recorded, so no window counts them. The same holds for each unit that a version's windows do not count.

``Account.extras.burns`` stores when units were burned: by plan name and unit, then by hour since 1970, as text of
:mod:`billing.burning.burn_times`. Two bounds keep it small. An hour is dropped when it is older than the longest window
plus 35 days; usage that comes later still does not find its burns. If a plan has more than :data:`MAX_BURNS` burns, the
burns of the oldest hours are merged by quarters of an hour: only of hours in which no rolling window of usage on time
begins. Fixed windows stay exact, because they begin on a quarter.

``Account.extras.openings`` stores when windows began that begin with a first use. Such a window lasts its hours from
its first burn, at most until the next one begins, where late usage opened it before that. No SQL, no clock.
"""

from bisect import bisect_right, insort
from calendar import monthrange
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.burning.burn_times import QUARTER_US, between_micro, burns, first_us, merged, noted, sum_micro
from billing.catalog.model import STD_TOKEN, Plan, PlanKey, Window
from billing.log_time import TimeLimits
from billing.packages.cycles import cycle_start_us
from schemas.times import DAY_US, HOUR_US

NO_LIMIT_MICRO = 2**127
"""Value for "no limit": more than any bucket holds."""
MAX_LATE_US = TimeLimits().past_us
"""Age up to which late usage finds the burns of its windows: the default limit for usage of unnumbered sources."""
MAX_BURNS = 10_000
"""Number of burns of a plan that an account keeps to the microsecond, besides those that usage on time can reach."""
_MAX_FIXED_US = {"day": 2 * DAY_US, "week": 8 * DAY_US, "month": 32 * DAY_US}
FIRST_USE_WINDOW = "from_first_use"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def counts(window: Window, bucket: Bucket, plan: Plan) -> bool:
    """Return True if a window counts what is burned of a bucket of its plan.

    It counts the buckets of its unit. A window in a unit that no bucket of the plan has, other than standard tokens,
    counts all buckets: what the usage needs in its unit, by the share that they cover.
    """
    return window.unit == bucket.unit or (window.unit != STD_TOKEN and window.unit not in plan.units)


def left_micro(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> int:
    """Return what a window leaves for usage at ``time_us``, in micro of its unit; at least 0."""
    return max(0, window.cap_micro - used_micro(window, account, bucket, plan, time_us))


def used_micro(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> int:
    """Return what was burned in the window that contains ``time_us``, in micro of its unit."""
    begins_us, ends_us = span_us(window, account, bucket, plan, time_us)
    return burned_micro(account.extras.burns.get(_of_unit(plan, window.unit), {}), begins_us, ends_us)


def span_us(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> tuple[int, int]:
    """Return the first and last microsecond of the window that contains usage at ``time_us``.

    A rolling window is (t - hours, t]. One that begins with its first use is the open one, or the one that usage now
    would open. A fixed window begins at 00:00 in the plan's zone, each day, on Monday or on the cycle's day of the
    month, and ends before the next one begins.
    """
    if window.kind == "rolling":
        return time_us - window.hours * HOUR_US + 1, time_us
    if window.kind == FIRST_USE_WINDOW:
        begins_us, ends_us = _opened(account.extras.openings.get(_opening(plan, window), []), window, time_us)
        return begins_us, ends_us - 1
    zone = ZoneInfo(plan.cycle.timezone)
    today = _local(time_us, zone).date()
    if window.every == "day":
        return _midnight_us(today, zone), _midnight_us(today + timedelta(days=1), zone) - 1
    if window.every == "week":
        monday = today - timedelta(days=today.weekday())
        return _midnight_us(monday, zone), _midnight_us(monday + timedelta(days=7), zone) - 1
    day = _cycle_day(account, bucket, plan, zone)
    begins = _on_day(today.year, today.month, day)
    if begins > today:
        begins = _on_day(*_month_after(today, -1), day)
    return _midnight_us(begins, zone), _midnight_us(_on_day(*_month_after(begins, 1), day), zone) - 1


def is_open(window: Window, account: Account, plan: Plan, time_us: int) -> bool:
    """Return True if a window that begins with its first use has begun at ``time_us``, and not ended."""
    starts = account.extras.openings.get(_opening(plan, window), [])
    return _opened(starts, window, time_us)[0] in starts


def _opened(starts: list[int], window: Window, time_us: int) -> tuple[int, int]:
    """Return start and end of the window of a first use that contains a time, of those that began at ``starts``."""
    place = bisect_right(starts, time_us)
    begins_us = time_us
    if place and time_us < starts[place - 1] + window.hours * HOUR_US:
        begins_us = starts[place - 1]
    ends_us = begins_us + window.hours * HOUR_US
    return begins_us, min(ends_us, starts[place]) if place < len(starts) else ends_us


def _of_unit(plan: Plan, unit: str) -> str:
    """Return the key of ``Account.extras.burns`` for the burns of a unit. No plan's name has a slash."""
    return plan.name if unit == STD_TOKEN else f"{plan.name}/{unit}"


def _opening(plan: Plan, window: Window) -> str:
    return f"{plan.name}/{window.unit}/{window.hours}"


def freed_us(window: Window, account: Account, bucket: Bucket, plan: Plan, time_us: int) -> int | None:
    """Return when a rolling window at ``time_us`` releases its oldest burn; None if there is none."""
    begins_us, ends_us = span_us(window, account, bucket, plan, time_us)
    hours = account.extras.burns.get(_of_unit(plan, window.unit), {})
    for hour in sorted(hour for name in hours if begins_us // HOUR_US <= (hour := int(name)) <= ends_us // HOUR_US):
        found_us = first_us(hours[str(hour)], begins_us - hour * HOUR_US, ends_us - hour * HOUR_US)
        if found_us is not None:
            return hour * HOUR_US + found_us + window.hours * HOUR_US
    return None


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
    account: Account,
    plan: Plan,
    time_us: int,
    added_micro: Mapping[str, int],
    now_us: int,
    plan_of: Callable[[PlanKey], Plan],
) -> None:
    """Record what usage at ``time_us`` burned of a plan with windows, in each unit that they count."""
    for unit, micro in added_micro.items():
        if not micro:
            continue
        hours = account.extras.burns.setdefault(_of_unit(plan, unit), {})
        hour, offset_us = divmod(time_us, HOUR_US)
        known = hours.get(str(hour))
        if known is None:
            versions = {one.plan_key for one in account.buckets if one.plan == plan.name}
            windows = [window for key in versions for window in plan_of(key).windows if window.unit == unit]
            _drop_old(hours, now_us, windows)
            _merge_old(hours, now_us, windows)
        hours[str(hour)] = noted(known, offset_us, micro)
    for window in plan.windows:
        if window.kind == FIRST_USE_WINDOW and added_micro.get(window.unit):
            _open(account.extras.openings.setdefault(_opening(plan, window), []), window, time_us, now_us)


def _open(starts: list[int], window: Window, time_us: int, now_us: int) -> None:
    """Record the start of the window that contains usage at ``time_us``; drop starts that no usage can reach."""
    begins_us, _ = _opened(starts, window, time_us)
    if begins_us not in starts:
        insort(starts, begins_us)
        oldest_us = now_us - window.hours * HOUR_US - MAX_LATE_US
        del starts[: bisect_right(starts, min(oldest_us, begins_us - 1))]


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
    rolling = max((window.hours for window in windows if window.kind != "fixed"), default=0)
    for hour in sorted(hour for name in hours if (hour := int(name)) < now_us // HOUR_US - rolling - 1):
        text = hours[str(hour)]
        if too_many > 0 and burns(text) > HOUR_US // QUARTER_US:
            hours[str(hour)] = merged(text, QUARTER_US)
            too_many -= burns(text) - burns(hours[str(hour)])


def _length_us(window: Window) -> int:
    return _MAX_FIXED_US[window.every] if window.kind == "fixed" else window.hours * HOUR_US


def _cycle_day(account: Account, bucket: Bucket, plan: Plan, zone: ZoneInfo) -> int:
    """Return the day of the month on which monthly windows of a grant begin.

    For a subscription this is the day on which its cycles begin, also for a bucket granted by a change within a cycle.
    A bucket received from another account, or whose subscription has changed to other cycles, may have begun on the
    last day of a shorter month; then the day of its end is used if it is later.
    """
    if plan.cycle.kind == "calendar_month":
        return 1
    by_months = plan.cycle.kind in ("subscription_month", "months", "years", "weeks", "day")
    subscription = account.subscription_of(bucket)
    if subscription is not None and bucket.cycle_number >= subscription.anchor_cycle:
        number = 1 if by_months else bucket.cycle_number - subscription.anchor_cycle + 1
        return _local(cycle_start_us(plan.cycle, subscription.anchor_us, number), zone).day
    begins_us = bucket.valid_from_us
    if plan.buckets[bucket.bucket_no - 1].every:
        begins_us = min(one.valid_from_us for one in account.granted(bucket.grant))
    day = _local(begins_us, zone).day
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
