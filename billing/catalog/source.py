"""YAML files as nodes with file and line, and readers that collect every error instead of stopping at the first.

Every scalar stays the text that was written: ``0.10`` is never a binary number, ``2026-11-01`` never a date, ``no``
never a boolean. This module reads YAML and text; it does not interpret a catalogue.
"""

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from billing.catalog.findings import ERROR, CatalogFinding
from billing.catalog.nodes import Items, Node, Pairs, Scalar, YamlProblem, is_null, read_documents
from schemas.times import parse_time_us
from schemas.units import InexactError, format_scaled, parse_scaled

MAX_INT64 = 2**63 - 1
MAX_BALANCE = 10**36
"""Greatest amount that a catalogue may put into a balance column (``numeric(38,0)``), and greatest price of a unit."""


class Source:
    """One file and the findings in it."""

    __slots__ = ("file", "findings")

    def __init__(self, file: str) -> None:
        self.file = file
        self.findings: list[CatalogFinding] = []

    def report(self, where: Node | int, key: str, message: str, severity: str = ERROR) -> None:
        """Add a finding at a node or a line."""
        line = where if isinstance(where, int) else where.line
        self.findings.append(CatalogFinding(self.file, line, key, message, severity))

    def documents(self, content: bytes) -> list[Node]:
        """Parse the YAML documents of the file. A parse error becomes a finding and ends the file."""
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            self.report(line, "file", "is not UTF-8 text; save it as UTF-8")
            return []
        documents: list[Node] = []
        try:
            documents.extend(read_documents(text))
        except YamlProblem as problem:
            self.report(problem.line, "file", f"is not YAML: {problem.problem}")
        return documents


def catalog_files(folder: Path) -> list[Path]:
    """Return the YAML files of a folder and its sub-folders, sorted by path."""
    found = (path for path in folder.rglob("*") if path.suffix in (".yaml", ".yml") and path.is_file())
    return sorted(found, key=lambda path: path.relative_to(folder).parts)


def shape(node: Node) -> str:
    """Return a description of a node for a message."""
    if is_null(node):
        return "nothing"
    if isinstance(node, Scalar):
        return repr(node.value)
    return "a mapping" if isinstance(node, Pairs) else "a list"


class Fields:
    """Reader of one mapping: each key at most once, none unknown, none of the required ones missing.

    Every violation becomes a finding. A getter returns an empty or default value for a key that is absent or wrong, so
    a value can always be built; :mod:`billing.catalog.load` drops an entry that has findings. Readers check
    :attr:`failed` before they report an error that may only follow from another.
    """

    __slots__ = ("_nodes", "_since", "node", "path", "source")

    def __init__(
        self, source: Source, node: Node, path: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()
    ) -> None:
        self.source = source
        self.node = node
        self.path = path
        self._since = len(source.findings)
        self._nodes: dict[str, Node] = {}
        if not isinstance(node, Pairs):
            self._fail(node, path or "entry", f"is {shape(node)}; write a mapping of keys and values")
            return
        self._collect(node, _known_keys(required, optional))
        for key in required:
            if key not in self._nodes:
                self._fail(node, self.at(key), "is missing; add it")

    def _collect(self, node: Pairs, known: dict[str, None]) -> None:
        for key_node, value_node in node.pairs():
            if not isinstance(key_node, Scalar):
                self._fail(key_node, self.path or "entry", f"has {shape(key_node)} as a key; a key is text")
                continue
            key = key_node.value
            if key in self._nodes:
                self._fail(key_node, self.at(key), "is given twice; keep one")
            elif known and key not in known:
                close = get_close_matches(key, known, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"the keys here are {', '.join(known)}"
                self._fail(key_node, self.at(key), f"is not a known key; {hint}")
            else:
                self._nodes[key] = value_node

    def _fail(self, where: Node | int, key: str, message: str) -> None:
        self.source.report(where, key, message)

    @property
    def failed(self) -> bool:
        """True if anything was reported since these fields were opened."""
        return len(self.source.findings) > self._since

    def __contains__(self, key: str) -> bool:
        return key in self._nodes

    def __iter__(self) -> Iterator[str]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def at(self, key: str) -> str:
        """Return the full name of a key, for a message."""
        return f"{self.path}.{key}" if self.path else key

    def where(self, key: str) -> Node:
        """Return the node of a key, or of the mapping if the key is absent."""
        return self._nodes.get(key, self.node)

    def fail(self, key: str, message: str) -> None:
        """Report that the value of a key is wrong."""
        self._fail(self.where(key), self.at(key), message)

    def fail_at(self, node: Node, name: str, message: str) -> None:
        """Report that a nested node is wrong."""
        self._fail(node, name, message)

    def mapping(self, key: str, required: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> "Fields":
        """Read a nested mapping, whose key must be present.

        Without ``required`` and ``optional`` every key is allowed.
        """
        return Fields(self.source, self._nodes[key], self.at(key), required, optional)

    def items(self, key: str) -> list[tuple[Node, str]]:
        """Read a list as its nodes with their full names; empty if the key is absent."""
        node = self._nodes.get(key)
        if node is None:
            return []
        if not isinstance(node, Items):
            self.fail(key, f"is {shape(node)}; write a list")
            return []
        return [(item, f"{self.at(key)}[{index}]") for index, item in enumerate(node.nodes)]

    def text_of(self, node: Node, name: str) -> str:
        """Read a node as printable text that is not empty and has no blanks around it."""
        if not isinstance(node, Scalar) or is_null(node):
            self._fail(node, name, f"is {shape(node)}; write text")
            return ""
        value = node.value
        if value == "" or value != value.strip() or not value.isprintable():
            self._fail(node, name, f"is {value!r}; write text without blanks around it")
            return ""
        return value

    def text(self, key: str, default: str = "") -> str:
        """Read text."""
        node = self._nodes.get(key)
        return default if node is None else self.text_of(node, self.at(key))

    def texts(self, key: str) -> tuple[str, ...]:
        """Read one text, or a list of at least one text without repetition."""
        node = self._nodes.get(key)
        if node is None:
            return ()
        if not isinstance(node, Items):
            return (self.text(key),)
        values = tuple(self.text_of(item, name) for item, name in self.items(key))
        if not values or len(set(values)) != len(values):
            self.fail(key, "is an empty list or repeats a value; write each value once")
        return values

    def choice(self, key: str, options: Collection[str], default: str = "") -> str:
        """Read one of a fixed set of words."""
        value = self.text(key, default)
        if value and value not in options:
            self.fail(key, f"is {value!r}; write one of {', '.join(options)}")
        return value

    def integer_of(self, node: Node, name: str, minimum: int, maximum: int = MAX_INT64) -> int:
        """Read a node as an integer in decimal digits."""
        text = node.value if isinstance(node, Scalar) else None
        try:
            value = parse_scaled(text, 0) if text is not None and "." not in text else None
        except InexactError:
            value = None
        if value is None or not minimum <= value <= maximum:
            self._fail(node, name, f"is {shape(node)}; write an integer from {minimum} to {maximum}")
            return minimum
        return value

    def integer(self, key: str, minimum: int, default: int = 0, maximum: int = MAX_INT64) -> int:
        """Read an integer."""
        node = self._nodes.get(key)
        return default if node is None else self.integer_of(node, self.at(key), minimum, maximum)

    def scaled(self, key: str, digits: int, *, positive: bool = False, maximum: int = MAX_INT64, unit: str = "") -> int:
        """Read a non-negative decimal as an integer of ``10**-digits``.

        A finer value is an error; nothing is rounded.
        """
        node = self._nodes.get(key)
        if node is None:
            return 0
        return self.scaled_of(node, self.at(key), digits, positive=positive, maximum=maximum, unit=unit)

    def scaled_of(
        self, node: Node, name: str, digits: int, *, positive: bool = False, maximum: int = MAX_INT64, unit: str = ""
    ) -> int:
        """Read a node as :meth:`scaled` reads a key."""
        text = node.value if isinstance(node, Scalar) else ""
        problem = ""
        try:
            value = parse_scaled(text, digits)
        except InexactError:
            value = 0
            if _is_decimal(text):
                problem = f"is {text!r}, finer than {_step(digits)}{unit}; write at most {digits} decimal places"
            else:
                problem = f'is {shape(node)}; write a decimal such as "9.90"'
        else:
            if value < 0 or (positive and value == 0):
                problem = f"is {text!r}; write a decimal {'greater than' if positive else 'of at least'} 0"
            elif value > maximum:
                problem = f"is {text!r}; the greatest possible is {format_scaled(maximum, digits)}"
        if problem:
            self._fail(node, name, problem)
            return 0
        return value

    def instant(self, key: str) -> int:
        """Read an RFC 3339 time with offset as microseconds UTC."""
        text = self.text(key)
        if not text:
            return 0
        try:
            return parse_time_us(text)
        except ValueError:
            self.fail(key, f'is {text!r}; write a time with offset such as "2026-11-01T00:00:00+08:00"')
            return 0


@cache
def _known_keys(required: tuple[str, ...], optional: tuple[str, ...]) -> dict[str, None]:
    """Return the keys that a mapping may have, in order; empty if every key is allowed."""
    return dict.fromkeys((*required, *optional))


def _is_decimal(text: str) -> bool:
    try:
        parse_scaled(text, len(text))
    except InexactError:
        return False
    return True


def _step(digits: int) -> str:
    return f"1e-{digits}" if digits else "1"
