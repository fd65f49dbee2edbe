"""Units of a charging request, read without a server: every number is counted once, or returned as unread."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.fields import JsonReal
from tokenbill.api.holds.charging_units import (
    BEYOND,
    DOWNLINK,
    MOST_UNITS,
    SPECIFIC,
    TIME,
    TOTAL,
    UNITS,
    UPLINK,
    granted_units,
    read_container,
    read_requested,
    whole_number,
)
from tokenbill.api.holds.rating_groups import RatingGroup

GROUP = RatingGroup(model="m")
COUNTS = st.one_of(st.just(0), st.integers(1, 9), st.integers(0, 2**64 - 1))
CONTAINERS = st.dictionaries(st.sampled_from(UNITS), COUNTS)


@given(CONTAINERS)
def test_every_unit_of_one_kind_is_counted_or_unread(container: dict[str, int]) -> None:
    counts, unread = read_container(container, GROUP)
    sum_ = sum(count for _, count in counts)
    both, total = container.get(UPLINK, 0) + container.get(DOWNLINK, 0), container.get(TOTAL, 0)
    if container.get(SPECIFIC):
        assert (sum_, unread) == (container[SPECIFIC], {})
    elif 0 < total < both:
        assert sum_ == 0 and unread == {
            name: container[name] for name in (TOTAL, UPLINK, DOWNLINK) if name in container
        }
    elif both or total:
        assert sum_ + sum(unread.values()) == max(total, both) and unread.keys() <= {BEYOND}
    else:
        assert (sum_, unread) == (container.get(TIME, 0) * 1_000, {})


ODD = st.one_of(st.none(), st.booleans(), st.text(max_size=3), st.integers(-(2**70), -1), st.lists(st.integers()))


@given(st.dictionaries(st.sampled_from([*UNITS, "triggers", "serviceId", "watts"]), st.one_of(ODD, COUNTS)))
def test_no_container_is_refused_and_no_odd_unit_is_dropped(container: dict[str, Any]) -> None:
    counts, unread = read_container(container, GROUP)
    assert all(count > 0 for _, count in counts)
    for name, value in container.items():
        if name in UNITS and value is not None and (whole_number(value) is None or value < 0):
            assert name in unread
    assert ("watts" in unread) == (type(container.get("watts")) is int and container["watts"] != 0)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7), (-7, -7), (JsonReal("1e+15"), 10**15), (JsonReal("5.0"), 5), (JsonReal("1.5"), None),
        (JsonReal("1e400000"), None), (True, None), ("7", None), (None, None),
    ],
)  # fmt: skip
def test_a_number_of_json_is_an_integer_by_its_value(value: object, number: int | None) -> None:
    assert whole_number(value) == number


@given(CONTAINERS, st.sampled_from([None, SPECIFIC, TOTAL, TIME]), st.integers(1, 100))
def test_what_is_granted_is_asked_for_and_held(requested: dict[str, int], unit: Any, part: int) -> None:
    group = RatingGroup(model="m", unit=unit)
    asked = read_requested(requested, group, None)
    assert asked is not None and asked.wanted and all(0 < count <= MOST_UNITS for count in asked.units.values())
    for wanted in asked.wanted:
        held = tuple((meter, count * part // 100) for meter, count in wanted)
        granted = granted_units(asked, held, group)
        assert granted.keys() == asked.units.keys()
        assert all(0 <= granted[name] <= count for name, count in asked.units.items())
        if TOTAL not in granted:
            per_unit = group.unitsPerSecond if TIME in granted else 1
            assert sum(granted.values()) * per_unit <= sum(count for _, count in held)


def test_two_directions_of_one_meter_share_what_is_held() -> None:
    group = RatingGroup(model="m", uplinkVolume="output")
    asked = read_requested({UPLINK: 60, DOWNLINK: 60}, group, None)
    assert asked is not None and asked.wanted == ((("output", 120),),)
    assert granted_units(asked, (("output", 100),), group) == {UPLINK: 60, DOWNLINK: 40}
