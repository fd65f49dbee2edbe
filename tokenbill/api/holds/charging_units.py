"""Reading of the units in a 3GPP charging request: containers of used units, requested units. Pure, refuses nothing.

A gateway reports units that were used, so what cannot be counted must not stop the rest. Each number is a count of a
meter, or it is returned by its name as *unread*. A unit of 0 is as if absent, because some gateways write every field.

Units of a container measure one use, so only one kind is counted: ``serviceSpecificUnits``, else the volume, else the
time; a rating group may put another first (``unit``). The volume is both directions; a total completes a direction that
is not given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from schemas.fields import JsonReal, show
from schemas.meters import Counts, canonical_counts
from tokenbill.api.holds.rating_groups import RatingGroup

SPECIFIC, TIME = "serviceSpecificUnits", "time"
TOTAL, UPLINK, DOWNLINK = "totalVolume", "uplinkVolume", "downlinkVolume"
UNITS = (SPECIFIC, TOTAL, UPLINK, DOWNLINK, TIME)
_VOLUMES = (TOTAL, UPLINK, DOWNLINK)
_NO_UNITS = frozenset({"serviceId", "localSequenceNumber"})
BEYOND = "totalVolume beyond uplinkVolume and downlinkVolume"
"""Name of the part of a total that neither direction counts."""
DEFAULT_UNITS, DEFAULT_QUOTA_SECONDS = 4_096, 60
"""Quota granted for an empty ``requestedUnit``. The specification leaves it to the charging function."""
MOST_UNITS, MOST_SECONDS = 10**9, 86_400
"""Greatest quota of one grant. A request for more gets this much."""
_LONGEST = 40


@dataclass(frozen=True, slots=True)
class AskedQuota:
    """A requested quota: the units to grant by their names, and the counts to hold; of several, the dearest."""

    units: Mapping[str, int]
    wanted: tuple[Counts, ...]


def whole_number(value: object) -> int | None:
    """Return the integer that a JSON number is; None if it is none. ``5.0`` and ``1e3`` are integers."""
    if isinstance(value, JsonReal):
        number = Decimal(value.text)
        return int(number) if number.adjusted() < _LONGEST and number == number.to_integral_value() else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def read_container(container: object, group: RatingGroup) -> tuple[Counts, dict[str, Any]]:
    """Return what a container counts, by meter, and its numbers that are no counts, by name."""
    if not isinstance(container, dict):
        return (), {"usedUnitContainer": show(container)}
    good: dict[str, int] = {}
    unread: dict[str, Any] = {}
    for name, value in container.items():
        if name in UNITS:
            count = whole_number(value)
            if count is not None and count >= 0:
                good[name] = count
            elif value is not None:
                unread[name] = _kept(value)
        elif name not in _NO_UNITS and isinstance(value, JsonReal | int) and not isinstance(value, bool) and value:
            unread[name] = _kept(value)
    if UPLINK in unread or DOWNLINK in unread:  # the other volumes cannot complete it
        unread |= {name: good.pop(name) for name in _VOLUMES if good.get(name)}
    counts, rest = _counted(good, group)
    return canonical_counts(counts), unread | rest


def used_kind(containers: object) -> str | None:
    """Return a unit that containers report; None if they report none."""
    for container in containers if isinstance(containers, list) else ():
        for unit in UNITS if isinstance(container, dict) else ():
            if whole_number(container.get(unit)):
                return TOTAL if unit in _VOLUMES else unit
    return None


def read_requested(requested: object, group: RatingGroup, used: str | None) -> AskedQuota | None:
    """Return the quota that ``requestedUnit`` asks for; None if it is absent.

    An empty one asks for a quota in the unit that the group counts, else in the one that its containers report.
    """
    if requested is None:
        return None
    given = requested if isinstance(requested, dict) else {}
    asked = {unit: count for unit in UNITS if (count := whole_number(given.get(unit)) or 0) > 0}
    kind = group.unit if group.unit in asked else next(iter(asked), None)
    if kind is None:
        kind = group.unit or used or SPECIFIC
        asked = {kind: DEFAULT_QUOTA_SECONDS if kind == TIME else DEFAULT_UNITS}
    if kind == TIME:
        seconds = min(asked[TIME], MOST_SECONDS)
        return AskedQuota({TIME: seconds}, (canonical_counts({group.time: seconds * group.unitsPerSecond}),))
    of_kind = (SPECIFIC,) if kind == SPECIFIC else _VOLUMES
    units = {unit: min(asked[unit], MOST_UNITS) for unit in of_kind if unit in asked}
    if TOTAL in units:
        meters = dict.fromkeys(group.meter_of(unit) for unit in units)
        return AskedQuota(units, tuple(((meter, units[TOTAL]),) for meter in meters))
    return AskedQuota(units, (canonical_counts(_by_meter(units, group)),))


def granted_units(asked: AskedQuota, counts: Counts, group: RatingGroup) -> dict[str, int]:
    """Return the units that held counts grant."""
    held = dict(counts)
    whole = sum(held.values())
    if TIME in asked.units:
        return {TIME: whole // group.unitsPerSecond if group.unitsPerSecond else asked.units[TIME]}
    if TOTAL in asked.units:
        return {unit: min(count, whole) for unit, count in asked.units.items()}
    left, granted = held, {}
    for unit, count in asked.units.items():  # two directions may count one meter
        meter = group.meter_of(unit)
        granted[unit] = min(count, left.get(meter, 0))
        left[meter] = left.get(meter, 0) - granted[unit]
    return granted


def _kept(value: object) -> Any:
    return value if isinstance(value, int) and not isinstance(value, bool) else show(value)


def _by_meter(units: Mapping[str, int], group: RatingGroup) -> dict[str, int]:
    counts: dict[str, int] = {}
    for unit, count in units.items():
        meter = group.meter_of(unit)
        counts[meter] = counts.get(meter, 0) + count
    return counts


def _counted(good: Mapping[str, int], group: RatingGroup) -> tuple[dict[str, int], dict[str, int]]:
    """Return the counts of one kind of units, by meter, and the units of this kind that no meter counts."""
    for unit in (group.unit, SPECIFIC, TOTAL, TIME):
        if unit == TIME and good.get(TIME):
            return {group.time: good[TIME] * group.unitsPerSecond}, {}
        if unit == SPECIFIC and good.get(SPECIFIC):
            return {group.meter_of(SPECIFIC): good[SPECIFIC]}, {}
        if unit == TOTAL and group.unit == TOTAL and good.get(TOTAL):
            return {group.meter_of(TOTAL): good[TOTAL]}, {}
        if unit == TOTAL and any(good.get(one) for one in _VOLUMES):
            return _volume(good, group)
    return {}, {}


def _volume(good: Mapping[str, int], group: RatingGroup) -> tuple[dict[str, int], dict[str, int]]:
    total = good.get(TOTAL, 0)
    directions = {unit: good[unit] for unit in (UPLINK, DOWNLINK) if unit in good}
    both = sum(directions.values())
    if not both:
        return {group.meter_of(TOTAL): total}, {}
    if not total or total == both:
        return _by_meter(directions, group), {}
    if total < both:
        return {}, {unit: good[unit] for unit in _VOLUMES if unit in good}
    missing = [unit for unit in (UPLINK, DOWNLINK) if unit not in directions]
    if missing:
        return _by_meter({**directions, missing[0]: total - both}, group), {}
    return _by_meter(directions, group), {BEYOND: total - both}
