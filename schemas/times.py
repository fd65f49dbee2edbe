"""Instants: RFC 3339 text to and from integer microseconds since 1970 UTC. Never reads a clock."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_time_us(text: str) -> int:
    """Return an RFC 3339 instant with offset as microseconds since 1970 UTC; finer digits are cut off.

    Raises:
        ValueError: the text is not such an instant (an offset is required), or its date does not exist.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an RFC 3339 time with offset such as 2026-11-22T01:15:03.412Z")
    year, month, day, hour, minute, second = (int(match.group(i)) for i in range(1, 7))
    micros = int((match.group(7) or "0").ljust(9, "0")[:6])
    zone = match.group(8)
    offset_minutes = 0
    if zone not in "Zz":
        zone_hours, zone_minutes = int(zone[1:3]), int(zone[4:6])
        if zone_hours > 23 or zone_minutes > 59:
            raise ValueError(f"{text!r} has an offset that does not exist")
        offset_minutes = (zone_hours * 60 + zone_minutes) * (-1 if zone[0] == "-" else 1)
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1) + micros - offset_minutes * MINUTE_US


def format_time_us(value_us: int) -> str:
    """Return an instant as RFC 3339 text in UTC with ``Z``, with microseconds only if they are not zero."""
    second, micros = divmod(value_us, SECOND_US)
    return f"{_second_text(second)}.{micros:06d}Z" if micros else f"{_second_text(second)}Z"


@lru_cache(maxsize=4096)  # many instants share a second
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).isoformat()[: -len("+00:00")]
