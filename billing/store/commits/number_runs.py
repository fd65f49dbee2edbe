"""``bytea`` encoding of the numbers seen of a source: little-endian unsigned 64-bit integers."""

from collections.abc import Iterable
from struct import Struct

_RUN = Struct("<QQ")
_NUMBER = Struct("<Q")


def pack_runs(runs: Iterable[tuple[int, int]]) -> bytes:
    """Encode closed ranges (first, last), in order."""
    return b"".join(_RUN.pack(first, last) for first, last in runs)


def unpack_runs(data: bytes) -> tuple[tuple[int, int], ...]:
    """Decode the result of :func:`pack_runs`."""
    return tuple((first, last) for first, last in _RUN.iter_unpack(data))


def pack_numbers(numbers: Iterable[int]) -> bytes:
    """Encode single numbers, in order."""
    return b"".join(map(_NUMBER.pack, numbers))


def unpack_numbers(data: bytes) -> tuple[int, ...]:
    """Decode the result of :func:`pack_numbers`."""
    return tuple(number for (number,) in _NUMBER.iter_unpack(data))


def without_numbers(runs: Iterable[tuple[int, int]], numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return closed ranges without some of their numbers. Both are sorted, and every number is in a range."""
    left: list[tuple[int, int]] = []
    ahead = iter(numbers)
    number = next(ahead, None)
    for first, last in runs:
        while number is not None and number <= last:
            if first < number:
                left.append((first, number - 1))
            first, number = number + 1, next(ahead, None)
        if first <= last:
            left.append((first, last))
    return left
