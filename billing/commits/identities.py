"""The identities that one commit remembers, for deduplication."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SourceState:
    """What a partition remembers of one numbered or unnumbered source.

    ``seen_runs`` are the numbers seen, as sorted disjoint closed runs; ``refused`` the seen numbers whose event was
    rejected (a resend of those is rated once). Both are empty for an unnumbered source.
    """

    source: str
    numbered: bool
    seen_runs: tuple[tuple[int, int], ...] = ()
    refused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class RecentNumbers:
    """Hashes of recently rated numbers of one source: ``payload`` is packed little-endian
    (sequence u64, id hash u32, content hash u32) per event, in commit order."""

    source: str
    highest: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class HashHour:
    """Identities of unnumbered sources filed under one hour of event time: ``payload`` packs 16-byte identity hash
    and u32 content hash (little-endian) per event."""

    hour_us: int
    payload: bytes


@dataclass(slots=True)
class DedupeChange:
    """What one commit adds to the partition's memory of identities."""

    sources: list[SourceState] = field(default_factory=list)
    """New complete state of each source this commit touched."""
    recent: list[RecentNumbers] = field(default_factory=list)
    hours: list[HashHour] = field(default_factory=list)
