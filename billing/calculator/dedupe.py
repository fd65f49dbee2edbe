"""Recognition of duplicates in plain Python: by sequence number for numbered sources, by hash for the others.

Owns: the partition's memory of identities. Never: prices, SQL. An identity is (account, source, id). An event occupies
its identity only when it is rated. The number of a rejected event counts as seen, but an event with that number can
still be rated (docs/reference/principles.md, "Identity").
"""

import struct
from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field

from billing.commits.commit_record import Finding, PartitionState
from billing.commits.identities import RECENT_NUMBERS, DedupeChange, HashHour, RecentNumbers, SourceState
from billing.log_time import IdentityRules, identity_rules
from schemas.hashing import content_hash32, id_hash32, id_hash32_without_account, identity_hash
from schemas.refusals import Refusal
from schemas.times import HOUR_US
from schemas.usage import UsageEvent

RECENT = struct.Struct("<QII")
HASHED = struct.Struct("<16sI")
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
    :meth:`decide_by` apply from then on; at first those of the default limits.
    """

    def __init__(self, state: PartitionState | None = None) -> None:
        self._rules = identity_rules(None)
        self._sources: dict[str, _Source] = {}
        self._hours: dict[int, dict[bytes, int]] = {}
        self._touched: dict[str, list[bytes]] = {}
        self._hashed: dict[int, list[bytes]] = {}
        if state is None:
            return
        for stored in state.sources:
            self._sources[stored.source] = _Source(stored.numbered, NumberRuns(stored.seen_runs), set(stored.refused))
        for recent in state.recent:
            for number, id_hash, content_hash in RECENT.iter_unpack(recent.payload):
                self._sources[recent.source].remember(number, id_hash, content_hash)

    def decide_by(self, rules: IdentityRules) -> None:
        """Use these rules from now on."""
        self._rules = rules

    def numbered(self, event: UsageEvent) -> bool:
        """Return True if the event's source is numbered. Its first rated event decides that, which may be this one."""
        known = self._sources.get(event.source)
        if known is None or (known.undecided and self._rules.names_account):
            return event.sequence is not None
        return known.numbered

    def missing_hours(self, events: list[UsageEvent]) -> list[int]:
        """Return the hours of event time that unnumbered events may need and that are not in memory, sorted.

        Events of undecided sources count too: an earlier event of the batch may make the source unnumbered.
        """
        hours = set()
        for event in events:
            known = self._sources.get(event.source)
            if known is None or not known.numbered or known.undecided:
                hours.add(event.time_us - event.time_us % HOUR_US)
        return sorted(hours - self._hours.keys())

    def put_hour(self, hour_us: int, stored: list[HashHour]) -> None:
        """Load one hour of identities: everything that SQL holds for it."""
        hashes = self._hours[hour_us] = {}
        for part in stored:
            for identity, content_hash in HASHED.iter_unpack(part.payload):
                hashes[identity] = content_hash

    def hours_held(self) -> list[tuple[int, int]]:
        """Return (hour_us, approximate bytes in memory) for each hour of identities, sorted."""
        return sorted((hour_us, len(hour) * HELD_BYTES) for hour_us, hour in self._hours.items())

    def drop_hour(self, hour_us: int) -> None:
        """Remove an hour of identities that is stored in SQL; :meth:`put_hour` loads it again when needed."""
        del self._hours[hour_us]

    def look(self, event: UsageEvent, findings: list[Finding]) -> str | Refusal:
        """Return ``NEW``, ``DUPLICATE``, ``CONFLICT`` or a rejection; append a finding where a number was reused."""
        source = self._sources.get(event.source)
        if not self._rules.names_account and source is None:
            # Releases without this rule let the first event of a source decide, even if it was rejected.
            source = self._sources[event.source] = _Source(event.sequence is not None)
            self._touched.setdefault(event.source, [])
        if not self.numbered(event):
            return self._look_by_hash(event)
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

    def _look_by_hash(self, event: UsageEvent) -> str:
        hour = self._hours.setdefault(event.time_us - event.time_us % HOUR_US, {})
        known = hour.get(self._identity(event))
        if known is None and self._rules.names_account:
            known = hour.get(identity_hash(event.source, event.id))  # rated before the account was part of it
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

    def rated(self, event: UsageEvent) -> None:
        """Record that the event was rated; its identity is occupied permanently.

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
        self._hours.setdefault(hour_us, {})[identity] = content_hash
        self._hashed.setdefault(hour_us, []).append(HASHED.pack(identity, content_hash))

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
        change.hours = [HashHour(hour_us, b"".join(self._hashed[hour_us])) for hour_us in sorted(self._hashed)]
        self._touched, self._hashed = {}, {}
        return change


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
