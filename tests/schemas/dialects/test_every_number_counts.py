"""Law: no number of a usage object is dropped, however the object was changed.

Where an object is read, a change of any one of its numbers changes the meters or makes the object refused, but for the
numbers that the table knows as not billed, or as a part of the output without a meter.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas.dialects import TABLES, read_dialect
from schemas.dialects.dialect_table import Role
from schemas.dialects.usage_leaves import Leaf, leaves, table_tree
from schemas.fields import JsonReal
from schemas.meters import Counts
from schemas.refusals import Refused

Place = tuple[str | int, ...]

BODIES = [
    (path.stem, entry["usage"])
    for folder in ("bodies", "refused")
    for path in sorted((Path(__file__).parent / folder).glob("*.json"))
    for entry in json.loads(path.read_text(encoding="utf-8"), parse_float=JsonReal)
]
NAMES = sorted({name for table in TABLES.values() for row in table.rows for name in row.path.split(".")})
UNCHARGED = (Role.NOT_BILLED, Role.PREDICTED)


def numbers(value: Any, place: Place = ()) -> Iterator[Place]:
    """Yield the places of the numbers of an object."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers(inner, (*place, name))
    elif isinstance(value, int | JsonReal) and not isinstance(value, bool):
        yield place


def inside(usage: Any, place: Place) -> Any:
    for name in place:
        usage = usage[name]
    return usage


def changed(usage: dict[str, Any], place: Place, value: Any) -> dict[str, Any]:
    made = copy.deepcopy(usage)
    inside(made, place[:-1])[place[-1]] = value
    return made


def counts(dialect: str, usage: dict[str, Any]) -> Counts | None:
    try:
        return read_dialect(dialect, usage).counts
    except Refused:
        return None


def table_leaves(dialect: str, usage: dict[str, Any]) -> list[Leaf]:
    """Return the leaves of an object by a table, none where it is refused."""
    try:
        return list(leaves(table_tree(TABLES[dialect]), "", usage))
    except Refused:
        return []


@st.composite
def changed_bodies(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """Return a published body with up to three changes, and the dialect that it is given as."""
    dialect, usage = draw(st.sampled_from(BODIES))
    usage = copy.deepcopy(usage)
    for _ in range(draw(st.integers(0, 3))):
        places = list(numbers(usage))
        if not places:
            break
        place = draw(st.sampled_from(places))
        parent, value = inside(usage, place[:-1]), inside(usage, place)
        change = draw(st.sampled_from(["rename", "move", "add", "set", "take out", "nest"]))
        name = draw(st.sampled_from(NAMES) | st.sampled_from(["new_tokens", "é", "*"]))
        if change == "set":
            parent[place[-1]] = draw(st.integers(0, 3000) | st.just(JsonReal("2.5")) | st.just(JsonReal("0.0")))
        elif change == "nest":
            parent[place[-1]] = draw(st.sampled_from([{name: value}, [value], [{name: value}]]))
        elif change == "add":
            usage[name] = draw(st.integers(0, 3000))
        elif isinstance(parent, dict):
            del parent[place[-1]]
            if change != "take out":
                (parent if change == "rename" else usage)[name] = value
    return draw(st.just(dialect) | st.sampled_from(list(TABLES))), usage


@given(changed_bodies())
def test_law_no_number_is_dropped(case: tuple[str, dict[str, Any]]) -> None:
    dialect, usage = case
    read = counts(dialect, usage)
    if read is None:
        return
    tables = [table for name, table in TABLES.items() if name == dialect or name in TABLES[dialect].forms]
    known = {
        leaf.path
        for table in tables
        for leaf in table_leaves(table.name, usage)
        if leaf.row is not None and leaf.row.role in UNCHARGED
    }
    for place in numbers(usage):
        value = inside(usage, place)
        more = changed(usage, place, value + 1 if isinstance(value, int) else 7)
        shown = "".join(f"[{name}]" if isinstance(name, int) else f".{name}" for name in place)
        assert shown in known or counts(dialect, more) != read, shown
