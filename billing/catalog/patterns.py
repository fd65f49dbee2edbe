"""Patterns of a dimension, and the rank that decides which row wins (docs/reference/price-books.md, "Winning row").

The dimensions in order: model, hardware tier, energy source, site, channel, service tier, time band, context, output
length, then the dimensions that the book declares. The "other dimensions" that a row may fix are those after the
model. A band of time, context or output length counts as fixed if it is given, however wide it is; of two bands neither
is more specific. ``outcome`` selects the events that a row prices and does not make the row more specific. Keeps no
state.
"""

from collections.abc import Iterable, Mapping

from billing.catalog.model import TEXT_DIMENSIONS, PriceRow

ANY = "*"


def pattern_matches(pattern: str, value: str) -> bool:
    """Return True if a value matches an exact text, ``prefix*`` or ``*``."""
    if pattern.endswith(ANY):
        return value.startswith(pattern[:-1])
    return value == pattern


def pattern_rank(pattern: str) -> int:
    """Return how specific a pattern is: 0 for ``*``, its length for ``prefix*``, and more than that for exact text."""
    if pattern == ANY:
        return 0
    return len(pattern) if pattern.endswith(ANY) else 1 << 62


def row_rank(row: PriceRow) -> tuple[int, ...]:
    """Return a key that is greater for the row that wins; equal keys are a tie."""
    model, *others = (pattern_rank(pattern) for pattern in row.patterns[: len(TEXT_DIMENSIONS)])
    others += [int(band is not None) for band in (row.time_band, row.context, row.output_context)]
    others += [pattern_rank(pattern) for pattern in row.declared]
    return (model, sum(rank > 0 for rank in others), *others)


def scope_matches(scope: Mapping[str, Iterable[str]], dimensions: Mapping[str, str]) -> bool:
    """Return True if every dimension in a scope has a pattern that matches. An empty scope matches everything."""
    return all(any(pattern_matches(p, dimensions[name]) for p in patterns) for name, patterns in scope.items())
