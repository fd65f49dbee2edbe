"""Splits the counts of a usage object, by role, into disjoint meters: one rule for all dialects.

Meters are disjoint: they add up to the totals, and none is negative. Providers include cached tokens in the input and
reasoning tokens in the output, or not (:class:`~schemas.dialects.dialect_table.Dialect`), and leave out what they do
not know. Tokens without details count as uncached text that is not reasoning. Parts greater than their total, totals
that do not add up, and two names of the same count with different values are ``usage_mismatch``: nothing is repaired
by a guess (docs/reference/usage-events.md, "Dialects").

cython_ext/dialects.hpp is the compiled twin of this module, for usage that is not refused.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.dialects.dialect_table import Dialect, LeafRow, Role, rows_of
from schemas.refusals import Refused

Found = Mapping[str, tuple[int, str]]
"""Count and place in the object of the rows that were found, by their path."""

CACHE_PLACE, REASONING_PLACE, TOTAL_SUM = "cache", "reasoning", "total"
"""Matters that a refused object may count otherwise than its dialect says."""


class Mismatch(Refused):
    """Counts contradict each other; ``otherwise`` is what another dialect counts otherwise, or None."""

    def __init__(self, detail: str, otherwise: str | None = None) -> None:
        super().__init__("usage_mismatch", detail)
        self.otherwise = otherwise


@dataclass(frozen=True, slots=True)
class Amount:
    """The count of a role and its place in the object; ``given`` is False where it is absent and so 0."""

    count: int
    place: str
    given: bool


class CountGroup:
    """The counts of one group of a usage object by role, and what its cache read and wrote.

    ``known`` are the cached tokens that are given by modality; ``cached`` all of them; ``hour`` those of ``written``
    that are kept for an hour, the rest is kept for five minutes.

    Raises:
        Mismatch: two rows of a role differ and neither is 0, or the parts of the cache do not add up.
    """

    def __init__(self, dialect: Dialect, name: str, found: Found, path: str) -> None:
        self.dialect = dialect
        self._amounts: dict[Role, Amount] = {}
        for role in Role:
            if role not in (Role.METER, Role.NOT_BILLED):
                rows = rows_of(dialect, role, name)
                self._amounts[role] = agreed(rows, found, f"{path}.{rows[0].path}" if rows else str(role))
        kinds = (Role.CACHED_TEXT, Role.CACHED_AUDIO, Role.CACHED_IMAGE, Role.CACHED_VIDEO)
        self.known = sum(self.count(role) for role in kinds)
        self.written, self.hour = _written(self)
        self.cached = _cached(self)

    def of(self, role: Role) -> Amount:
        """Return the amount of a role."""
        return self._amounts[role]

    def count(self, role: Role) -> int:
        """Return the count of a role, 0 where it is absent."""
        return self._amounts[role].count

    def part_of_total(self, role: str) -> int:
        """Return what a role adds to the grand total."""
        if role == Role.CACHED:
            return self.cached
        return self.written if role == Role.WRITTEN else self.count(Role(role))


def agreed(rows: Iterable[LeafRow], found: Found, first: str) -> Amount:
    """Return the one count that rows name; zeros are treated as absent, and rows that add are added before.

    Raises:
        Mismatch: two counts differ, and neither is 0.
    """
    names: list[tuple[int, str]] = []
    added, place = 0, ""
    for row in rows:
        if row.path in found:
            count, where = found[row.path]
            if row.add:
                added, place = added + count, place or where
            else:
                names.append((count, where))
    if place:
        names.append((added, place))
    if not names:
        return Amount(0, first, False)
    given = [name for name in names if name[0]]
    for count, where in given[1:]:
        if count != given[0][0]:
            raise Mismatch(f"{given[0][1]} is {given[0][0]} but {where} is {count}: they name the same count")
    return Amount(*(given or names)[0], True)


def _written(group: CountGroup) -> tuple[int, int]:
    """Return the tokens written to a cache, and how many of them live one hour."""
    total, short, hour = group.of(Role.WRITTEN), group.of(Role.WRITTEN_5M), group.count(Role.WRITTEN_1H)
    parts = short.count + hour
    if not total.count:
        return parts, hour
    if parts and (parts > total.count or (short.given and parts != total.count)):
        raise Mismatch(f"{total.place} is {total.count}: its 5-minute and 1-hour parts add up to {parts}")
    return total.count, hour


def _cached(group: CountGroup) -> int:
    """Return the tokens read from a cache."""
    total, cached, uncached = group.of(Role.INPUT), group.of(Role.CACHED), group.of(Role.UNCACHED)
    if not uncached.given:
        return cached.count or group.known
    if cached.given:
        hits_and_misses = cached.count + uncached.count
        if hits_and_misses != total.count:
            raise Mismatch(f"{total.place} is {total.count}: cache hits and misses add up to {hits_and_misses}")
        return cached.count
    if uncached.count > total.count:
        name = total.place.rpartition(".")[2]
        raise Mismatch(f"{uncached.place} is {uncached.count}, more than {name}, {total.count}")
    return total.count - uncached.count


def split_input(group: CountGroup) -> dict[str, int]:
    """Return the disjoint input meters of a group.

    Where cached tokens meet audio, image or video tokens and no detail says which were cached, they are taken from the
    text first. Cached video has no built-in meter: it becomes ``video_cache_read``, which a book may declare.

    Raises:
        Mismatch: a part is more than its whole, or parts do not add up.
    """
    name, cached, written = group.of(Role.INPUT).place, group.cached, group.written
    audio, image, video = (group.count(role) for role in (Role.AUDIO_INPUT, Role.IMAGE_INPUT, Role.VIDEO_INPUT))
    kept = tuple(group.count(role) for role in (Role.CACHED_AUDIO, Role.CACHED_IMAGE, Role.CACHED_VIDEO))
    text, media, includes = group.count(Role.TEXT_INPUT), audio + image + video, group.dialect.input_includes
    total = group.count(Role.INPUT)
    total += (0 if Role.CACHED in includes else cached) + (0 if Role.WRITTEN in includes else written)
    if media > total:
        raise Mismatch(f"{name} is {total}: its audio, image and video tokens are {media}, more than the whole")
    if cached + written > total:
        raise Mismatch(
            f"{name} is {total}: its cached ({cached}) and cache-written ({written}) tokens are more than the whole",
            CACHE_PLACE,
        )
    if group.hour > written:
        raise Mismatch(f"{name}: {group.hour} tokens cached for an hour are more than {written} written")
    for kind, part, whole in zip(("audio", "image", "video"), kept, (audio, image, video), strict=True):
        if part > whole:
            raise Mismatch(f"{name}: {part} cached {kind} tokens are more than its {whole} {kind} tokens")
    if group.known > cached or (group.known and group.of(Role.CACHED_TEXT).given and group.known != cached):
        raise Mismatch(f"{name}: its cached tokens are {cached}, their details by kind add up to {group.known}")
    if text:
        leaves_out = group.dialect.text_may_leave_out_cache
        if text + media not in (total, *((total - cached, total - cached - written) if leaves_out else ())):
            raise Mismatch(f"{name} is {total}: its text, audio, image and video tokens are {text + media}")
    cached_text = cached - sum(kept)
    if cached_text + written > total - media:
        raise Mismatch(
            f"{name}: {cached_text} cached and {written} cache-written tokens do not fit its {total - media} text "
            "tokens, and no detail says which audio, image or video tokens were cached"
        )
    return {
        "input": total - media - cached_text - written,
        "cache_read": cached_text,
        "cache_write": written - group.hour,
        "cache_write_1h": group.hour,
        "audio_input": audio - kept[0],
        "audio_cache_read": kept[0],
        "image_input": image - kept[1],
        "image_cache_read": kept[1],
        "video_input": video - kept[2],
        "video_cache_read": kept[2],
    }


def split_output(group: CountGroup) -> dict[str, int]:
    """Return the disjoint output meters of a group; a text part may be given with or without the reasoning.

    Raises:
        Mismatch: a part is more than its whole, or parts do not add up.
    """
    name, total, reasoning = group.of(Role.OUTPUT).place, group.count(Role.OUTPUT), group.count(Role.REASONING)
    if not group.dialect.output_includes_reasoning:
        total += reasoning
    audio, image, video = (group.count(role) for role in (Role.AUDIO_OUTPUT, Role.IMAGE_OUTPUT, Role.VIDEO_OUTPUT))
    text, predicted, media = group.count(Role.TEXT_OUTPUT), group.count(Role.PREDICTED), audio + image + video
    if media + reasoning > total:
        raise Mismatch(
            f"{name} is {total}: its reasoning ({reasoning}) and audio, image and video tokens ({media}) "
            "are more than the whole",
            REASONING_PLACE if media <= total else None,
        )
    if text and text + media not in (total, total - reasoning):
        raise Mismatch(
            f"{name} is {total}: its text ({text}), media ({media}) and reasoning ({reasoning}) do not add up"
        )
    if predicted > total:
        raise Mismatch(f"{name} is {total}: its prediction tokens are {predicted}, more than the whole")
    return {
        "output": total - media - reasoning,
        "reasoning": reasoning,
        "audio_output": audio,
        "image_output": image,
        "video_output": video,
    }


def _with_input(dialect: Dialect, found: Found) -> Found:
    """Return the counts with the grand total as the input, where a dialect allows it and no other total is there."""
    totals = [row for row in dialect.rows if not row.group and row.role in (Role.INPUT, Role.OUTPUT)]
    if not dialect.total_is_input or any(row.path in found for row in totals):
        return found
    total = next((found[row.path] for row in rows_of(dialect, Role.TOTAL) if row.path in found), None)
    if total is None:
        return found
    return {**found, next(row.path for row in totals if row.role is Role.INPUT): total}


def _with_rest(dialect: Dialect, found: Found) -> Found:
    """Return the counts with what the grand total has beyond input and output as reasoning, where a dialect says so."""
    reasoning = rows_of(dialect, Role.REASONING)
    if not dialect.rest_is_reasoning or any(row.path in found for row in reasoning):
        return found
    total, received, made = (
        agreed(rows_of(dialect, role), found, "") for role in (Role.TOTAL, Role.INPUT, Role.OUTPUT)
    )
    rest = total.count - received.count - made.count
    return {**found, reasoning[0].path: (rest, total.place)} if rest > 0 else found


def _check_total(dialect: Dialect, groups: Mapping[str, CountGroup]) -> None:
    """Refuse a grand total that is given and is none of the sums that it may be."""
    total = groups[""].of(Role.TOTAL)
    if not total.given or not dialect.totals:
        return
    sums = []
    for names in dialect.totals:
        parts = [name.rpartition("/")[::2] for name in names]
        sums.append((sum(groups[group].part_of_total(role) for group, role in parts), parts))
    if all(expected != total.count for expected, _ in sums):
        expected, parts = sums[0]
        places = [groups[group].of(Role(role)).place.rpartition(".")[2] for group, role in parts]
        listed = " and ".join([", ".join(places[:-1]), places[-1]] if places[1:] else places)
        raise Mismatch(f"{total.place} is {total.count}: {listed} add up to {expected}", TOTAL_SUM)


def split_usage(dialect: Dialect, found: Found, path: str) -> dict[str, int]:
    """Return the meters of a usage object whose leaves were found, zeros included.

    Raises:
        Mismatch: the counts contradict each other.
    """
    found = _with_rest(dialect, _with_input(dialect, found))
    groups = {name: CountGroup(dialect, name, found, path) for name in dialect.groups}
    _check_total(dialect, groups)
    meters: dict[str, int] = {}
    for group in groups.values():
        for meter, count in {**split_input(group), **split_output(group)}.items():
            meters[meter] = meters.get(meter, 0) + count
    for meter in dict.fromkeys(row.meter for row in dialect.rows if row.role is Role.METER):
        rows = [row for row in dialect.rows if row.role is Role.METER and row.meter == meter]
        meters[meter] = meters.get(meter, 0) + agreed(rows, found, path).count
    return meters
