"""Structure of the product: which module imports which, circles among modules and packages, and names defined twice."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from python_source import parse

Graph = dict[str, set[str]]
"""Module or package to those that it imports."""


def module_name(path: Path, root: Path) -> str:
    """Return the dotted name of a module; of a package's ``__init__.py`` the package's."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def import_graph(sources: Mapping[str, str]) -> Graph:
    """Return the imports among the modules given by name and source, those within functions included.

    A module's import of its own package does not count: Python runs ``__init__.py`` before the module anyway.
    """
    return {name: {other for other in _imports(source, sources) if other != name} for name, source in sources.items()}


def _imports(source: str, known: Iterable[str]) -> Iterator[str]:
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [name if name in known else node.module for name in named]
        else:
            continue
        yield from (name for name in named if name in known)


def packages_of(graph: Graph, parent: str) -> Graph:
    """Collapse the modules below ``parent`` ("" for the top) into its direct children."""
    prefix = f"{parent}." if parent else ""

    def child(name: str) -> str | None:
        return prefix + name[len(prefix) :].split(".")[0] if name.startswith(prefix) and name != parent else None

    found: Graph = defaultdict(set)
    for name, others in graph.items():
        if (mine := child(name)) is not None:
            found[mine] |= {there for other in others if (there := child(other)) is not None and there != mine}
    return dict(found)


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of nodes that import each other, directly or through others; sorted."""
    reach = {node: _reached(graph, node) for node in graph}
    found = {frozenset(other for other in reach[node] if node in reach.get(other, ())) for node in graph}
    return sorted(sorted(group) for group in found if group)


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    front = [start]
    while front:
        for other in graph.get(front.pop(), ()):
            if other not in seen:
                seen.add(other)
                front.append(other)
    return seen


def public_classes(source: str) -> Iterator[str]:
    """Yield the public classes and type aliases that a module defines at its top level."""
    for node in parse(source).body:
        if isinstance(node, ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [one.id for one in targets if isinstance(one, ast.Name) and not one.id.isupper()]
            names = [name for name in names if name[:1].isupper()]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def public_constants(source: str) -> Iterator[str]:
    """Yield the public constants that a module defines at its top level; one that is assigned twice, twice."""
    for node in parse(source).body:
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            for name in target.elts if isinstance(target, ast.Tuple) else [target]:
                if isinstance(name, ast.Name) and name.id.isupper() and not name.id.startswith("_"):
                    yield name.id


def defined_twice(names: Iterable[tuple[str, str]]) -> list[str]:
    """Return "name: place, place" for each name that stands in (name, place) pairs more than once."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return sorted(f"{name}: {', '.join(sorted(found))}" for name, found in places.items() if len(found) > 1)
