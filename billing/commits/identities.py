"""Identities of usage events that a commit stores for deduplication."""

from dataclasses import dataclass, field

HASHED_BYTES = 20
"""Bytes of one identity in a payload of :class:`HashHour`."""
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
    """Identities of events of unnumbered sources within one hour of event time, rated in one hour of log time.

    ``payload`` packs a 16-byte identity hash and a u32 content hash (little-endian) for each event.
    """

    hour_us: int
    payload: bytes
    log_hour_us: int | None = None
    """None if a release rated them that did not record the hour of log time."""


@dataclass(frozen=True, slots=True)
class LogPart:
    """Identities of unnumbered sources that consecutive commits rated in one hour of log time.

    It is the unit in which they leave memory and are read again.
    """

    log_hour_us: int
    first_commit: int
    last_commit: int


@dataclass(frozen=True, slots=True)
class PartHeld:
    """A part in memory: the bytes of its identities, and those of the filter that stands for them."""

    part: LogPart
    identities_bytes: int
    filter_bytes: int


@dataclass(slots=True)
class DedupeChange:
    """Identities that one commit adds to the deduplication state of its partition."""

    sources: list[SourceState] = field(default_factory=list)
    """The complete new state of each source that this commit changed."""
    recent: list[RecentNumbers] = field(default_factory=list)
    hours: list[HashHour] = field(default_factory=list)
