"""Tests of when a time band applies, against an enumeration of a whole year that shares no code with the rule."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from catalog_samples import BOOK, load, rows
from hypothesis import given
from hypothesis import strategies as st

from billing.catalog import TimeBand, load_folder
from billing.catalog.timebands import band_contains, band_intervals, band_reason, band_sets
from schemas.times import HOUR_US, MINUTE_US, parse_time_us

EXAMPLES = Path(__file__).parents[3] / "examples" / "catalog"
YEAR = (parse_time_us("2026-01-01T00:00:00+08:00"), parse_time_us("2027-01-01T00:00:00+08:00"))

_OFF_DAYS = {1: (1, 3), 2: (15, 23), 4: (4, 6), 5: (1, 5), 6: (19, 21), 9: (25, 27), 10: (1, 7)}  # month: from, to
OFF_2026 = frozenset((month, day) for month, (first, last) in _OFF_DAYS.items() for day in range(first, last + 1))
WORK_2026 = frozenset([(1, 4), (2, 14), (2, 28), (5, 9), (9, 20), (10, 10)])


def us(text: str) -> int:
    return parse_time_us(text)


def test_every_minute_of_2026_with_holidays_and_make_up_days() -> None:
    (book,) = load_folder(EXAMPLES).price_books
    peak = book.time_bands["peak"]
    inside = 0
    for start, end in band_intervals(peak, *YEAR):
        inside += (end - start) // MINUTE_US
        assert (end - start) % MINUTE_US == 0
    expected = 0
    moment_us, hours = YEAR[0], 0
    day = date(2026, 1, 1)
    while day.year == 2026:
        name = (day.month, day.day)
        works = name in WORK_2026 or (day.strftime("%a") not in ("Sat", "Sun") and name not in OFF_2026)
        for hour in range(24):
            is_peak = works and hour in (9, 10, 11, 14, 15, 16, 17)
            assert band_contains(peak, moment_us) is is_peak, (name, hour)
            assert band_contains(peak, moment_us + HOUR_US - 1) is is_peak, (name, hour)
            expected += 60 * is_peak
            moment_us += HOUR_US
            hours += 1
        day += timedelta(days=1)
    assert (hours, moment_us) == (8760, YEAR[1])
    assert inside == expected == 248 * 7 * 60


def test_every_hour_of_2026_of_hours_past_midnight_and_of_weekends() -> None:
    """A night belongs to the working day on which it starts. A make-up day or a holiday is not a weekend day."""
    (book,) = load_folder(EXAMPLES).price_books
    peak = book.time_bands["peak"]
    night = replace(peak, name="night", hours=((22 * 60, 7 * 60),))
    weekend = replace(peak, name="weekend", days=(5, 6), hours=((0, 24 * 60),))
    in_night = in_weekend = 0
    worked_yesterday = True  # 31 December 2025, a Wednesday that is not in the table of 2026
    moment_us, day = YEAR[0], date(2026, 1, 1)
    while day.year == 2026:
        name, free = (day.month, day.day), day.strftime("%a") in ("Sat", "Sun")
        works = name in WORK_2026 or (not free and name not in OFF_2026)
        rests = free and name not in WORK_2026 and name not in OFF_2026
        for hour in range(24):
            is_night = (hour >= 22 and works) or (hour < 7 and worked_yesterday)
            assert band_contains(night, moment_us) is band_reason(night, moment_us).inside is is_night, (name, hour)
            assert band_contains(weekend, moment_us) is band_reason(weekend, moment_us).inside is rests, (name, hour)
            in_night, in_weekend = in_night + is_night, in_weekend + rests
            moment_us += HOUR_US
        worked_yesterday = works
        day += timedelta(days=1)
    assert moment_us == YEAR[1]
    assert (in_night, in_weekend) == (248 * 9, 84 * 24)
    assert sum(b - a for a, b in band_intervals(night, *YEAR)) == in_night * HOUR_US


@pytest.mark.parametrize(
    ("time", "inside", "day", "why"),
    [
        ("2026-11-24T10:00:00+08:00", True, "2026-11-23", "22:00-11:00, mon"),
        ("2026-11-23T12:00:00+08:00", False, "2026-11-23", "12:00 is outside 22:00-11:00"),
        ("2026-10-10T23:00:00+08:00", True, "2026-10-10", "22:00-11:00, 2026-10-10 (sat) is a working day in h"),
        ("2026-10-11T10:00:00+08:00", True, "2026-10-10", "22:00-11:00, 2026-10-10 (sat) is a working day in h"),
        ("2026-10-12T10:00:00+08:00", False, "2026-10-11", "sun is not one of mon, tue"),
        ("2026-10-06T10:00:00+08:00", False, "2026-10-05", "2026-10-05 (mon) is off in h"),
    ],
)
def test_the_local_time_that_decides_is_told(time: str, inside: bool, day: str, why: str) -> None:
    off, work = frozenset({date(2026, 10, 5).toordinal()}), frozenset({date(2026, 10, 10).toordinal()})
    band = TimeBand("b", "Asia/Shanghai", (0, 1), ((22 * 60, 11 * 60),), "h", off, work)
    reason = band_reason(band, us(time))
    assert (reason.inside, reason.day, reason.why) == (inside, day, why)
    assert reason.local_time == time


def test_a_stretch_past_midnight_belongs_to_the_day_it_starts_on() -> None:
    saturday, sunday = date(2026, 11, 21), date(2026, 11, 22)
    night = TimeBand("night", "Asia/Shanghai", (4,), ((22 * 60, 6 * 60),))  # Friday nights
    assert band_contains(night, us("2026-11-20T22:00:00+08:00"))
    assert band_contains(night, us("2026-11-21T05:59:59.999999+08:00"))
    assert not band_contains(night, us("2026-11-20T21:59:59.999999+08:00"))
    assert not band_contains(night, us("2026-11-21T06:00:00+08:00"))
    assert not band_contains(night, us("2026-11-20T03:00:00+08:00"))
    eve_off = TimeBand("n", "Asia/Shanghai", (4,), ((1320, 360),), "h", frozenset({saturday.toordinal()}))
    assert band_contains(eve_off, us("2026-11-21T03:00:00+08:00"))
    friday_off = TimeBand("n", "Asia/Shanghai", (4,), ((1320, 360),), "h", frozenset({saturday.toordinal() - 1}))
    assert not band_contains(friday_off, us("2026-11-21T03:00:00+08:00"))
    work = TimeBand("n", "Asia/Shanghai", (5, 6), ((0, 1440),), "h", frozenset(), frozenset({sunday.toordinal()}))
    assert band_contains(work, us("2026-11-21T12:00:00+08:00"))
    assert not band_contains(work, us("2026-11-22T12:00:00+08:00"))


def test_hours_are_wall_clock_hours_across_a_change_of_the_zone() -> None:
    band = TimeBand("b", "Europe/Berlin", (6,), ((120, 180), (8 * 60, 9 * 60)))
    # 29 March 2026: 02:00 to 03:00 does not exist; 25 October: it occurs twice.
    spring = band_intervals(band, us("2026-03-29T00:00:00+01:00"), us("2026-03-30T00:00:00+02:00"))
    assert spring == ((us("2026-03-29T06:00:00Z"), us("2026-03-29T07:00:00Z")),)
    autumn = band_intervals(band, us("2026-10-25T00:00:00+02:00"), us("2026-10-26T00:00:00+01:00"))
    assert autumn == (
        (us("2026-10-25T00:00:00Z"), us("2026-10-25T02:00:00Z")),
        (us("2026-10-25T07:00:00Z"), us("2026-10-25T08:00:00Z")),
    )


def enumerate_minute(band: TimeBand, minute: datetime) -> bool:
    """Apply the rule in another way: list the stretches of the local days and search them for the minute."""
    local = minute.astimezone(ZoneInfo(band.timezone)).replace(tzinfo=None)
    for back in (0, 1):
        start_of_day = datetime(local.year, local.month, local.day) - timedelta(days=back)
        ordinal = start_of_day.toordinal()
        names = {start_of_day.weekday()}
        if ordinal in band.work and start_of_day.weekday() > 4:
            names = {0, 1, 2, 3, 4}
        if ordinal in band.off or not names & set(band.days):
            continue
        for start, end in band.hours:
            length = (end - start) % 1440 or 1440
            begins = start_of_day + timedelta(minutes=start)
            if begins <= local < begins + timedelta(minutes=length):
                return True
    return False


MINUTES = st.integers(0, 1439)
FIRST_DAY = date(2026, 3, 23).toordinal()


@st.composite
def time_bands(draw: st.DrawFn) -> TimeBand:
    zone = draw(st.sampled_from(["Asia/Shanghai", "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]))
    days = draw(st.sets(st.integers(0, 6), min_size=1))
    pairs = draw(st.lists(st.tuples(MINUTES, MINUTES).filter(lambda p: p[0] != p[1]), min_size=1, max_size=3))
    special = draw(st.lists(st.integers(FIRST_DAY, FIRST_DAY + 20), max_size=6, unique=True))
    cut = draw(st.integers(0, len(special)))
    off, work = frozenset(special[:cut]), frozenset(special[cut:])
    return TimeBand("b", zone, tuple(sorted(days)), tuple(pairs), "h", off, work)


@given(time_bands(), st.lists(st.integers(0, 20 * 1440 - 1), max_size=50))
def test_membership_and_intervals_agree_with_an_enumeration(band: TimeBand, minutes: list[int]) -> None:
    start = datetime(2026, 3, 24, tzinfo=UTC)
    start_us = us("2026-03-24T00:00:00Z")
    intervals = band_intervals(band, start_us, start_us + 20 * 1440 * MINUTE_US)
    assert all(a < b for a, b in intervals)
    assert all(first[1] < second[0] for first, second in pairwise(intervals))
    edges = [(edge - start_us) // MINUTE_US for interval in intervals for edge in interval]
    for minute in {*minutes, *edges, *(edge - 1 for edge in edges)} & set(range(20 * 1440)):
        expected = enumerate_minute(band, start + timedelta(minutes=minute))
        moment_us = start_us + minute * MINUTE_US
        assert band_contains(band, moment_us) is band_reason(band, moment_us).inside is expected
        assert any(a <= moment_us < b for a, b in intervals) is expected


def test_the_sets_of_bands_that_occur_together() -> None:
    every = tuple(range(7))
    day = TimeBand("day", "Asia/Shanghai", every, ((480, 1200),))
    evening = TimeBand("evening", "Asia/Shanghai", (0,), ((1080, 1440),))
    night = TimeBand("night", "Asia/Shanghai", every, ((1200, 480),))
    found = band_sets((day, evening, night), (YEAR,))
    assert found == {frozenset(s) for s in (("day",), ("night",), ("day", "evening"), ("evening", "night"))}


def test_the_latest_version_of_a_holiday_table_is_used(tmp_path: Path) -> None:
    table = "kind: holidays\nname: h\nversion: {}\noff: [{}]\nwork: []\n"
    bands = 'time_bands: {b: {timezone: UTC, days: [mon], hours: ["00:00-24:00"], except: h}}\n'
    catalog = load(tmp_path, BOOK + bands + rows(""), table.format(2, "2026-01-05"), table.format(1, "2026-01-12"))
    band = catalog.price_books[0].time_bands["b"]
    assert band.off == {date(2026, 1, 5).toordinal()}
    assert [table.version for table in catalog.holidays] == [1, 2]
