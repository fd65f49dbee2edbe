"""Starts of cycles, compared with an enumeration of days and minutes in many kinds of time zones."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.accounts.account import NO_END_US
from billing.catalog.model import Cycle
from billing.packages.cycles import cycle_at, cycle_end_us, cycle_start_us

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = (
    "Asia/Shanghai",
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Havana",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Pacific/Apia",
    "America/Asuncion",
)
MINUTE = timedelta(minutes=1)


def us(text: str, zone: str = "UTC") -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)) - EPOCH) // timedelta(microseconds=1)


def at(time_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=time_us)


def enumerated_starts(cycle: Cycle, first_us: int, number: int) -> list[int]:
    """Return the starts of the first ``number`` cycles, found by a search through local days and UTC minutes."""
    zone = ZoneInfo(cycle.timezone)
    starts = [first_us]
    begun = at(first_us).astimezone(zone)
    wanted_day = 1 if cycle.kind == "calendar_month" else begun.day
    step = cycle.length * (12 if cycle.kind == "years" else 1) or 1
    day = begun.date()
    while len(starts) < number:
        day += timedelta(days=1)
        tomorrow_is_next_month = (day + timedelta(days=1)).month != day.month
        is_day = day.day == wanted_day or (tomorrow_is_next_month and day.day < wanted_day)
        months = 12 * (day.year - begun.year) + day.month - begun.month
        if cycle.kind in ("day", "weeks"):
            if (day - begun.date()).days % (7 * cycle.length or 1):
                continue
        elif not is_day or months == 0 or months % step:
            continue
        midnight = datetime(day.year, day.month, day.day)
        # UTC offsets are at most 16 hours, so 26 hours earlier is before midnight; search the first minute after it.
        moment = midnight.replace(tzinfo=UTC) - timedelta(hours=26)
        while moment.astimezone(zone).replace(tzinfo=None) < midnight:
            moment += MINUTE
        starts.append((moment - EPOCH) // timedelta(microseconds=1))
    return starts


@settings(max_examples=60, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    kind=st.sampled_from(["subscription_month", "calendar_month", "months", "years", "weeks", "day"]),
    length=st.integers(1, 5),
    first=st.datetimes(datetime(2005, 1, 1), datetime(2035, 12, 31)),
)
def test_cycles_are_those_of_a_plain_enumeration(zone: str, kind: str, length: int, first: datetime) -> None:
    cycle = Cycle(kind, zone, length=length if kind in ("months", "years", "weeks") else 0)
    first_us = (first.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)
    number = 4 if kind == "years" else 14
    starts = enumerated_starts(cycle, first_us, number)
    assert [cycle_start_us(cycle, first_us, one) for one in range(1, number + 1)] == starts
    assert starts == sorted(starts)
    if kind != "day":  # clocks may skip a whole day
        assert len(starts) == len(set(starts))


@settings(max_examples=200, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    kind=st.sampled_from(["subscription_month", "calendar_month", "days", "once", "months", "years", "weeks", "day"]),
    days=st.integers(1, 400),
    first_us=st.integers(0, us("2100-01-01")),
    later_us=st.integers(-us("1980-01-01"), us("2000-01-01")),
)
def test_every_time_lies_in_one_cycle(zone: str, kind: str, days: int, first_us: int, later_us: int) -> None:
    cycle = Cycle(kind, zone, days, days % 60 + 1 if kind in ("months", "years", "weeks") else 0)
    time_us = first_us + later_us
    number = cycle_at(cycle, first_us, time_us)
    assert time_us < cycle_end_us(cycle, first_us, number)
    if time_us >= first_us:
        assert cycle_start_us(cycle, first_us, number) <= time_us
    else:
        assert number == 1


def test_month_ends_are_counted_from_the_first_cycle() -> None:
    cycle = Cycle("subscription_month", "UTC")
    starts = [at(cycle_start_us(cycle, us("2023-10-31T09:30:00"), n)) for n in range(1, 8)]
    assert [start.strftime("%m-%d %H:%M") for start in starts] == [
        "10-31 09:30",
        "11-30 00:00",
        "12-31 00:00",
        "01-31 00:00",
        "02-29 00:00",
        "03-31 00:00",
        "04-30 00:00",
    ]


@pytest.mark.parametrize("day", [28, 29, 30, 31])
@pytest.mark.parametrize(("year", "last"), [(2023, 28), (2024, 29), (2100, 28)])
def test_february_takes_its_last_day(day: int, year: int, last: int) -> None:
    cycle = Cycle("subscription_month", "Asia/Shanghai")
    end_us = cycle_end_us(cycle, us(f"{year}-01-{day}T12:00:00", "Asia/Shanghai"), 1)
    assert end_us == us(f"{year}-02-{min(day, last)}T00:00:00", "Asia/Shanghai")
    assert cycle_end_us(cycle, us(f"{year}-01-{day}T12:00:00", "Asia/Shanghai"), 2) == us(
        f"{year}-03-{day}T00:00:00", "Asia/Shanghai"
    )


def test_a_year_of_a_leap_day_returns_to_it() -> None:
    cycle = Cycle("subscription_month", "UTC")
    first_us = us("2024-02-29T08:00:00")
    assert at(cycle_start_us(cycle, first_us, 13)) == datetime(2025, 2, 28, tzinfo=UTC)
    assert at(cycle_start_us(cycle, first_us, 49)) == datetime(2028, 2, 29, tzinfo=UTC)


def test_a_midnight_that_clocks_skip_is_the_moment_they_were_put_forward() -> None:
    """Clocks in Sao Paulo went from 23:59:59 to 01:00 on 4 November 2018; Apia had no 30 December 2011 at all."""
    month = Cycle("subscription_month", "America/Sao_Paulo")
    start = at(cycle_end_us(month, us("2018-10-04T10:00:00", "America/Sao_Paulo"), 1))
    assert start == datetime(2018, 11, 4, 3, tzinfo=UTC)
    assert start.astimezone(ZoneInfo("America/Sao_Paulo")).hour == 1
    apia = at(cycle_end_us(Cycle("subscription_month", "Pacific/Apia"), us("2011-11-30T12:00:00", "Pacific/Apia"), 1))
    assert apia == datetime(2011, 12, 30, 10, tzinfo=UTC)
    # Clocks in Toronto went from 23:30 to 00:30 on 30 March 1919, so 31 March began at 00:30.
    toronto = at(
        cycle_end_us(Cycle("subscription_month", "America/Toronto"), us("1919-02-28T12:00:00", "America/Toronto"), 1)
    )
    assert toronto.astimezone(ZoneInfo("America/Toronto")).strftime("%d %H:%M") == "28 00:00"
    toronto = at(
        cycle_end_us(Cycle("subscription_month", "America/Toronto"), us("1919-01-31T12:00:00", "America/Toronto"), 2)
    )
    assert toronto == datetime(1919, 3, 31, 4, 30, tzinfo=UTC)


def test_a_midnight_that_comes_twice_is_the_first() -> None:
    """Clocks in Havana went back from 01:00 to 00:00 on 1 November 2020."""
    cycle = Cycle("calendar_month", "America/Havana")
    start = at(cycle_end_us(cycle, us("2020-10-05T10:00:00", "America/Havana"), 1))
    assert start == datetime(2020, 11, 1, 4, tzinfo=UTC)


def test_days_are_24_hours_whatever_the_clocks_do() -> None:
    cycle = Cycle("days", "Europe/Berlin", 30)
    first_us = us("2026-03-20T10:00:00", "Europe/Berlin")
    assert cycle_end_us(cycle, first_us, 1) - first_us == 30 * 24 * 3600 * 1_000_000


def test_what_has_no_next_cycle_has_no_end() -> None:
    assert cycle_end_us(Cycle("once", "UTC"), 0, 1) == NO_END_US
    assert cycle_end_us(Cycle("subscription_month", "UTC"), us("9998-12-05T00:00:00"), 1) == NO_END_US
    assert cycle_end_us(Cycle("days", "UTC", 36_500), us("9950-01-01T00:00:00"), 1) == NO_END_US


def test_a_plan_of_a_year_keeps_its_leap_day() -> None:
    cycle, first_us = Cycle("years", "Asia/Shanghai", length=1), us("2028-02-29T08:00:00", "Asia/Shanghai")
    starts = [cycle_start_us(cycle, first_us, number) for number in range(2, 7)]
    assert starts == [
        us(f"{year}-02-{29 if year % 4 == 0 else 28}T00:00:00", "Asia/Shanghai") for year in range(2029, 2034)
    ]


@pytest.mark.parametrize(("kind", "number"), [("week", 2), ("once", 0)])
def test_what_does_not_exist_is_an_error(kind: str, number: int) -> None:
    with pytest.raises(ValueError, match=r"exist|no cycle"):
        cycle_start_us(Cycle(kind, "UTC"), 0, number)
