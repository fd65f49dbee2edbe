"""The form of a dialect's table: which leaf of a provider's usage object means what, and where the provider says so.

A *leaf* is a number in the usage object, at any depth. Each row of a table names one leaf by its path and gives it a
:class:`Role`. A leaf without a row makes the event ``usage_mismatch``: nothing is dropped because it is not known.
:mod:`schemas.dialects.usage_leaves` finds the leaves of an object, :mod:`schemas.dialects.meter_split` turns the roles
into disjoint meters, for all dialects alike. schemas/README.md, "New dialect", says how to add one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from schemas.meters import METERS


class Role(StrEnum):
    """Meaning of a leaf, by its printed name. The roles up to :attr:`TOTAL` are split into disjoint meters."""

    INPUT = "input"
    """All input tokens, with or without the cache (:attr:`Dialect.input_includes`)."""
    UNCACHED = "uncached input"
    """Input tokens that were not read from a cache, where INPUT includes those that were."""
    TEXT_INPUT = "text input"
    AUDIO_INPUT = "audio input"
    IMAGE_INPUT = "image input"
    VIDEO_INPUT = "video input"
    """The parts of INPUT by modality, the cached ones included."""
    CACHED = "cached"
    """Tokens read from a cache, of any modality."""
    CACHED_TEXT = "cached text"
    CACHED_AUDIO = "cached audio"
    CACHED_IMAGE = "cached image"
    CACHED_VIDEO = "cached video"
    """The parts of CACHED by modality."""
    WRITTEN = "written"
    """Tokens written to a cache, for any time."""
    WRITTEN_5M = "written for 5 minutes"
    WRITTEN_1H = "written for an hour"
    """The parts of WRITTEN by the time they are kept."""
    OUTPUT = "output"
    """All output tokens, with or without the reasoning (:attr:`Dialect.output_includes_reasoning`)."""
    REASONING = "reasoning"
    TEXT_OUTPUT = "text output"
    AUDIO_OUTPUT = "audio output"
    IMAGE_OUTPUT = "image output"
    VIDEO_OUTPUT = "video output"
    """The parts of OUTPUT by modality; the text may be given with or without the reasoning."""
    PREDICTED = "part of output"
    """A part of OUTPUT that has no meter of its own: checked only."""
    TOTAL = "total"
    """The grand total, which must be the sum of :attr:`Dialect.totals`."""
    METER = "meter"
    """A count of its own: it becomes the row's ``meter``, which is not a part of the tokens."""
    NOT_BILLED = "not billed"
    """Known, and no part of what is billed; ``why`` says the reason."""


INCLUDABLE = frozenset({Role.CACHED, Role.WRITTEN})
"""The roles that a dialect may count inside its INPUT."""


@dataclass(frozen=True, slots=True)
class LeafRow:
    """One leaf of a usage object.

    ``path`` are the names from the usage object to the leaf, joined by dots. ``name[]`` are all items of a list,
    ``name[key=value]`` those whose text ``key`` is ``value``; the leaves of several items are added. The last name of
    a NOT_BILLED row may be ``*``: all other names of the object.

    Rows of one role in one ``group`` name the same count: values other than 0 must agree. Rows that ``add`` are first
    added to each other. ``group`` is empty, or names a usage that the totals of the object leave out, such as the
    iterations of a compaction; each group is split by itself, and the meters are added.

    ``meter`` is the meter of a METER; one that is not built in must be declared by a price book. For NOT_BILLED it may
    name a meter that a price book can declare: where one does, the count becomes it. ``times`` multiplies the number,
    which may then have a fraction (seconds as milliseconds); the result is rounded half to even. ``source`` is the
    address where the provider defines the leaf.
    """

    path: str
    role: Role
    source: str
    group: str = ""
    add: bool = False
    meter: str = ""
    times: int = 1
    why: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One provider's usage object: its table and its rules of inclusion.

    ``version`` counts up with each change of a published table. ``needs`` are names of the object of which at least
    one must be there, unless the object is empty. ``input_includes`` are the roles (CACHED, WRITTEN) that INPUT
    includes; ``output_includes_reasoning`` is the same for REASONING in OUTPUT. ``totals`` are the ways in which the
    TOTAL may be formed: roles to add, ``group/role`` for the role of a group. ``text_may_leave_out_cache`` allows a
    TEXT_INPUT without the tokens read from and written to a cache. ``total_is_input`` makes a TOTAL that comes
    without INPUT and OUTPUT the INPUT (embeddings), ``rest_is_reasoning`` what a TOTAL has beyond INPUT and OUTPUT the
    REASONING, where no row gives it. ``flat`` says that names contain dots and nothing is nested.

    ``forms`` are the names of other dialects of the same provider: an object with a name that such a dialect waits for
    is read by it. ``when`` are those names, where they are not ``needs``: one must be a number other than 0. No row of
    the dialect begins with them, so the compiled twin, which knows no forms, leaves such an object to this one.
    """

    name: str
    version: int
    title: str
    needs: tuple[str, ...]
    rows: tuple[LeafRow, ...]
    input_includes: frozenset[Role] = INCLUDABLE
    output_includes_reasoning: bool = True
    totals: tuple[tuple[str, ...], ...] = ((Role.INPUT, Role.OUTPUT),)
    text_may_leave_out_cache: bool = False
    total_is_input: bool = False
    rest_is_reasoning: bool = False
    flat: bool = False
    forms: tuple[str, ...] = ()
    when: tuple[str, ...] = ()
    notes: str = ""
    """One or two sentences more for a person."""
    groups: tuple[str, ...] = field(init=False)
    """The groups of the rows, the empty one first."""
    by_role: Mapping[tuple[str, Role], Sequence[LeafRow]] = field(init=False, repr=False, compare=False)
    """The rows by group and role, in the table's order."""

    def __post_init__(self) -> None:
        """Check the table.

        Raises:
            ValueError: a row cannot be right; the message names it.
        """
        object.__setattr__(self, "groups", tuple(dict.fromkeys(("", *(row.group for row in self.rows)))))
        by_role: dict[tuple[str, Role], list[LeafRow]] = {}
        for row in self.rows:
            by_role.setdefault((row.group, row.role), []).append(row)
        object.__setattr__(self, "by_role", by_role)
        for problem in table_problems(self):
            raise ValueError(f"dialect {self.name}: {problem}")


@dataclass(frozen=True, slots=True)
class PathStep:
    """One name of a path: a field, or the items of a list; with ``key``, those whose text ``key`` is ``value``."""

    name: str
    is_list: bool = False
    key: str = ""
    value: str = ""


def path_steps(path: str, flat: bool = False) -> tuple[PathStep, ...]:
    """Return the steps of a row's path.

    Raises:
        ValueError: the path is not written as :class:`LeafRow` says.
    """
    if flat:
        return (PathStep(path),)
    steps = []
    for part in path.split("."):
        name, bracket, rest = part.partition("[")
        if not name or (bracket and not rest.endswith("]")):
            raise ValueError(f"the path {path} has the part {part!r}: expected name, name[] or name[key=value]")
        key, _, value = rest[:-1].partition("=")
        if bool(key) != bool(value):
            raise ValueError(f"the path {path} has the part {part!r}: expected name, name[] or name[key=value]")
        steps.append(PathStep(name, bool(bracket), key, value))
    return tuple(steps)


def from_source(source: str, roles: Mapping[str, Role], *, group: str = "", add: bool = False) -> tuple[LeafRow, ...]:
    """Return rows of one source, by path."""
    return tuple(LeafRow(path, role, source, group=group, add=add) for path, role in roles.items())


def counted(source: str, meters: Mapping[str, str], *, times: int = 1, add: bool = False) -> tuple[LeafRow, ...]:
    """Return rows of counts of their own: path to meter."""
    return tuple(LeafRow(path, Role.METER, source, meter=meter, times=times, add=add) for path, meter in meters.items())


def not_billed(source: str, why: str, *paths: str, meter: str = "") -> tuple[LeafRow, ...]:
    """Return rows that are known and not billed for one reason; ``meter`` is one that a price book may declare."""
    return tuple(LeafRow(path, Role.NOT_BILLED, source, why=why, meter=meter) for path in paths)


def table_problems(dialect: Dialect) -> Iterator[str]:
    """Return what is wrong with a table, as sentences."""
    seen: dict[str, LeafRow] = {}
    selectors: dict[tuple[str, ...], str] = {}
    parents: set[tuple[str, ...]] = set()
    leaves: set[tuple[str, ...]] = set()
    for row in dialect.rows:
        if row.path in seen:
            yield f"{row.path} has two rows"
        seen[row.path] = row
        yield from _row_problems(row)
        place: tuple[str, ...] = ()
        steps = path_steps(row.path, dialect.flat)
        for number, step in enumerate(steps):
            place = (*place, step.name)
            if step.is_list and selectors.setdefault(place, step.key) != step.key:
                yield f"{row.path}: the items of one list are told apart by one field only"
            place = (*place, f"[{step.value}]") if step.is_list else place
            (leaves if number == len(steps) - 1 else parents).add(place)
        if steps[-1].is_list and row.role is not Role.NOT_BILLED:
            yield f"{row.path}: a list of numbers has no names"
    for place in sorted(leaves & parents):
        yield f"{'.'.join(place)} is both a number and an object"
    for name in (*dialect.needs, *dialect.when):
        if not any(path_steps(path, dialect.flat)[0].name == name for path in seen):
            yield f"needs {name}, which no row begins with"
    yield from _total_problems(dialect)


def _row_problems(row: LeafRow) -> Iterator[str]:
    if not row.source.startswith("https://"):
        yield f"{row.path} has no source: expected an address that begins with https://"
    if row.role is Role.METER and not row.meter:
        yield f"{row.path} becomes a meter, and no meter is named"
    if row.meter and row.role not in (Role.METER, Role.NOT_BILLED):
        yield f"{row.path} names the meter {row.meter}, and is {row.role}"
    if "*" in row.path and (row.role is not Role.NOT_BILLED or not row.path.endswith(".*") or row.path.count("*") > 1):
        yield f"{row.path}: * may be the last name of a count that is not billed"
    if row.role is Role.NOT_BILLED and row.meter in METERS:
        yield f"{row.path} may become {row.meter}, which is built in and not declared by a book"
    if (row.role is Role.NOT_BILLED) != bool(row.why):
        yield f"{row.path}: a reason is given where, and only where, a count is not billed"
    if row.times < 1:
        yield f"{row.path} is multiplied by {row.times}: expected 1 or more"


def _total_problems(dialect: Dialect) -> Iterator[str]:
    if not dialect.input_includes <= INCLUDABLE:
        yield "input_includes has a role that no input includes"
    if dialect.rest_is_reasoning and not rows_of(dialect, Role.REASONING):
        yield "rest_is_reasoning needs a row of the reasoning"
    if any(row.role is Role.TOTAL and row.group for row in dialect.rows):
        yield "a group has no grand total"
    for name in (name for total in dialect.totals for name in total):
        group, _, role = name.rpartition("/")
        if not any(row.group == group and row.role == role for row in dialect.rows):
            yield f"the total adds {name}, which no row has"


def rows_of(dialect: Dialect, role: Role, group: str = "") -> Sequence[LeafRow]:
    """Return the rows of a role in a group, in the table's order."""
    return dialect.by_role.get((group, role), ())
