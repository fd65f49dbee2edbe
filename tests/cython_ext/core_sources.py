"""Reads the sources of the core: the constants they define, the fields of their structs, the texts in their code."""

import ast
import io
import re
import tokenize
from pathlib import Path

from python_source import parse

CORE = Path(__file__).resolve().parents[2] / "cython_ext"
SOURCES = sorted(path for path in CORE.iterdir() if path.suffix in (".pxd", ".pyx", ".hpp"))

_ENUM_OF_CPP = re.compile(r"\benum\b[^{;]*\{(.*?)\}", re.DOTALL)
_CONSTANT_OF_CPP = re.compile(r"\bstatic const(?:expr)? u?int\d*_t ([^;()]+);")
_CONSTANT_OF_CYTHON = re.compile(r"^cdef (?:const )?u?int\d*_t (\w+ = .*)$")
_ENUM_OF_CYTHON = re.compile(r"^(\s*)(?:cdef |cpdef )?enum(?: \w+)?:$")
_STRUCT_OF_CYTHON = re.compile(r"^cdef struct (\w+):$")


def _without_comments(name: str, source: str) -> str:
    if name.endswith(".hpp"):
        return re.sub(r"//.*", "", source)
    source = re.sub(r'"""[\s\S]*?"""', lambda text: "\n" * text.group().count("\n"), source)
    return re.sub(r"#.*", "", source)


def _block(lines: list[str], head: int) -> list[str]:
    """The lines below a head that are indented further."""
    indent = len(lines[head]) - len(lines[head].lstrip())
    block = []
    for line in lines[head + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        block.append(line.strip())
    return [line for line in block if line]


def _value(text: str, known: dict[str, int]) -> int:
    """An integer expression of C++ or Cython: literals, names that are known, shifts and signs."""
    (statement,) = parse(re.sub(r"(?<=[0-9A-Fa-f])[uUlL]+\b", "", text).strip()).body
    if not isinstance(statement, ast.Expr):
        raise ValueError(f"{text!r} is no expression")
    return _computed(statement.value, known)


def _computed(node: ast.expr, known: dict[str, int]) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_computed(operand, known)
        case ast.BinOp(left=left, op=ast.LShift(), right=right):
            return _computed(left, known) << _computed(right, known)
    raise ValueError(f"{ast.unparse(node)} is no constant")


def constants(name: str, source: str, known: dict[str, int] | None = None) -> dict[str, int]:
    """Constants that a source defines, by name; ``known`` are those of sources that it includes.

    Names whose values are elsewhere (enums of ``cdef extern``) are left out.
    """
    code = _without_comments(name, source)
    groups: list[list[str]] = []
    if name.endswith(".hpp"):
        groups += [re.split(r",", body) for body in _ENUM_OF_CPP.findall(code)]
        groups += [[one] for body in _CONSTANT_OF_CPP.findall(code) for one in body.split(",")]
    else:
        lines = code.splitlines()
        extern: set[int] = set()
        for number, line in enumerate(lines):
            if line.lstrip().startswith("cdef extern"):
                extern.update(range(number, number + 1 + _length(lines, number)))
        for number, line in enumerate(lines):
            if number not in extern and _ENUM_OF_CYTHON.match(line.rstrip()):
                groups.append(",".join(_block(lines, number)).split(","))
            elif number not in extern and (found := _CONSTANT_OF_CYTHON.match(line.rstrip())):
                groups.append([found.group(1)])
    defined: dict[str, int] = {}
    for group in groups:
        following = 0
        for item in group:
            if not item.strip():
                continue
            label, _, text = (part.strip() for part in item.partition("="))
            defined[label] = _value(text, (known or {}) | defined) if text else following
            following = defined[label] + 1
    return defined


def _length(lines: list[str], head: int) -> int:
    """Return the number of lines below a head that are indented further."""
    indent = len(lines[head]) - len(lines[head].lstrip())
    length = 0
    for line in lines[head + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        length += 1
    return length


def constants_of_core() -> dict[str, int]:
    """All constants of the core, as ``file:NAME``."""
    known: dict[str, int] = {}
    found: dict[str, int] = {}
    for path in sorted(SOURCES, key=lambda path: (path.suffix != ".hpp", path.suffix != ".pxd", path.name)):
        of_file = constants(path.name, path.read_text(encoding="utf-8"), known)
        if path.suffix != ".pyx":
            known |= of_file
        found |= {f"{path.name}:{label}": value for label, value in of_file.items()}
    return found


def structs(name: str, source: str) -> dict[str, list[tuple[str, str]]]:
    """Fields of the structs of a Cython source, by struct: (type, name) in order."""
    lines = _without_comments(name, source).splitlines()
    found: dict[str, list[tuple[str, str]]] = {}
    for number, line in enumerate(lines):
        if head := _STRUCT_OF_CYTHON.match(line.rstrip()):
            fields = [re.fullmatch(r"(.*\S)\s+(\w+)", field) for field in _block(lines, number)]
            found[head.group(1)] = [(field.group(1), field.group(2)) for field in fields if field]
    return found


def texts(source: str) -> set[str]:
    """Texts in the code of a Cython source that look like a name of the wire form or of a rule."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    quoted = {token.string[1:-1] for token in tokens if token.type == tokenize.STRING and token.string[0] == '"'}
    return {text for text in quoted if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]+", text)}
