"""Identities of usage events that a commit stores for deduplication."""

from dataclasses import dataclass, field

RECENT_NUMBERS = 65_536
"""Count of a source's highest numbers whose hashes are kept (docs/reference/principles.md, "Identity")."""


@dataclass(frozen=True, slots=True)
class SourceState:
    """Deduplication state of one numbered or unnumbered source in one partition.

    ``seen_runs`` holds the numbers seen, as sorted, disjoint, closed ranges. ``refused`` holds those seen numbers whose
    event was rejected; if such an event is sent again, it is rated once. Both are empty for an unnumbered source.
    """

    source: str
    numbered: bool
    seen_runs: tuple[tuple[int, int], ...] = ()
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RecentNumbers:
    """Hashes of the recently rated numbers of one source.

    ``payload`` packs (sequence u64, id hash u32, content hash u32) for each event, little-endian, in commit order.
    """

    source: str
    highest: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class HashHour:
    """Identities of events of unnumbered sources within one hour of event time.

    ``payload`` packs a 16-byte identity hash and a u32 content hash (little-endian) for each event.
    """

    hour_us: int
    payload: bytes


@dataclass(slots=True)
class DedupeChange:
    """Identities that one commit adds to the deduplication state of its partition."""

    sources: list[SourceState] = field(default_factory=list)
    """The complete new state of each source that this commit changed."""
    recent: list[RecentNumbers] = field(default_factory=list)
    hours: list[HashHour] = field(default_factory=list)
