"""Sources of events: which are the product's own, and which a key of the HTTP API may use. Holds no state."""

OWN_SOURCES = "urn:tokenbill:"
"""Prefix of the sources of the product's own records. Every other record with such a source is refused."""
SEGMENT_ENDS = ":/#"
"""Characters that end a segment of a source: a prefix matches whole segments only."""


def is_own(source: str | None) -> bool:
    """Return True if the source is one of the product's own."""
    return source is not None and source.startswith(OWN_SOURCES)


def covers(prefix: str, source: str) -> bool:
    """Return True if a source is the prefix itself, or the prefix and further segments.

    ``urn:worker:a`` covers ``urn:worker:a``, ``urn:worker:a:7``, ``urn:worker:a/7`` and ``urn:worker:a#p3``, but not
    ``urn:worker:ab``. A prefix that ends with a separator covers what follows it.
    """
    if not source.startswith(prefix):
        return False
    return len(source) == len(prefix) or prefix[-1] in SEGMENT_ENDS or source[len(prefix)] in SEGMENT_ENDS


def overlap(one: str, other: str) -> bool:
    """Return True if some source is covered by both prefixes."""
    return covers(one, other) or covers(other, one)


def may_be_prefix(prefix: str) -> bool:
    """Return True if a key may be bound to a prefix: it is not empty, and not within the product's own sources."""
    return bool(prefix) and not is_own(prefix) and prefix != OWN_SOURCES[:-1]
