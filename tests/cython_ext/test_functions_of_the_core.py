"""Functions of the core are short, say what they do, and do not lose an error."""

import re
from dataclasses import dataclass

import pytest
from core_sources import SOURCES

LONGEST = 60
"""Lines: what fits one screen."""
_HEAD = re.compile(r"^(\s*)(?:cpdef|cdef(?: inline)?|def)\b[^=]*?\b(\w+)\(")
_ALLOCATES = re.compile(r"\.(?:push_back|resize|reserve|insert|assign)\(|\braise\b|\bmalloc\(|\bwith gil\b")


@dataclass(frozen=True)
class Function:
    name: str
    head: str
    body: str
    lines: int


def functions(source: str) -> list[Function]:
    """The functions of a Cython source that have a body."""
    lines = source.splitlines()
    found = []
    for number, line in enumerate(lines):
        start = _HEAD.match(line)
        if start is None:
            continue
        end = number
        while "".join(lines[number : end + 1]).count("(") > "".join(lines[number : end + 1]).count(")"):
            end += 1
        if not lines[end].rstrip().endswith(":"):
            continue  # a declaration
        indent = len(start.group(1))
        last = end + 1
        while last < len(lines) and (not lines[last].strip() or len(lines[last]) - len(lines[last].lstrip()) > indent):
            last += 1
        body = "\n".join(lines[end + 1 : last]).rstrip()
        head = " ".join(part.strip() for part in lines[number : end + 1])
        found.append(Function(start.group(2), head, body, end - number + 2 + body.count("\n")))
    return found


def problems(source: str) -> list[str]:
    """Return the faults of the functions of a Cython source."""
    found = []
    for function in functions(source):
        if function.lines > LONGEST:
            found.append(f"{function.name} has {function.lines} lines")
        if "noexcept" in function.head and _ALLOCATES.search(re.sub(r"#.*", "", function.body)):
            found.append(f"{function.name} is noexcept, and may fail")
        if function.head.startswith("cdef") and not function.body.lstrip().startswith(('"""', "#")):
            found.append(f"{function.name} does not say what it does")
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if path.suffix != ".hpp"], ids=lambda path: path.name)
def test_functions_are_short_say_what_they_do_and_keep_errors(path: object) -> None:
    assert problems(path.read_text(encoding="utf-8")) == []  # type: ignore[attr-defined]


def test_every_function_is_looked_at() -> None:
    names = {function.name for path in SOURCES if path.suffix != ".hpp" for function in functions(path.read_text())}
    assert {"_decide", "_apply", "_plan_payment", "earned_of", "put", "run", "_put_line", "decode", "to_wide"} <= names


LONG = "cdef int f() except -1:\n    '''x'''\n" + "    x = 1\n" * LONGEST


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (LONG.replace("'''", '"""'), ["f has 62 lines"]),
        ('cdef int f() noexcept nogil:\n    """Add."""\n    x.push_back(1)\n', ["f is noexcept, and may fail"]),
        (
            'cdef int f(\n    int a,\n) noexcept nogil:\n    """Add."""\n    with gil:\n        raise ValueError\n',
            ["f is noexcept, and may fail"],
        ),
        ("cdef int f() except -1:\n    return 0\n", ["f does not say what it does"]),
        ('cdef class A:\n    cdef inline int f(self) noexcept nogil:\n        """A."""\n        return 0\n', []),
        ("cdef class A:\n    cdef int f(self, int a) except -1 nogil\n    cdef int x\n", []),
        ('cdef int f() except -1 nogil:\n    """Add."""\n    x.push_back(1)\n    return 0\n', []),
    ],
)
def test_what_is_wrong_is_found(source: str, expected: list[str]) -> None:
    assert problems(source) == expected
