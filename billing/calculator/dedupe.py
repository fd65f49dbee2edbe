"""Recognition of duplicates in plain Python: by sequence number for numbered sources, by hash for the others.

Owns: the partition's memory of identities. Never: prices, SQL. An identity is (account, source, id). An event occupies
its identity only when it is rated. The number of a rejected event counts as seen, but an event with that number can
still be rated (docs/reference/principles.md, "Identity").
"""

import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from billing.commits.commit_record import Finding, PartitionState
from billing.commits.identities import (
    RECENT_NUMBERS,
    DedupeChange,
    HashHour,
    LogPart,
    PartHeld,
    RecentNumbers,
    SourceState,
)
from billing.log_time import IdentityRules, identity_rules
from schemas.hashing import content_hash32, id_hash32, id_hash32_without_account, identity_hash
from schemas.refusals import Refusal
from schemas.times import HOUR_US
from schemas.usage import UsageEvent

RECENT = struct.Struct("<QII")
HASHED = struct.Struct("<16sI")  # HASHED_BYTES
HELD_BYTES = 160
"""Approximate memory of one identity in a Python dictionary, in bytes."""
DUPLICATE = "duplicate"
CONFLICT = "conflict"
"""A duplicate whose content differs from what was rated."""
NEW = "new"


class NumberRuns:
    """A set of positive integers as sorted, disjoint, non-adjacent closed runs."""

    __slots__ = ("count", "first", "last")

    def __init__(self, runs: tuple[tuple[int, int], ...] = ()) -> None:
        self.first = [first for first, _ in runs]
        self.last = [last for _, last in runs]
        self.count = sum(last - first + 1 for first, last in runs)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self.first, number) - 1
        return at >= 0 and number <= self.last[at]

    def add(self, number: int) -> None:
        """Add one number and join runs that become adjacent."""
        at = bisect_right(self.first, number) - 1
        if at >= 0 and number <= self.last[at]:
            return
        self.count += 1
        joins_left = at >= 0 and self.last[at] == number - 1
        joins_right = at + 1 < len(self.first) and self.first[at + 1] == number + 1
        if joins_left and joins_right:
            self.last[at] = self.last[at + 1]
            del self.first[at + 1], self.last[at + 1]
        elif joins_left:
            self.last[at] = number
        elif joins_right:
            self.first[at + 1] = number
        else:
            self.first.insert(at + 1, number)
            self.last.insert(at + 1, number)

    def runs(self) -> tuple[tuple[int, int], ...]:
        """Return the runs in order, as (first, last)."""
        return tuple(zip(self.first, self.last, strict=True))

    @property
    def highest(self) -> int:
        """The highest number; 0 if there is none."""
        return self.last[-1] if self.last else 0


@dataclass(slots=True)
class _Part:
    """Identities rated in one hour of log time; ``known`` is None while they are not in memory."""

    log_hour_us: int
    first_commit: int
    last_commit: int
    known: dict[bytes, int] | None
    open: bool = True

    @property
    def part(self) -> LogPart:
        return LogPart(self.log_hour_us, self.first_commit, self.last_commit)


@dataclass(slots=True)
class _Source:
    numbered: bool
    """False if unnumbered. True also if the source is undecided: no event of it was rated, but numbers were seen."""
    seen: NumberRuns = field(default_factory=NumberRuns)
    refused: set[int] = field(default_factory=set)
    recent: "OrderedDict[int, tuple[int, int]]" = field(default_factory=OrderedDict)
    """Number to (id hash, content hash). Numbers up to ``highest - RECENT_NUMBERS`` are ignored and removed in bulk."""
    highest: int = 0
    """Highest rated number."""

    @property
    def undecided(self) -> bool:
        """True if no event was rated, so that the next rated event decides if the source is numbered."""
        return self.numbered and self.seen.count == len(self.refused)

    def remember(self, number: int, id_hash: int, content_hash: int) -> None:
        self.recent[number] = (id_hash, content_hash)
        self.highest = max(self.highest, number)
        if len(self.recent) > 2 * RECENT_NUMBERS:
            floor = self.highest - RECENT_NUMBERS
            for old in [known for known in self.recent if known <= floor]:
                del self.recent[old]

    def recall(self, number: int) -> tuple[int, int] | None:
        return self.recent.get(number) if number > self.highest - RECENT_NUMBERS else None


class Dedupe:
    """The memory of identities of one partition.

    Check an event with :meth:`look`; after the decision call :meth:`rated` or :meth:`refused`. The rules of
    :meth:`decide_by` apply from then on; at first those without a log.
    """

    def __init__(self, state: PartitionState | None = None) -> None:
        self._rules = identity_rules(None)
        self._commit_no = 0
        self._parts: list[_Part] = []
        self._unlogged_until_us = 0 if state is None else state.unlogged_until_us
        self._sources: dict[str, _Source] = {}
        self._hours: dict[int, dict[bytes, int]] = {}
        self._touched: dict[str, list[bytes]] = {}
        self._hashed: dict[tuple[int, int | None], list[bytes]] = {}
        """(hour of the event's time, hour of log time) to the packed identities of the commit."""
        if state is None:
            return
        for stored in state.sources:
            self._sources[stored.source] = _Source(stored.numbered, NumberRuns(stored.seen_runs), set(stored.refused))
        for recent in state.recent:
            for number, id_hash, content_hash in RECENT.iter_unpack(recent.payload):
                self._sources[recent.source].remember(number, id_hash, content_hash)

    def decide_by(self, rules: IdentityRules, commit_no: int = 0) -> None:
        """Use these rules from now on, for the commit of this number."""
        self._rules = rules
        self._commit_no = commit_no

    def numbered(self, event: UsageEvent) -> bool:
        """Return True if the event's source is numbered. Its first rated event decides that, which may be this one."""
        known = self._sources.get(event.source)
        if known is None or (known.undecided and self._rules.names_account):
            return event.sequence is not None
        return known.numbered

    def _may_be_unnumbered(self, event: UsageEvent) -> bool:
        """Return True also for an undecided source: an earlier event of the batch may make it unnumbered."""
        known = self._sources.get(event.source)
        return known is None or not known.numbered or known.undecided

    def has_unnumbered(self, events: Sequence[tuple[UsageEvent, int]]) -> bool:
        """Return True if a source is unnumbered, or would be by one of the events."""
        return any(
            self._may_be_unnumbered(event) and (event.sequence is None or not self.numbered(event))
            for event, _ in events
        )

    def missing_hours(self, events: Sequence[tuple[UsageEvent, int]]) -> list[int]:
        """Return the hours of event time that unnumbered events need and that are not in memory, sorted.

        ``events`` are pairs of an event and the log time of its record.
        """
        hours = {
            event.time_us - event.time_us % HOUR_US
            for event, log_time_us in events
            if self._may_be_unnumbered(event)
            and self._rules.by_event_hour(event.time_us, log_time_us, self._unlogged_until_us)
        }
        return sorted(hours - self._hours.keys())

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        """Load the identities of one hour of event time: everything that SQL holds for it."""
        hashes = self._hours[hour_us] = {}
        payloads = [part.payload for part in stored]
        payloads += [b"".join(packed) for (pending_us, _), packed in self._hashed.items() if pending_us == hour_us]
        for payload in payloads:
            hashes.update(HASHED.iter_unpack(payload))

    def hours_held(self) -> list[tuple[int, int]]:
        """Return (hour_us, approximate bytes in memory) for each hour of identities, sorted."""
        return sorted((hour_us, len(hour) * HELD_BYTES) for hour_us, hour in self._hours.items())

    def drop_hour(self, hour_us: int) -> None:
        """Remove an hour of event time; :meth:`put_hour` loads it again when needed."""
        del self._hours[hour_us]

    def missing_parts(self, events: Sequence[tuple[UsageEvent, int]]) -> list[LogPart]:
        """Return the parts that events of unnumbered sources are looked up in and that are not in memory."""
        since_us = [self._rules.window_us(log_us) for event, log_us in events if self._may_be_unnumbered(event)]
        if not since_us or not self._rules.names_account:
            return []
        return [one.part for one in self._parts if one.known is None and one.log_hour_us >= min(since_us)]

    def put_part(self, part: LogPart, payloads: list[bytes]) -> None:
        """Load the identities of a part; a part that was not known follows those that are."""
        found = next((one for one in self._parts if one.part == part), None)
        if found is None:
            found = _Part(part.log_hour_us, part.first_commit, part.last_commit, None, open=False)
            self._parts.append(found)
        found.known = {}
        for payload in payloads:
            found.known.update(HASHED.iter_unpack(payload))

    def parts_held(self) -> list[PartHeld]:
        """Return all parts, oldest first, with their approximate bytes in memory; the plain memory has no filters."""
        return [PartHeld(one.part, len(one.known or ()) * HELD_BYTES, 0) for one in self._parts]

    def shrink_part(self, part: LogPart) -> None:
        """Remove the identities of a part that is stored in SQL; :meth:`put_part` loads them again when needed."""
        for one in self._parts:
            if one.part == part:
                one.known, one.open = None, False

    def drop_part(self, part: LogPart) -> None:
        """Remove a part that is older than what is looked up."""
        self._parts = [one for one in self._parts if one.part != part]

    def look(self, event: UsageEvent, findings: list[Finding], log_time_us: int = 0) -> str | Refusal:
        """Return ``NEW``, ``DUPLICATE``, ``CONFLICT`` or a rejection; append a finding where a number was reused.

        ``log_time_us`` is the log time of the event's record.
        """
        source = self._sources.get(event.source)
        if not self._rules.names_account and source is None:
            # Releases without this rule let the first event of a source decide, even if it was rejected.
            source = self._sources[event.source] = _Source(event.sequence is not None)
            self._touched.setdefault(event.source, [])
        if not self.numbered(event):
            return self._look_by_hash(event, log_time_us)
        if event.sequence is None:
            return number_missing(event)
        seen = NumberRuns() if source is None else source.seen
        if event.sequence > seen.highest + self._rules.sequence_jump:
            return number_too_far(event, seen.highest, self._rules.sequence_jump)
        if source is None or event.sequence not in seen or event.sequence in source.refused:
            return NEW
        known = source.recall(event.sequence)
        if known is None:
            return DUPLICATE
        if known[0] != self._id_hash(event) and known[0] != id_hash32_without_account(event.id):
            return number_reused(event, findings)
        return DUPLICATE if known[1] == content_hash32(event) else CONFLICT

    def _look_by_hash(self, event: UsageEvent, log_time_us: int) -> str:
        identity, known = self._identity(event), None
        if self._rules.by_event_hour(event.time_us, log_time_us, self._unlogged_until_us):
            hour = self._hours.get(event.time_us - event.time_us % HOUR_US, {})
            known = hour.get(identity)
            if known is None:
                known = hour.get(identity_hash(event.source, event.id))  # rated before the account was part of it
        if known is None and self._rules.names_account:
            window_us = self._rules.window_us(log_time_us)
            for part in self._parts:
                if part.log_hour_us >= window_us and part.known is not None and identity in part.known:
                    known = part.known[identity]
        if known is None:
            return NEW
        return DUPLICATE if known == content_hash32(event) else CONFLICT

    def _identity(self, event: UsageEvent) -> bytes:
        if self._rules.names_account:
            return identity_hash(event.account, event.source, event.id)
        return identity_hash(event.source, event.id)

    def _id_hash(self, event: UsageEvent) -> int:
        if self._rules.names_account:
            return id_hash32(event.account, event.id)
        return id_hash32_without_account(event.id)

    def rated(self, event: UsageEvent, log_time_us: int = 0) -> None:
        """Record that the event was rated at this log time; its identity is occupied.

        The first rated event of a source decides if the source is numbered.
        """
        numbered = self.numbered(event)
        source = self._sources.get(event.source)
        if source is None or source.numbered != numbered:
            source = self._sources[event.source] = _Source(numbered)
            self._touched.setdefault(event.source, [])
        if numbered and event.sequence is not None:
            number, id_hash, content_hash = event.sequence, self._id_hash(event), content_hash32(event)
            source.seen.add(number)
            source.refused.discard(number)
            source.remember(number, id_hash, content_hash)
            self._touched.setdefault(event.source, []).append(RECENT.pack(number, id_hash, content_hash))
            return
        hour_us = event.time_us - event.time_us % HOUR_US
        identity, content_hash = self._identity(event), content_hash32(event)
        if hour_us in self._hours:
            self._hours[hour_us][identity] = content_hash
        log_hour_us = None
        if self._rules.names_account:
            log_hour_us = self._rules.log_hour_us(log_time_us)
            self._open_part(log_hour_us)[identity] = content_hash
        else:
            self._unlogged_until_us = max(self._unlogged_until_us, log_time_us)
        self._hashed.setdefault((hour_us, log_hour_us), []).append(HASHED.pack(identity, content_hash))

    def _open_part(self, log_hour_us: int) -> dict[bytes, int]:
        """Return the identities of the part of this hour that takes new ones; it includes the current commit."""
        last = self._parts[-1] if self._parts else None
        known = None if last is None or not last.open or last.log_hour_us != log_hour_us else last.known
        if last is None or known is None:
            known = {}
            last = _Part(log_hour_us, self._commit_no, self._commit_no, known)
            self._parts.append(last)
        last.last_commit = self._commit_no
        return known

    def refused(self, rejection: Refusal) -> None:
        """Record that an event was rejected.

        Its number, if one could be read, counts as seen, but an event with that number can still be rated. A number
        refused as ``sequence_reused`` stays occupied. A number that is too far ahead is not recorded.
        """
        if rejection.source is None or rejection.sequence is None or rejection.code == "sequence_reused":
            return
        source = self._sources.get(rejection.source) or _Source(True)
        if not source.numbered or rejection.sequence in source.seen:
            return
        if rejection.sequence > source.seen.highest + self._rules.sequence_jump:
            return
        self._sources[rejection.source] = source
        source.seen.add(rejection.sequence)
        source.refused.add(rejection.sequence)
        self._touched.setdefault(rejection.source, [])

    def take_change(self) -> DedupeChange:
        """Return the changes since the last call, for the commit."""
        change = DedupeChange()
        for name in sorted(self._touched):
            source, packed = self._sources[name], self._touched[name]
            change.sources.append(SourceState(name, source.numbered, source.seen.runs(), tuple(sorted(source.refused))))
            if packed:
                change.recent.append(RecentNumbers(name, source.highest, b"".join(packed)))
        change.hours = [
            HashHour(hour_us, b"".join(packed), log_hour_us)
            for (hour_us, log_hour_us), packed in sorted(self._hashed.items(), key=lambda item: _hours_of(item[0]))
        ]
        self._touched, self._hashed = {}, {}
        return change


def _hours_of(key: tuple[int, int | None]) -> tuple[int, int]:
    return key[0], -1 if key[1] is None else key[1]


def number_missing(event: UsageEvent) -> Refusal:
    """Return the rejection of an event without a number from a numbered source."""
    detail = f"sequence: missing; source {event.source!r} numbers its events, so each needs its number"
    return event.refuse("invalid_event", detail)


def number_too_far(event: UsageEvent, highest: int, jump: int) -> Refusal:
    """Return the rejection of an event whose number exceeds the highest one of its source by more than the limit."""
    detail = (
        f"sequence: {event.sequence} is more than {jump} above {highest}, the highest number seen of source "
        f"{event.source!r} on this partition; number its events from 1, one after the other"
    )
    return event.refuse("invalid_event", detail)


def number_reused(event: UsageEvent, findings: list[Finding]) -> Refusal:
    """Return the rejection of an event whose number belongs to another event of its source, and add a finding."""
    detail = (
        f"sequence: {event.sequence} of source {event.source!r} was used before, not by id {event.id!r} of account "
        f"{event.account!r}"
    )
    findings.append(Finding("sequence_reused", detail))
    return event.refuse("sequence_reused", detail)
