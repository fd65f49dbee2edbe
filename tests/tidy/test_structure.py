"""Structure of the product: no circle of imports, and one meaning for a name."""

from pathlib import Path

import pytest
from house_rules import ROOT, python_files
from structure import (
    circles,
    defined_twice,
    import_graph,
    module_name,
    packages_of,
    public_classes,
    public_constants,
)

PRODUCT = ("billing", "schemas", "streams", "tokenbill", "benchmarks")
SOURCES = {
    module_name(path, ROOT): path.read_text(encoding="utf-8")
    for path in python_files(*PRODUCT)
    if "migrations" not in path.parts
}
GRAPH = import_graph(SOURCES)
PACKAGES = sorted({name.rpartition(".")[0] for name in SOURCES})
VERBS = "tokenbill.commands"
"""Its modules are named after the commands that they run, whatever other module does the work."""


def test_no_modules_import_each_other() -> None:
    assert len(GRAPH) > 250
    assert circles(GRAPH) == []


@pytest.mark.parametrize("parent", PACKAGES, ids=lambda name: name or "top")
def test_no_packages_import_each_other(parent: str) -> None:
    assert circles(packages_of(GRAPH, parent)) == []


@pytest.mark.parametrize(
    "sources",
    [
        {"a": "import b", "b": "from a import x"},
        {"a": "import b", "b": "import c", "c": "def f():\n    import a"},
        {"p": "", "p.a": "from p import b", "p.b": "import p.a"},
    ],
    ids=["two", "three, one of them late", "in a package"],
)
def test_a_circle_of_modules_is_a_canary(sources: dict[str, str]) -> None:
    assert circles(import_graph(sources)) == [sorted(name for name in sources if name != "p")]


def test_a_circle_of_packages_is_a_canary() -> None:
    graph = import_graph({"p.a.one": "import p.b.two", "p.b.two": "", "p.b.three": "import p.a.four", "p.a.four": ""})
    assert circles(graph) == []
    assert circles(packages_of(graph, "p")) == [["p.a", "p.b"]]
    assert circles(packages_of(graph, "")) == []


def test_no_two_modules_have_one_file_name() -> None:
    names = [
        (name.rpartition(".")[2], name)
        for name in SOURCES
        if not (ROOT / Path(*name.split("."))).is_dir() and not name.startswith((VERBS, "benchmarks"))
    ]
    assert defined_twice(names) == []


def test_no_two_public_classes_have_one_name() -> None:
    assert defined_twice((name, where) for where, text in SOURCES.items() for name in public_classes(text)) == []


def test_no_public_constant_has_two_meanings() -> None:
    assert defined_twice((name, where) for where, text in SOURCES.items() for name in public_constants(text)) == []


def test_names_defined_twice_are_canaries() -> None:
    one, two = "class A: ...\nBb = dict[str, int]\nC = 1\nD: int = 2\n", "class Bb: ...\nC, E = 3, 4\n_A = A = 5\n"
    sources = {"one": one, "two": two}
    classes = defined_twice((name, where) for where, text in sources.items() for name in public_classes(text))
    constants = defined_twice((name, where) for where, text in sources.items() for name in public_constants(text))
    assert classes == ["Bb: one, two"] and constants == ["C: one, two"]
    assert defined_twice([("SUSPENDED", "m"), ("SUSPENDED", "m")]) == ["SUSPENDED: m, m"]
