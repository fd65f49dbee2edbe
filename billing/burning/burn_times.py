"""Burn times of one hour: how much of a unit was burned when, as text ``SUM OFFSET:MICRO OFFSET:MICRO …``.

``SUM`` is the total of the hour in micro. Each entry is an offset in microseconds from the start of the hour and the
micro burned then; entries are sorted by offset. Example: ``30 1000000:10 2500000:20``.

An hour has an entry for each microsecond with burns, and at most :data:`MAX_BURNS_AN_HOUR` entries. When there are
more, the burns of each second become one entry, at the time of the last of them. :func:`merged` does the same for a
longer grain, such as a quarter of an hour.

The exact times within a merged entry are lost. A window that begins between its first and its last burn counts the
whole entry, perhaps too much. So usage later than the burns never gets more than the cap. Windows are
:mod:`billing.burning.windows`.
"""

from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, groupby

from schemas.times import HOUR_US, MINUTE_US, SECOND_US

QUARTER_US = 15 * MINUTE_US
"""A quarter of an hour. Midnight of every time zone falls on one, so merging by it keeps fixed windows exact."""
MAX_BURNS_AN_HOUR = 2 * HOUR_US // SECOND_US
"""Maximum number of separate burns in one hour: two per second. The text is then at most 200 kB."""


def sum_micro(text: str) -> int:
    """Return the total burned in the hour, in micro."""
    return int(text[: text.index(" ")])


def burns(text: str) -> int:
    """Return the number of separate burns in the hour."""
    return text.count(":")


def between_micro(text: str, first_us: int, last_us: int) -> int:
    """Return the micro burned between two offsets, both included."""
    if first_us <= 0 and last_us >= _last(text)[0]:
        return sum_micro(text)
    offsets, sums = _entries(text)
    return sums[bisect_right(offsets, last_us)] - sums[bisect_left(offsets, first_us)]


def first_us(text: str, begins_us: int, ends_us: int) -> int | None:
    """Return the offset of the first burn between two offsets, both included; None if there is none."""
    return next((offset_us for offset_us, _ in _pairs(text) if begins_us <= offset_us <= ends_us), None)


def noted(text: str | None, offset_us: int, micro: int) -> str:
    """Return the text with one more burn; ``text`` is None for an hour without burns."""
    if text is None:
        return f"{micro} {offset_us}:{micro}"
    last_us, last_micro = _last(text)
    if offset_us < last_us:
        text = _written(sorted([*_pairs(text), (offset_us, micro)]))
    else:
        end = text.rindex(" ") if offset_us == last_us else len(text)
        latest_micro = micro + last_micro if offset_us == last_us else micro
        text = f"{sum_micro(text) + micro}{text[text.index(' ') : end]} {offset_us}:{latest_micro}"
    return merged(text, SECOND_US) if burns(text) > MAX_BURNS_AN_HOUR else text


def merged(text: str, grain_us: int) -> str:
    """Return the text with the burns of each grain merged into one, at the time of the last of them."""
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
    """Return the offsets and the cumulative micro burned before each of them, with the total as the last element.

    Cached, because the hour in which a rolling window begins is read repeatedly.
    """
    pairs = _pairs(text)
    return [offset_us for offset_us, _ in pairs], list(accumulate((micro for _, micro in pairs), initial=0))
