"""Burn times of standard tokens: exact up to a bound, then merged, so that memory stays bounded."""

from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.burning.burn_times import (
    MAX_BURNS_AN_HOUR,
    QUARTER_US,
    SECOND_US,
    between_micro,
    burns,
    merged,
    noted,
    sum_micro,
)
from billing.burning.windows import MAX_BURNS, burned_micro, record_burn, span_us
from billing.catalog.model import Cycle, Plan, Window
from schemas.times import DAY_US, HOUR_US, MINUTE_US, parse_time_us

OFFSETS = st.integers(0, HOUR_US - 1) | st.integers(0, 5) | st.integers(HOUR_US - 5, HOUR_US - 1)
BURNS = st.lists(st.tuples(OFFSETS, st.integers(1, 10**30)), min_size=1, max_size=40)
GRAINS = st.sampled_from([SECOND_US, MINUTE_US, QUARTER_US])


def hour_of(burned: list[tuple[int, int]]) -> str:
    text = None
    for offset_us, micro in burned:
        text = noted(text, offset_us, micro)
    assert text is not None
    return text


def recount(burned: list[tuple[int, int]], first_us: int, last_us: int) -> int:
    return sum(micro for offset_us, micro in burned if first_us <= offset_us <= last_us)


@given(BURNS, OFFSETS, OFFSETS)
def test_an_hour_is_what_was_noted_in_any_order(burned: list[tuple[int, int]], one: int, other: int) -> None:
    text = hour_of(burned)
    first_us, last_us = sorted((one, other))
    assert between_micro(text, first_us, last_us) == recount(burned, first_us, last_us)
    assert between_micro(text, -HOUR_US, last_us) == recount(burned, 0, last_us)
    assert between_micro(text, first_us, 2 * HOUR_US) == recount(burned, first_us, HOUR_US)
    assert sum_micro(text) == recount(burned, 0, HOUR_US)
    assert burns(text) == len({offset_us for offset_us, _ in burned})


@given(BURNS, GRAINS, OFFSETS)
def test_merged_burns_never_let_more_through(burned: list[tuple[int, int]], grain_us: int, first_us: int) -> None:
    """A window that begins within a grain counts at most the whole grain and at least the exact sum.

    A window that begins at the edge of a grain is exact.
    """
    text = merged(hour_of(burned), grain_us)
    found = between_micro(text, first_us, HOUR_US)
    edge_us = first_us - first_us % grain_us
    assert recount(burned, first_us, HOUR_US) <= found <= recount(burned, edge_us, HOUR_US)
    assert between_micro(text, edge_us, HOUR_US) == recount(burned, edge_us, HOUR_US)
    assert burns(text) == len({offset_us // grain_us for offset_us, _ in burned})
    assert merged(text, grain_us) == text


def test_an_hour_of_very_many_burns_is_known_to_the_second() -> None:
    text, every_us = None, 100_000
    for number in range(HOUR_US // every_us):
        text = noted(text, number * every_us, 1)
        assert burns(text) <= MAX_BURNS_AN_HOUR
        assert between_micro(text, 0, number * every_us) == number + 1
    assert text is not None
    within_a_second_us = 600 * SECOND_US + every_us
    assert between_micro(text, within_a_second_us, HOUR_US) == HOUR_US // every_us - 6000, "all of that second"


FIRST_US = parse_time_us("2026-11-02T00:00:00+08:00")
EVERY_US = 50 * SECOND_US
DAYS = 45


def test_many_burns_are_held_in_little_and_usage_on_time_stays_exact() -> None:
    """A burn every 50 seconds for 45 days makes 77,760 burns; a plan with a five-hour window keeps about 11,000."""
    zone = ZoneInfo("Asia/Kathmandu")  # UTC+05:45: local midnight is not on a full hour of UTC
    five, week = Window("rolling", 5, "", 10**15), Window("fixed", 0, "week", 10**15)
    plan = Plan("A", 1, {}, 0, "CNY", 0, Cycle("once", zone.key), (), windows=(five, week))
    bucket = Bucket("G/1", "A", 1, 1, "STD_TOKEN", 10**18, 10**18, 0, FIRST_US, NO_END_US, NO_END_US, 0, "active")
    account = Account("a", "CNY", "book", "prepaid", 0, buckets=[bucket])

    def burned(window: Window, time_us: int) -> int:
        return burned_micro(account.extras.burns["A"], *span_us(window, account, bucket, plan, time_us))

    def recounted(window: Window, time_us: int, now_us: int) -> int:
        begins_us, ends_us = span_us(window, account, bucket, plan, time_us)
        first = max(0, -((FIRST_US - begins_us) // EVERY_US))
        return (min(ends_us, now_us) - FIRST_US) // EVERY_US - first + 1

    in_reach, an_hour = 7 * HOUR_US // EVERY_US, HOUR_US // EVERY_US
    for time_us in range(FIRST_US, FIRST_US + DAYS * DAY_US, EVERY_US):
        record_burn(account, plan, time_us, {"STD_TOKEN": 1}, time_us, lambda _: plan)
        if time_us % (37 * EVERY_US):
            continue
        late_us = max(FIRST_US, time_us - HOUR_US)
        for at_us in (time_us, late_us):
            assert burned(five, at_us) == recounted(five, at_us, time_us)
            assert burned(week, at_us) == recounted(week, at_us, time_us)
        very_late_us = max(FIRST_US, time_us - 30 * DAY_US)
        assert burned(week, very_late_us) == recounted(week, very_late_us, time_us)
        assert abs(burned(five, very_late_us) - recounted(five, very_late_us, time_us)) <= QUARTER_US // EVERY_US
    hours = account.extras.burns["A"]
    assert sum(map(burns, hours.values())) <= MAX_BURNS + in_reach + an_hour + 4 * len(hours)
    assert len(hours) <= (8 + 35) * 24 + 1
