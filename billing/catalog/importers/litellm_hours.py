"""Conversion of LiteLLM's ``off_peak_pricing`` windows into time bands.

LiteLLM reads hours in UTC, and the weekday of that instant on the calendar of ``weekday_timezone``. A time band reads
both in one zone, and hours past midnight belong to the day on which they start. So the hours are moved into the
calendar's zone, whose offset from UTC must not change, and cut at its midnights.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from billing.catalog.importers.values import BandText
from billing.catalog.model import ALL_DAY_MINUTES, DAYS
from billing.catalog.timebands import zone_of

_HOURS = re.compile(r"\s*([01]?\d|2[0-3]):([0-5]?\d)\s*-\s*([01]?\d|2[0-3]):([0-5]?\d)\s*", re.ASCII)
_LONG_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_WEEKDAYS = {name: day for day, name in enumerate(DAYS)} | {name: day for day, name in enumerate(_LONG_NAMES)}
_WEEKDAYS |= {"tues": 1, "thur": 3, "thurs": 3}
_YEARS = range(2020, 2038)


class HoursError(ValueError):
    """Raised for off-peak hours that no time band can express; the message gives the reason."""


def off_peak_bands(block: Mapping[str, Any]) -> tuple[BandText, ...]:
    """Return the bands of a block: no two apply at once, and together they are its hours.

    Raises:
        HoursError: a window cannot be read, or the calendar's offset from UTC changes.
    """
    zone = str(block.get("weekday_timezone") or "UTC").strip()
    offset = _offset_minutes(zone)
    rules = block.get("windows", [])
    if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
        raise HoursError("its windows are not a list of objects")
    open_minutes: list[set[int]] = [set() for _ in DAYS]
    for rule in (*rules, *([{"hours_utc": block["hours_utc"]}] if "hours_utc" in block else [])):
        days = _weekdays(rule.get("weekdays"))
        for minute in _utc_minutes(rule.get("hours_utc")):
            for day in days:
                open_minutes[day].add((minute + offset) % ALL_DAY_MINUTES)
    by_hours: dict[tuple[str, ...], list[str]] = {}
    for name, minutes in zip(DAYS, open_minutes, strict=True):
        if minutes:
            by_hours.setdefault(tuple(_hours(minutes)), []).append(name)
    if not by_hours:
        raise HoursError("it has no hours")
    return tuple(BandText(zone, tuple(days), hours) for hours, days in by_hours.items())


def _offset_minutes(zone: str) -> int:
    try:
        found = zone_of(zone)
    except ValueError as error:
        raise HoursError(str(error)) from error
    noons = (datetime(year, month, 1, 12, tzinfo=UTC) for year in _YEARS for month in range(1, 13))
    offsets = {noon.astimezone(found).utcoffset() for noon in noons}
    offset = offsets.pop()
    if offsets or offset is None:
        raise HoursError(f"the clocks of {zone} change, and its hours are in UTC")
    return offset // timedelta(minutes=1)


def _utc_minutes(hours: object) -> Iterator[int]:
    """Yield the minutes of the UTC day in a window or a list of windows. Equal ends are the whole day."""
    for window in hours if isinstance(hours, list) else [hours]:
        match = _HOURS.fullmatch(window) if isinstance(window, str) else None
        if match is None:
            raise HoursError(f"the window {window!r} is not hours such as 04:00-06:00")
        from_hour, from_minute, to_hour, to_minute = (int(part) for part in match.groups())
        start, end = from_hour * 60 + from_minute, to_hour * 60 + to_minute
        length = (end - start) % ALL_DAY_MINUTES or ALL_DAY_MINUTES
        yield from ((start + minute) % ALL_DAY_MINUTES for minute in range(length))


def _weekdays(value: object) -> tuple[int, ...]:
    if value is None:
        return tuple(range(len(DAYS)))
    if not isinstance(value, list):
        raise HoursError(f"the weekdays {value!r} are not a list")
    return tuple(_weekday(day) for day in value)


def _weekday(day: object) -> int:
    if isinstance(day, Decimal) and day in range(1, len(DAYS) + 1):
        return int(day) - 1
    number = _WEEKDAYS.get(day.strip().lower()) if isinstance(day, str) else None
    if number is None:
        raise HoursError(f"the weekday {day!r} is not a number from 1 to 7 or a name")
    return number


def _hours(minutes: set[int]) -> Iterator[str]:
    """Yield minutes of a day as stretches such as ``04:00-06:00``."""
    starts = sorted(minute for minute in minutes if minute - 1 not in minutes)
    ends = sorted(minute + 1 for minute in minutes if minute + 1 not in minutes)
    for start, end in zip(starts, ends, strict=True):
        yield f"{_clock(start)}-{_clock(end)}"


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
