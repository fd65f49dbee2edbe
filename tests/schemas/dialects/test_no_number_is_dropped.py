"""Law of every dialect: a number of a usage object is mapped, known as not billed, or the event is refused."""

import json
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_bodies import BODIES, Body

from schemas.dialects import DIALECTS, TABLES, read_dialect
from schemas.dialects.dialect_table import Dialect, LeafRow, Role, path_steps
from schemas.refusals import Refused

URL = "https://example.com/usage"


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_a_real_body_becomes_the_right_meters(body: Body) -> None:
    assert dict(read_dialect(body.dialect, body.usage).counts) == body.counts


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_has_a_real_body(dialect: str) -> None:
    assert any(body.dialect == dialect for body in BODIES)


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Return the paths of the numbers in a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from places(one, (*path, name))
    if isinstance(value, int) and not isinstance(value, bool):
        yield path


def objects(dialect: str, value: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Return the objects in a usage object, itself too, without those that are known and not billed as a whole."""
    if isinstance(value, dict) and not any(
        [step.name for step in path_steps(row.path, TABLES[dialect].flat)] == [*path, "*"]
        for row in TABLES[dialect].rows
    ):
        yield value
    for name, one in value.items() if isinstance(value, dict) else ():
        yield from objects(dialect, one, (*path, name))
    for one in value if isinstance(value, list) else ():
        yield from objects(dialect, one, path)


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for name in path:
        value = value[name]
    return value


def result(dialect: str, usage: dict[str, Any]) -> object:
    """Return the counts, or the refusal, of a usage object."""
    try:
        return read_dialect(dialect, usage).counts
    except Refused as problem:
        return problem


def note(dialect: str, usage: dict[str, Any]) -> tuple[str, ...]:
    try:
        return read_dialect(dialect, usage, note_unknown=True).unknown
    except Refused:
        return ()


def is_known(dialect: str, path: tuple[str | int, ...], usage: dict[str, Any]) -> bool:
    """Return True if a number at this path is in the table of the dialect, as not billed or as part of a count."""
    names = [str(name) for name in path if isinstance(name, str)]
    for row in TABLES[dialect].rows:
        steps = path_steps(row.path, TABLES[dialect].flat)
        if [step.name for step in steps] == names:
            return True
    return False


@given(st.sampled_from(BODIES), st.integers(0, 2**32))
def test_law_a_number_that_is_added_is_never_passed_over(body: Body, seed: int) -> None:
    rng, usage = Random(seed), deepcopy(body.usage)
    target = rng.choice(list(objects(body.dialect, usage)))
    name = rng.choice(["mystery_tokens", "tool_calls", "ünknown", "searches", "x"])
    value = rng.choice([7, 1, 10**12, {"count": 3}, [{"count": 3}], [5], {"a": {"b": [{"c": 9}]}}])
    if name in target or is_known(body.dialect, (name,), usage):
        return
    target[name] = value
    got = result(body.dialect, usage)
    assert isinstance(got, Refused), got
    assert got.refusal.code == "usage_mismatch"
    assert name in str(got), "the path is named"
    assert note(body.dialect, usage), "and noted where an installation notes it"


@given(st.sampled_from(BODIES), st.integers(0, 2**32))
def test_law_a_number_that_is_renamed_or_moved_changes_the_result_or_is_refused(body: Body, seed: int) -> None:
    rng, usage = Random(seed), deepcopy(body.usage)
    known = list(objects(body.dialect, usage))
    counted = [path for path in places(usage) if at(usage, path) and any(at(usage, path[:-1]) is one for one in known)]
    if not counted:
        return
    path = rng.choice(counted)
    holder, name = at(usage, path[:-1]), path[-1]
    value = holder.pop(name)
    if rng.random() < 0.5:
        holder = rng.choice(list(objects(body.dialect, usage)))
        new = name if holder.get(str(name)) is None else f"{name}_moved"
    else:
        new = f"{name}_v2"
    if isinstance(holder, list):
        holder.append(value)
    else:
        holder[str(new)] = value
    if usage == body.usage:
        return
    got = result(body.dialect, usage)
    if isinstance(got, Refused):
        return
    # A number that has a row in its new place is known there: its count moved, or it is one of several names.
    rows = {row.path for row in TABLES[body.dialect].rows}
    last = {path_steps(row, TABLES[body.dialect].flat)[-1].name for row in rows}
    assert str(new) in last or "*" in last, (usage, got)


@given(st.sampled_from(BODIES), st.integers(0, 2**32))
def test_law_zeros_and_texts_that_are_not_known_change_nothing(body: Body, seed: int) -> None:
    rng, usage = Random(seed), deepcopy(body.usage)
    target = rng.choice(list(objects(body.dialect, usage)))
    target.setdefault("mystery", rng.choice([0, None, "standard", True, {}, [], {"inner": 0}]))
    assert result(body.dialect, usage) == result(body.dialect, body.usage)


@pytest.mark.parametrize("dialect", TABLES.values(), ids=lambda dialect: dialect.name)
def test_every_row_of_a_table_decides_about_its_number(dialect: Dialect) -> None:
    """A number at the path of a row alone is counted, known as not billed, or contradicts what is not there."""
    for row in dialect.rows:
        usage: dict[str, Any] = dict.fromkeys(dialect.needs[:1])
        put(usage, dialect, row, 5)
        got = result(dialect.name, usage)
        if row.role is Role.NOT_BILLED:
            assert got == (), row
        elif isinstance(got, Refused):
            assert got.refusal.code == "usage_mismatch", row
            assert "no meter for it" not in str(got), row
        else:
            assert got or row.role is Role.PREDICTED, row


def put(usage: dict[str, Any], dialect: Dialect, row: LeafRow, value: int) -> None:
    """Write a number at the path of a row."""
    steps = path_steps(row.path, dialect.flat)
    here = usage
    for step in steps[:-1]:
        inner: dict[str, Any] = {}
        if step.is_list:
            if step.key:
                inner[step.key] = step.value
            here[step.name] = [inner]
        elif here.get(step.name) is None:
            here[step.name] = inner
        else:
            inner = here[step.name]
        here = inner
    here[steps[-1].name] = [value] if steps[-1].is_list else value


def table(*rows: LeafRow, **more: Any) -> Dialect:
    return Dialect("d", 1, "D", ("a",), rows, **more)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((LeafRow("a", Role.INPUT, URL), LeafRow("a", Role.OUTPUT, URL)), "two rows"),
        ((LeafRow("a", Role.INPUT, "a page"),), "no source"),
        ((LeafRow("a", Role.METER, URL),), "no meter is named"),
        ((LeafRow("a", Role.INPUT, URL, meter="searches"),), "names the meter"),
        ((LeafRow("a", Role.NOT_BILLED, URL),), "a reason"),
        ((LeafRow("a", Role.NOT_BILLED, URL, why="w", meter="input"),), "built in"),
        ((LeafRow("a", Role.INPUT, URL), LeafRow("a.b", Role.OUTPUT, URL)), "both a number and an object"),
        ((LeafRow("b", Role.INPUT, URL),), "needs a"),
        ((LeafRow("a[x=1].b", Role.INPUT, URL), LeafRow("a[y=1].b", Role.OUTPUT, URL)), "told apart"),
        ((LeafRow("a[]", Role.INPUT, URL),), "no names"),
        ((LeafRow("a", Role.INPUT, URL, times=0),), "multiplied"),
        ((LeafRow("a[x", Role.INPUT, URL),), "expected name"),
    ],
)
def test_a_table_that_cannot_be_right_is_not_made(rows: tuple[LeafRow, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        table(*rows, totals=())


def test_a_total_adds_what_the_table_has() -> None:
    with pytest.raises(ValueError, match="the total adds output"):
        table(LeafRow("a", Role.INPUT, URL))


def test_bodies_are_json_that_reads_as_it_was_written() -> None:
    for body in BODIES:
        assert json.loads(json.dumps(body.usage)) == body.usage
