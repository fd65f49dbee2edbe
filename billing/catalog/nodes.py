"""Parser of YAML text into small nodes that keep their line. Every scalar stays the text that was written, untyped.

For a book of 100,000 rows, PyYAML's own nodes take three times as long.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
_SCALAR, _MAPPING, _SEQUENCE = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent
_MAPPING_END, _SEQUENCE_END = yaml.MappingEndEvent, yaml.SequenceEndEvent
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))


class Node:
    """One node of a document; ``line`` is counted from 1."""

    __slots__ = ("line",)

    def __init__(self, line: int) -> None:
        self.line = line


class Scalar(Node):
    """Text; ``plain`` is True if it was written without quotes."""

    __slots__ = ("plain", "value")

    def __init__(self, line: int, value: str, plain: bool) -> None:
        self.line = line
        self.value = value
        self.plain = plain


class Items(Node):
    """List of nodes."""

    __slots__ = ("nodes",)

    def __init__(self, line: int) -> None:
        self.line = line
        self.nodes: list[Node] = []


class Pairs(Node):
    """Mapping as its keys and values in order. A key may occur twice."""

    __slots__ = ("nodes",)

    def __init__(self, line: int) -> None:
        self.line = line
        self.nodes: list[Node] = []  # key, value, key, value ...

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Return each key with its value."""
        return zip(self.nodes[::2], self.nodes[1::2], strict=True)


class YamlProblem(Exception):
    """Raised for text that is not YAML, or not in the subset that is read here."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(line, problem)
        self.line = line
        self.problem = problem


def is_null(node: Node) -> bool:
    """Return True if a node is an unquoted null."""
    return isinstance(node, Scalar) and node.plain and node.value in _NULLS


def read_documents(text: str) -> Iterator[Node]:
    """Yield the documents of a YAML text one by one, without the empty ones.

    Raises:
        YamlProblem: with the line of the first error, after the documents before it.
    """
    with no_collections():
        try:
            yield from _compose(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise YamlProblem(mark.line + 1 if mark else 1, str(error.problem or error.context)) from error
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            raise YamlProblem(line, "there is a character that YAML does not allow") from error
        except yaml.YAMLError as error:
            raise YamlProblem(1, str(error)) from error


def _compose(text: str) -> Iterator[Node]:
    root: list[Node] = []
    parents: list[list[Node]] = []
    siblings = root
    anchors: dict[str, Node] = {}
    open_nodes: list[Node] = []
    next_event = _LOADER(text).get_event
    event: Any  # the type stubs do not distinguish the event classes
    while True:
        event = next_event()
        kind = type(event)
        node: Node
        if kind is _SCALAR:
            siblings.append(node := Scalar(event.start_mark.line + 1, event.value, not event.style))
            if event.anchor is not None:
                anchors[event.anchor] = node
            continue
        if kind in (_MAPPING_END, _SEQUENCE_END):
            siblings = parents.pop()
            open_nodes.pop()
            continue
        if kind is _MAPPING or kind is _SEQUENCE:
            inner: Pairs | Items = (Pairs if kind is _MAPPING else Items)(event.start_mark.line + 1)
            if event.anchor is not None:
                anchors[event.anchor] = inner
            siblings.append(inner)
            parents.append(siblings)
            open_nodes.append(inner)
            siblings = inner.nodes
        elif kind is yaml.AliasEvent:
            line = event.start_mark.line + 1
            if event.anchor not in anchors:
                raise YamlProblem(line, f"*{event.anchor} has no &{event.anchor} before it")
            node = anchors[event.anchor]
            if any(node is outer for outer in open_nodes):
                raise YamlProblem(line, f"*{event.anchor} contains itself")
            siblings.append(node)
        elif kind is yaml.DocumentEndEvent:
            yield from (found for found in root if not is_null(found))
            root.clear()
            anchors.clear()
        elif kind is yaml.StreamEndEvent:
            return


@contextmanager
def no_collections() -> Iterator[None]:
    """Pause the cyclic garbage collector, which would search millions of nodes without cycles in vain."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
