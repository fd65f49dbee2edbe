"""Names in docstrings and pages that the product does not have.

Modules are parsed, not imported. An attribute is known if its class, or a base of it in the product, binds it in its
body or assigns it to ``self``. Names of other libraries are not checked beyond their first part.
"""

import ast
import builtins
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

from python_source import parse

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("benchmarks", "billing", "cython_ext", "schemas", "streams", "tokenbill")
ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|obj):`~?([\w.]+)(?:\(\))?`")
SPAN = re.compile(rf"(?<![:\w`])`{{1,2}}((?:{'|'.join(PRODUCT)})(?:\.\w+)+)(?:\(\))?`{{1,2}}(?!`)")
RAISES = re.compile(r"^ *Raises:\n((?: .*\n|\n)+)", re.MULTILINE)
RAISED = re.compile(r"^ +((?:[A-Z]\w+(?:, )?)+): ", re.MULTILINE)
Scope = dict[str, ast.AST | str]
"""Names bound in a body: to the definition, or to the dotted name that was imported."""


@cache
def parsed(module: str) -> ast.Module | None:
    """Return the module or package of the product, from its stub if it is compiled; None if there is none."""
    path = ROOT.joinpath(*module.split("."))
    for file in (path / "__init__.py", path.with_suffix(".py"), path.with_suffix(".pyi")):
        if file.is_file():
            return parse(file.read_text(encoding="utf-8"))
    return None


def _bound(body: Iterable[ast.AST]) -> Scope:
    scope: Scope = {}
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            scope[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            scope |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            scope |= {name.asname or name.name.partition(".")[0]: name.name for name in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            scope |= {one.id: node for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return scope


def _members(module: str, owner: ast.ClassDef) -> Scope:
    scope: Scope = {}
    for base in owner.bases:
        found = _looked_up(ast.unparse(base).split("."), module)
        if found is not None and isinstance(found[1], ast.ClassDef):
            scope |= _members(found[0], found[1])
    for node in ast.walk(owner):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            scope[node.attr] = node
    return scope | _bound(owner.body)


def _within(parts: Sequence[str], scope: Scope, module: str) -> tuple[str, ast.AST] | None:
    """Return the module and the node of a dotted name; the node is a :class:`ast.Pass` outside the product."""
    found = scope.get(parts[0])
    if isinstance(found, str):
        return _absolute([*found.split("."), *parts[1:]])
    if isinstance(found, ast.ClassDef) and len(parts) > 1:
        return _within(parts[1:], _members(module, found), module)
    return None if found is None or len(parts) > 1 else (module, found)


def _absolute(parts: Sequence[str]) -> tuple[str, ast.AST] | None:
    if parts[0] not in PRODUCT:
        # Not importlib.util.find_spec: Faust leaves a module without a spec in sys.modules, which it refuses.
        known = parts[0] in sys.stdlib_module_names or PathFinder.find_spec(parts[0]) is not None
        return (parts[0], ast.Pass()) if known else None
    for size in range(len(parts), 0, -1):
        module = ".".join(parts[:size])
        if (tree := parsed(module)) is not None:
            return (module, tree) if size == len(parts) else _within(parts[size:], _bound(tree.body), module)
    return None


def _looked_up(parts: Sequence[str], module: str) -> tuple[str, ast.AST] | None:
    tree = parsed(module)
    found = None if tree is None else _within(parts, _bound(tree.body), module)
    if found is None and (len(parts) > 1 or parts[0] in PRODUCT):
        found = _absolute(parts)
    return found


def texts(tree: ast.AST, owners: tuple[ast.ClassDef, ...] = ()) -> Iterator[tuple[str, tuple[ast.ClassDef, ...]]]:
    """Yield the docstrings of a module, its definitions and attributes, with the classes around each, inner first."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value, owners
        yield from texts(node, (node, *owners) if isinstance(node, ast.ClassDef) else owners)


def missing_roles(source: str, module: str) -> list[str]:
    """Return the names in roles such as ``:func:`` that a module of the product cannot mean."""
    tree = parse(source)
    missing = []
    for text, owners in texts(tree):
        for name in ROLE.findall(text):
            parts = name.split(".")
            scopes = [*(_members(module, owner) for owner in owners), _bound(tree.body)]
            known = any(_within(parts, scope, module) for scope in scopes) or _looked_up(parts, module)
            if not known and not hasattr(builtins, name):
                missing.append(name)
    return missing


def missing_exceptions(source: str, classes: Collection[str]) -> list[str]:
    """Return the exceptions in ``Raises:`` that are not built in, not bound in the module, and not in ``classes``."""
    tree = parse(source)
    named = [
        name
        for text, _ in texts(tree)
        for block in RAISES.findall(text)
        for names in RAISED.findall(block)
        for name in names.split(", ")
    ]
    bound = _bound(tree.body)
    return [name for name in named if name not in classes and name not in bound and not hasattr(builtins, name)]


def missing_spans(text: str, literals: str = "") -> list[str]:
    """Return the dotted names in backticks that the product lacks; a text in quotes in ``literals`` is no name."""
    names = (name for name in SPAN.findall(text) if not re.search(rf"['\"]{re.escape(name)}['\"]", literals))
    return [name for name in names if _absolute(name.split(".")) is None]
