"""The leaves of a usage object: the numbers in it, each with its row of the dialect's table or without one."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from numbers import Number
from typing import Any

from schemas.counts import check_count
from schemas.dialects.dialect_table import Dialect, LeafRow, Role, path_steps
from schemas.fields import JsonReal, show
from schemas.meters import MAX_COUNT
from schemas.refusals import Refused
from schemas.units import divide_half_even

_LONGEST_REAL = 40
"""Characters of a number with a fraction that is multiplied; its exponent has at most two digits."""


@dataclass(slots=True)
class UsagePlace:
    """A place in the usage objects of a dialect: an object with names, a list, or a leaf with its row."""

    row: LeafRow | None = None
    names: dict[str, "UsagePlace"] = field(default_factory=dict)
    key: str | None = None
    """The field by which the items of a list differ; empty where all are alike, None where this is no list."""
    items: dict[str, "UsagePlace"] = field(default_factory=dict)
    """The items of a list by the value of ``key``."""


def table_tree(dialect: Dialect) -> UsagePlace:
    """Return the table of a dialect as a tree of the names on its paths."""
    root = UsagePlace()
    for row in dialect.rows:
        node = root
        for step in path_steps(row.path, dialect.flat):
            node = node.names.setdefault(step.name, UsagePlace())
            if step.is_list:
                node.key = step.key
                node = node.items.setdefault(step.value, UsagePlace())
        node.row = row
    return root


@dataclass(frozen=True, slots=True)
class Leaf:
    """One number of a usage object. ``path`` begins with that of the object; ``row`` is None where none names it."""

    path: str
    row: LeafRow | None
    value: Any


def is_number(value: object) -> bool:
    """Return True if a value is a number of JSON, with a fraction or without."""
    return isinstance(value, Number | JsonReal) and not isinstance(value, bool)


def leaves(node: UsagePlace | None, path: str, value: object) -> Iterator[Leaf]:
    """Yield the leaves of a value in the order in which they are written; ``node`` is its place in the table.

    A value that is not null at a place of the table that bears a count is a leaf, whatever it is.

    Raises:
        Refused: ``invalid_event``: there is no object, or no list, where the table has one.
    """
    if value is None:
        return
    if node is not None and node.row is not None:
        if node.row.role is not Role.NOT_BILLED or is_number(value):
            yield Leaf(path, node.row, value)
            return
        node = None
    if node is not None and node.key is not None and not isinstance(value, list):
        raise Refused("invalid_event", f"{path} is {show(value)}: expected a list of counts")
    if node is not None and node.key is None and not isinstance(value, dict):
        raise Refused("invalid_event", f"{path} is {show(value)}: expected an object of counts")
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(None if node is None else _named(node, name), f"{path}.{_shown(name)}", inner)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from leaves(None if node is None else _item(node, item), f"{path}[{number}]", item)
    elif is_number(value):
        yield Leaf(path, None, value)


def _named(node: UsagePlace, name: str) -> UsagePlace | None:
    return node.names.get(name) or node.names.get("*")


def _item(node: UsagePlace, item: object) -> UsagePlace | None:
    if not node.key:
        return node.items[""]
    value = item.get(node.key) if isinstance(item, dict) else None
    return node.items.get(value) if isinstance(value, str) else None


def _shown(name: str) -> str:
    return name if name.isprintable() and len(name) <= 80 else show(name)


def is_zero(value: object) -> bool:
    """Return True if a number is 0, however it is written; such a count is treated as absent."""
    if isinstance(value, JsonReal):
        return not any(digit in "123456789" for digit in value.text.lower().partition("e")[0])
    return value == 0


def leaf_count(leaf: Leaf, row: LeafRow) -> int:
    """Return the count of a leaf, multiplied as its row says.

    Raises:
        Refused: as :func:`schemas.counts.check_count`.
    """
    value = leaf.value
    if row.times == 1:
        return check_count(leaf.path, value)
    if isinstance(value, Number) and not isinstance(value, int):
        value = JsonReal(repr(value))
    if not isinstance(value, JsonReal):
        product = check_count(leaf.path, value) * row.times
    else:
        exponent = value.text.lower().partition("e")[2]
        if len(value.text) > _LONGEST_REAL or len(exponent.lstrip("+-")) > 2:
            raise Refused("invalid_event", f"{leaf.path} is {show(value)}: expected a number of ordinary size")
        exact = Fraction(value.text) * row.times
        if exact < 0:
            raise Refused("usage_mismatch", f"{leaf.path} is {show(value)}: a count cannot be negative")
        product = divide_half_even(exact.numerator, exact.denominator)
    if product > MAX_COUNT:
        raise Refused("overflow", f"{leaf.path} is {show(leaf.value)}: a count is at most {MAX_COUNT}")
    return product
