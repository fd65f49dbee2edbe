"""The rules of docs/reference/code-style.md that a machine can check.

Each rule is a plain function from a text to the violations in it, line by line, so that a canary can show that the rule
still rejects.
"""

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from python_source import parse

ROOT = Path(__file__).resolve().parents[2]
Rule = Callable[[str], list[str]]


def tracked_files() -> list[Path]:
    """Return every file that a commit would contain: tracked by git, and not deleted in the work tree."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def python_files(*folders: str) -> list[Path]:
    """Return the Python modules below some folders of the repository, tracked or not."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _at(node: ast.AST, what: str) -> str:
    return f"line {getattr(node, 'lineno', 1)}: {what}"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _joins_paths(node: ast.BinOp) -> bool:
    """True if a division joins paths, as in ``folder / "name"`` or ``folder / name / "x"``."""
    inner = node.left
    return (
        _is_text(node.right)
        or _is_text(inner)
        or (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Div) and _joins_paths(inner))
        or (isinstance(inner, ast.Name) and inner.id in ("folder", "root"))
    )


def _seconds_to_wait(tree: ast.AST) -> set[int]:
    """Return the ids of the nodes that give a time to wait: value and type of a ``…_seconds``. They are not money."""
    parts: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) and node.arg.endswith("_seconds"):
            parts.append(node.annotation)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if all(isinstance(target, ast.Name) and target.id.lower().endswith("_seconds") for target in targets):
                parts += [node.value, getattr(node, "annotation", None)]
    return {id(inner) for part in parts if part is not None for inner in ast.walk(part)}


def no_binary_fractions(source: str) -> list[str]:
    """No ``float``, no fraction literal, no true division: money and quantities are integers."""
    found = []
    tree = parse(source)
    waits = _seconds_to_wait(tree)
    for node in ast.walk(tree):
        if id(node) in waits:
            continue
        if isinstance(node, ast.Name) and node.id in ("float", "complex"):
            found.append(_at(node, f"uses {node.id}"))
        elif isinstance(node, ast.Constant) and isinstance(node.value, (float, complex)):
            found.append(_at(node, f"has the literal {node.value!r}"))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and not _joins_paths(node):
            found.append(_at(node, "divides with /"))
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Div):
            found.append(_at(node, "divides with /="))
        elif isinstance(node, ast.Attribute) and node.attr in ("truediv", "fsum"):
            found.append(_at(node, f"uses {node.attr}"))
    return found


CLOCKS = {
    ("time", name)
    for name in (
        "time",
        "time_ns",
        "monotonic",
        "monotonic_ns",
        "perf_counter",
        "perf_counter_ns",
        "localtime",
        "gmtime",
    )
}
CLOCKS |= {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}
RANDOM_MODULES = {"random", "secrets", "uuid"}


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{name.name}" for name in node.names)


def no_clock_or_randomness(source: str) -> list[str]:
    """A decision reads no clock but the log's time and no randomness: the same input gives the same decision."""
    found = []
    for node in ast.walk(parse(source)):
        for name in _imported(node):
            head, _, tail = name.partition(".")
            if head in RANDOM_MODULES or (head, tail) in CLOCKS or name == "os.urandom":
                found.append(_at(node, f"imports {name}"))
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if (owner, node.attr) in CLOCKS or (owner, node.attr) == ("os", "urandom"):
                found.append(_at(node, f"reads {owner}.{node.attr}"))
    return found


def says_what_it_is(source: str) -> list[str]:
    """Every module has a docstring."""
    return [] if ast.get_docstring(parse(source)) else ["line 1: the module has no docstring"]


_RIDDLES = re.compile(r"^\s*(What|Whether|Who|How)\b|\b(told|tells|whoever|so many)\b", re.IGNORECASE)


def docstrings_are_plain(source: str) -> list[str]:
    """A docstring opens with what a thing is or does, and uses the words of the field."""
    texts = [
        node
        for block in ast.walk(parse(source))
        for node in (getattr(block, "body", None) if isinstance(getattr(block, "body", None), list) else ())
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    found = [(node, match) for node in texts if (match := _RIDDLES.search(node.value.value))]  # type: ignore[attr-defined]
    return [_at(node, f"a docstring with {match[0].strip()!r}: say what the thing is or does") for node, match in found]


def packages_list_their_exports(source: str) -> list[str]:
    """An ``__init__.py`` that defines or imports names lists the public ones in ``__all__``."""
    body = parse(source).body
    assigned = {ast.unparse(target) for node in body if isinstance(node, ast.Assign) for target in node.targets}
    named = [node for node in body if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))]
    return ["line 1: names without __all__"] if named and "__all__" not in assigned else []


def core_stays_behind_its_doors(source: str) -> list[str]:
    """Only the interfaces of the core in ``billing.calculator`` (``compiled``, ``core_*``) import ``cython_ext``."""
    return [
        _at(node, f"imports {name}")
        for node in ast.walk(parse(source))
        for name in _imported(node)
        if name.partition(".")[0] == "cython_ext"
    ]


KAFKA_CLIENT = re.compile(r"(?:confluent_kafka|aiokafka)\b.*\.\w*(?:Producer|Consumer|Client)")


def _full_names(tree: ast.Module) -> dict[str, str]:
    """Each imported name of a module with the dotted name of what it stands for."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                head = one.name if one.asname else one.name.partition(".")[0]
                names[one.asname or head] = head
        elif isinstance(node, ast.ImportFrom):
            names |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
    return names


def _annotations(tree: ast.Module) -> set[int]:
    """The nodes within annotations, which name a type and construct nothing."""
    parts: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.arg, ast.AnnAssign)):
            parts.append(node.annotation)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            parts.append(node.returns)
    return {id(inner) for part in parts if part is not None for inner in ast.walk(part)}


def kafka_clients_are_made_in_one_module(source: str) -> list[str]:
    """Only ``streams.kafka_clients`` constructs Kafka clients; elsewhere their classes stand in annotations only."""
    found = []
    tree = parse(source)
    full, types_only = _full_names(tree), _annotations(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in types_only:
            head, dot, tail = ast.unparse(node).partition(".")
            name = full.get(head, head) + dot + tail
            if KAFKA_CLIENT.fullmatch(name):
                found.append(_at(node, f"uses {name}"))
    return found


def broad_handlers_give_a_reason(source: str) -> list[str]:
    """A handler of every exception raises again, or gives the reason in a comment on its line or before its body."""
    lines = source.splitlines()
    found = []
    for node in ast.walk(parse(source)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
        if node.type is not None and not names & {"Exception", "BaseException"}:
            continue
        if isinstance(node.body[-1], ast.Raise):
            continue
        head = lines[node.lineno - 1 : node.body[0].lineno]
        reasons = [line.partition("#")[2].replace("noqa: BLE001", "").strip(" -#") for line in head]
        if not any(reasons):
            found.append(_at(node, "catches everything and does not say why"))
    return found


def asserts_only_in_tests(source: str) -> list[str]:
    """Invariants of production code are raised: ``python -O`` removes asserts."""
    return [_at(node, "asserts; raise instead") for node in ast.walk(parse(source)) if isinstance(node, ast.Assert)]


_LATER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")


def nothing_is_left_for_later(source: str) -> list[str]:
    """No marker of unfinished work."""
    return [f"line {n}: {line.strip()}" for n, line in enumerate(source.splitlines(), 1) if _LATER.search(line)]


SKIPPING = {"skip", "skipif", "xfail", "importorskip", "skipIf", "skipUnless", "expectedFailure", "SkipTest"}


def nothing_is_skipped(source: str) -> list[str]:
    """No test is skipped or expected to fail."""
    found = []
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in SKIPPING:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in ("mark", "pytest", "unittest"):
                found.append(_at(node, f"uses {owner}.{node.attr}"))
        found += [_at(node, f"imports {n}") for n in _imported(node) if n.rpartition(".")[2] in SKIPPING]
    return found


def nothing_is_mocked(source: str) -> list[str]:
    """Tests use the real parts, not mocks."""
    found = []
    for node in ast.walk(parse(source)):
        found += [_at(node, f"imports {n}") for n in _imported(node) if n.startswith(("unittest.mock", "mock"))]
    return found


_PLACES = re.compile(
    r"pypi\." + r"org|pythonhosted\." + r"org|maven\." + r"(?:org|apache)|repo1?\.maven|registry\.npmjs|"
    r"(?:aliyun|tuna\.tsinghua|huaweicloud|tencent)[a-z.]*/(?:pypi|simple)|"
    r"(?<![\w.])/(?:root|work|home/[a-z]+|Users/[a-z]+)/"
)


def names_no_machine(source: str) -> list[str]:
    """No address of a package registry and no folder of one machine."""
    return [f"line {n}: {line.strip()[:120]}" for n, line in enumerate(source.splitlines(), 1) if _PLACES.search(line)]


_REAL = re.compile(r"\b(?:float|double)\b")


def errors_and_money_survive_cython(source: str) -> list[str]:
    """In Cython, no ``noexcept`` function touches a binary fraction, and no signature has ``float``.

    ``float`` has 32 bits there; with ``noexcept``, an error becomes 0.
    """
    found = []
    for number, line in enumerate(source.splitlines(), 1):
        code = line.partition("#")[0]
        if not re.match(r"\s*(?:cp?def|cdef\s+inline|ctypedef)\b", code):
            continue
        if re.search(r"\bfloat\b", code):
            found.append(f"line {number}: float in a declaration is 32 bits")
        if "noexcept" in code and _REAL.search(code):
            found.append(f"line {number}: noexcept beside a binary fraction")
    return found
