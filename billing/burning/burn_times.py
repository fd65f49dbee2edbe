"""When standard tokens were burned, within one hour: the text ``SUM OFFSET:MICRO OFFSET:MICRO …``, by offset.

Owns: that text. Offsets are microseconds from the hour's start. A burn is known to the microsecond while the hour has
at most :data:`MOST_OF_AN_HOUR`; beyond that, and where :func:`merged` was asked for, the burns of a second (a quarter
of an hour) are one, at the time of the last of them: a window that begins among them still counts them all, so usage
after them never gets more than the cap. Never: which windows there are.
"""

from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, groupby

from schemas.times import HOUR_US, MINUTE_US

SECOND_US = 1_000_000
QUARTER_US = 15 * MINUTE_US
"""Every zone's midnight is on a quarter of an hour: windows of weeks and months are exact with these too."""
MOST_OF_AN_HOUR = 2 * HOUR_US // SECOND_US
"""Of one hour: two a second. Their text is at most 200 kB."""


def sum_micro(text: str) -> int:
    """All that was burned in the hour."""
    return int(text[: text.index(" ")])


def burns(text: str) -> int:
    """How many burns the hour knows apart."""
    return text.count(":")


def between_micro(text: str, first_us: int, last_us: int) -> int:
    """What was burned between two offsets, both included."""
    if first_us <= 0 and last_us >= _last(text)[0]:
        return sum_micro(text)
    offsets, sums = _entries(text)
    return sums[bisect_right(offsets, last_us)] - sums[bisect_left(offsets, first_us)]


def noted(text: str | None, offset_us: int, micro: int) -> str:
    """The hour with one burn more."""
    if text is None:
        return f"{micro} {offset_us}:{micro}"
    last_us, last_micro = _last(text)
    if offset_us < last_us:
        text = _written(sorted([*_pairs(text), (offset_us, micro)]))
    else:
        end = text.rindex(" ") if offset_us == last_us else len(text)
        latest_micro = micro + last_micro if offset_us == last_us else micro
        text = f"{sum_micro(text) + micro}{text[text.index(' ') : end]} {offset_us}:{latest_micro}"
    return merged(text, SECOND_US) if burns(text) > MOST_OF_AN_HOUR else text


def merged(text: str, grain_us: int) -> str:
    """The hour with the burns of each grain as one, at the time of the last of them."""
    return _written(_pairs(text), grain_us)


def _last(text: str) -> tuple[int, int]:
    offset_us, _, micro = text[text.rindex(" ") + 1 :].partition(":")
    return int(offset_us), int(micro)


def _pairs(text: str) -> list[tuple[int, int]]:
    return [(int(offset_us), int(micro)) for offset_us, _, micro in (one.partition(":") for one in text.split(" ")[1:])]


def _written(pairs: list[tuple[int, int]], grain_us: int = 1) -> str:
    grains = [list(grain) for _, grain in groupby(pairs, lambda pair: pair[0] // grain_us)]
    burned = [(grain[-1][0], sum(micro for _, micro in grain)) for grain in grains]
    return " ".join([str(sum(micro for _, micro in burned)), *(f"{offset_us}:{micro}" for offset_us, micro in burned)])


@lru_cache(maxsize=64)
def _entries(text: str) -> tuple[list[int], list[int]]:
    """Offsets, and for each how much was burned before it; last, all. Remembered: the hour that a rolling window begins
    in is asked for again and again."""
    pairs = _pairs(text)
    return [offset_us for offset_us, _ in pairs], list(accumulate((micro for _, micro in pairs), initial=0))
