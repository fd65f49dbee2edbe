"""Patterns of a dimension and the order in which rows win (CONTRACT §3, "Winner"). Plain and without state.

The dimensions in order: model, hardware tier, energy source, site, channel, service tier, time band, context. The
"other dimensions" that a row may fix are the seven after the model. A time band or a context band is fixed when it is
given, whatever it spans; between two bands neither is more specific. ``outcome`` says which events a row prices at all
and does not make it more specific.
"""

from collections.abc import Iterable, Mapping

from billing.catalog.model import PriceRow

ANY = "*"


def pattern_matches(pattern: str, value: str) -> bool:
    """Whether a value matches an exact text, ``prefix*`` or ``*``."""
    if pattern.endswith(ANY):
        return value.startswith(pattern[:-1])
    return value == pattern


def pattern_rank(pattern: str) -> int:
    """How specific a pattern is: ``*`` 0, a prefix its length in characters + 1, exact more than any prefix."""
    if pattern == ANY:
        return 0
    return len(pattern) if pattern.endswith(ANY) else 1 << 62


def row_rank(row: PriceRow) -> tuple[int, ...]:
    """A key that is greater for the row that wins; equal keys are a tie."""
    model, *others = (pattern_rank(pattern) for pattern in row.patterns)
    others += [int(row.time_band is not None), int(row.context is not None)]
    return (model, sum(rank > 0 for rank in others), *others)


def scope_matches(scope: Mapping[str, Iterable[str]], dimensions: Mapping[str, str]) -> bool:
    """Whether every dimension in a scope has a pattern that matches; an empty scope matches everything."""
    return all(any(pattern_matches(p, dimensions[name]) for p in patterns) for name, patterns in scope.items())
