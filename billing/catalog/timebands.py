"""Rule for when a time band applies. Reads no clock: the instant is an argument.

Hours are wall-clock times of the band's zone, half-open. Hours past midnight belong to the day on which they start. So
the hours that start on the eve of a holiday still apply on the holiday's morning, and the hours of the holiday do not
apply on the morning after it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

from billing.catalog.model import ALL_DAY_MINUTES, DAYS, TimeBand
from schemas.times import DAY_US, MINUTE_US

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ORDINAL_1970 = _EPOCH.toordinal()
_MIDNIGHT = time()
_FIRST_US = (datetime(1, 1, 3, tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_US = (datetime(9999, 12, 29, tzinfo=UTC) - _EPOCH) // _MICROSECOND


@cache
def zone_of(name: str) -> ZoneInfo:
    """Return the IANA time zone of a name.

    Raises:
        ValueError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not a time zone of the IANA database") from error


def day_counts(band: TimeBand, day: int) -> bool:
    """Return True if the hours of a band begin on a local day (an ordinal), by weekday and holidays.

    A ``work`` day that falls on a weekend is in a band with any of Monday to Friday, and in no band of weekends only.
    """
    if day in band.off:
        return False
    weekday = (day - 1) % 7
    if weekday >= 5 and day in band.work:
        return any(listed < 5 for listed in band.days)
    return weekday in band.days


def local_day_and_offset(zone: ZoneInfo, time_us: int) -> tuple[int, int]:
    """Return the local day (an ordinal) of an instant, and the microseconds of the wall clock since its midnight.

    An instant in the first or last two days of the range of ``datetime`` is moved to the nearest one inside.
    """
    time_us = min(max(time_us, _FIRST_US), _LAST_US)
    local = (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone)
    into = timedelta(hours=local.hour, minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
    return local.toordinal(), into // _MICROSECOND


def band_contains(band: TimeBand, time_us: int) -> bool:
    """Return True if an instant (microseconds UTC) lies in a band."""
    day, into_us = local_day_and_offset(zone_of(band.timezone), time_us)
    for start, end in band.hours:
        start_us, end_us = start * MINUTE_US, end * MINUTE_US
        if start < end:
            if start_us <= into_us < end_us and day_counts(band, day):
                return True
        elif (into_us >= start_us and day_counts(band, day)) or (into_us < end_us and day_counts(band, day - 1)):
            return True
    return False


@dataclass(frozen=True, slots=True)
class BandReason:
    """Reason why an instant is in a band or not: the local time that decided, and the day whose hours were checked."""

    inside: bool
    local_time: str
    day: str
    why: str


def band_reason(band: TimeBand, time_us: int) -> BandReason:
    """Return the answer of :func:`band_contains` with its reason in words."""
    zone = zone_of(band.timezone)
    today, into_us = local_day_and_offset(zone, time_us)
    local = (_EPOCH + timedelta(microseconds=min(max(time_us, _FIRST_US), _LAST_US))).astimezone(zone)
    hit: tuple[bool, int, str] | None = None
    for start, end in band.hours:
        start_us, end_us = start * MINUTE_US, end * MINUTE_US
        days = [today] if into_us >= start_us and (start > end or into_us < end_us) else []
        days += [today - 1] if start > end and into_us < end_us else []
        for day in days:
            counts = day_counts(band, day)
            if hit is None or (counts and not hit[0]):
                hit = (counts, day, _hours_text(start, end))
    if hit is None:
        listed = ", ".join(_hours_text(start, end) for start, end in band.hours)
        hit, why = (False, today, ""), f"{local:%H:%M} is outside {listed}"
    else:
        inside, day, hours = hit
        why = f"{hours}, {_day_text(band, day, inside)}" if inside else _day_text(band, day, inside)
    return BandReason(hit[0], local.isoformat(), date.fromordinal(hit[1]).isoformat(), why)


def _hours_text(start: int, end: int) -> str:
    return f"{start // 60:02d}:{start % 60:02d}-{end // 60:02d}:{end % 60:02d}"


def _day_text(band: TimeBand, day: int, inside: bool) -> str:
    """Return the reason why the hours of a band begin on a day or not."""
    name = DAYS[(day - 1) % 7]
    if day in band.off:
        return f"{date.fromordinal(day)} ({name}) is off in {band.excepts}"
    if day in band.work and name in DAYS[5:]:
        return f"{date.fromordinal(day)} ({name}) is a working day in {band.excepts}" + (
            "" if inside else ", and the band has no day from mon to fri"
        )
    listed = ", ".join(DAYS[index] for index in band.days)
    return name if inside else f"{name} is not one of {listed}"


def band_intervals(band: TimeBand, from_us: int, until_us: int) -> tuple[tuple[int, int], ...]:
    """Return the instants of a band within ``[from_us, until_us)`` as sorted, separate, half-open UTC intervals.

    Agrees with :func:`band_contains` at every instant, and is meant for callers that look up many. Zone changes are
    found at whole seconds.
    """
    edges = sorted({from_us, *(edge for edge in _edges(band, from_us, until_us) if from_us < edge < until_us)})
    intervals: list[tuple[int, int]] = []
    for edge, following in zip(edges, [*edges[1:], until_us], strict=True):
        if edge >= following or not band_contains(band, edge):
            continue
        if intervals and intervals[-1][1] == edge:
            intervals[-1] = (intervals[-1][0], following)
        else:
            intervals.append((edge, following))
    return tuple(intervals)


def _edges(band: TimeBand, from_us: int, until_us: int) -> Iterator[int]:
    """Yield every instant at which membership may change: wall-clock edges of local days, and changes of the zone."""
    zone = zone_of(band.timezone)
    minutes = {minute % ALL_DAY_MINUTES for hours in band.hours for minute in hours} | {0}
    first_day, _ = local_day_and_offset(zone, from_us)
    last_day, _ = local_day_and_offset(zone, until_us)
    for ordinal in range(first_day - 1, last_day + 2):
        midnight = datetime.combine(datetime.fromordinal(ordinal), _MIDNIGHT)
        for minute in minutes:
            for fold in (0, 1):
                local = (midnight + timedelta(minutes=minute)).replace(tzinfo=zone, fold=fold)
                yield (local - _EPOCH) // _MICROSECOND
        day_us = (ordinal - _ORDINAL_1970) * DAY_US
        yield from _zone_change(zone, day_us, day_us + DAY_US)


def _zone_change(zone: ZoneInfo, from_us: int, until_us: int) -> Iterator[int]:
    """Yield the second at which the zone's offset changes between two instants, if it does."""

    def offset(time_us: int) -> timedelta | None:
        return (_EPOCH + timedelta(microseconds=time_us)).astimezone(zone).utcoffset()

    before = offset(from_us)
    if before == offset(until_us):
        return
    low, high = from_us // 1_000_000, until_us // 1_000_000
    while high - low > 1:
        middle = (low + high) // 2
        if offset(middle * 1_000_000) == before:
            low = middle
        else:
            high = middle
    yield high * 1_000_000


@lru_cache(maxsize=64)
def band_sets(bands: tuple[TimeBand, ...], spans: tuple[tuple[int, int], ...]) -> frozenset[frozenset[str]]:
    """Return every set of bands that applies at some instant of the spans, with the empty set where it occurs."""
    found: set[frozenset[str]] = set()
    for from_us, until_us in spans:
        starts: dict[int, list[str]] = {from_us: []}
        ends: dict[int, list[str]] = {}
        for band in bands:
            for start, end in band_intervals(band, from_us, until_us):
                starts.setdefault(start, []).append(band.name)
                ends.setdefault(end, []).append(band.name)
        active: set[str] = set()
        for instant in sorted({*starts, *ends}):
            active.difference_update(ends.get(instant, ()))
            active.update(starts.get(instant, ()))
            if instant < until_us:
                found.add(frozenset(active))
    return frozenset(found)
