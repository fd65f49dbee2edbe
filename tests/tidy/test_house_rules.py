"""The house rules as tests: each rule on its files, and each with a canary that it must reject."""

import ast
import gc
import importlib.machinery
import re
from pathlib import Path

import pytest
from house_rules import (
    ROOT,
    Rule,
    asserts_only_in_tests,
    broad_handlers_give_a_reason,
    core_stays_behind_its_doors,
    docstrings_are_plain,
    errors_and_money_survive_cython,
    kafka_clients_are_made_in_one_module,
    names_no_machine,
    no_binary_fractions,
    no_clock_or_randomness,
    nothing_is_left_for_later,
    nothing_is_mocked,
    nothing_is_skipped,
    packages_list_their_exports,
    python_files,
    says_what_it_is,
    tracked_files,
)

PRODUCT = ("billing", "schemas", "streams", "tokenbill", "cython_ext")
EVERYTHING = (*PRODUCT, "tests", "benchmarks", "examples")
RULES_ONLY = [path for path in python_files("billing", "schemas") if "store" not in path.relative_to(ROOT).parts]
DOORS = [
    ROOT / "billing" / "calculator" / name
    for name in ("compiled.py", "core_prices.py", "core_rater.py", "core_records.py", "core_row_hashes.py")
]
KAFKA_CLIENTS = ROOT / "streams" / "kafka_clients.py"
PYTHON_RULES: list[tuple[Rule, list[Path]]] = [
    (no_binary_fractions, python_files("billing", "schemas")),
    (no_clock_or_randomness, RULES_ONLY),
    (says_what_it_is, python_files(*EVERYTHING)),
    (docstrings_are_plain, python_files(*EVERYTHING)),
    (core_stays_behind_its_doors, [p for p in python_files(*PRODUCT) if p not in DOORS]),
    (kafka_clients_are_made_in_one_module, [p for p in python_files(*PRODUCT) if p != KAFKA_CLIENTS]),
    (broad_handlers_give_a_reason, python_files(*EVERYTHING)),
    (asserts_only_in_tests, python_files(*PRODUCT)),
    (packages_list_their_exports, [p for p in python_files(*PRODUCT) if p.name == "__init__.py"]),
    (nothing_is_skipped, python_files("tests")),
    (nothing_is_mocked, python_files("tests")),
]
CANARIES: list[tuple[Rule, str]] = [
    (docstrings_are_plain, '"""What came of a command."""'),
    (docstrings_are_plain, 'def f():\n    """Return False; whoever asks is told why."""'),
    (packages_list_their_exports, '"""A package."""\nfrom billing.catalog.load import load_folder'),
    (no_binary_fractions, "x = float('1')"),
    (no_binary_fractions, "def f(x: float) -> None: ..."),
    (no_binary_fractions, "x = 0.1"),
    (no_binary_fractions, "x = 1e6"),
    (no_binary_fractions, "x = amount / 100"),
    (no_binary_fractions, "x = (a / b) / c"),
    (no_binary_fractions, "x /= 2"),
    (no_binary_fractions, "import operator\noperator.truediv(1, 2)"),
    (no_clock_or_randomness, "import time\ntime.time()"),
    (no_clock_or_randomness, "from time import monotonic"),
    (no_clock_or_randomness, "from datetime import datetime\ndatetime.now()"),
    (no_clock_or_randomness, "import datetime\ndatetime.datetime.utcnow()"),
    (no_clock_or_randomness, "import random"),
    (no_clock_or_randomness, "from uuid import uuid4"),
    (no_clock_or_randomness, "import os\nos.urandom(8)"),
    (says_what_it_is, "x = 1"),
    (core_stays_behind_its_doors, "from cython_ext.usage import Usage"),
    (core_stays_behind_its_doors, "import cython_ext"),
    (kafka_clients_are_made_in_one_module, "from confluent_kafka import Producer\nProducer({})"),
    (kafka_clients_are_made_in_one_module, "from confluent_kafka import Consumer as Reader\nReader({})"),
    (kafka_clients_are_made_in_one_module, "import confluent_kafka as ck\nck.Consumer({})"),
    (kafka_clients_are_made_in_one_module, "import confluent_kafka.admin\nconfluent_kafka.admin.AdminClient({})"),
    (kafka_clients_are_made_in_one_module, "from confluent_kafka import admin\nadmin.AdminClient({})"),
    (
        kafka_clients_are_made_in_one_module,
        "def f():\n  from aiokafka import AIOKafkaProducer\n  AIOKafkaProducer()",
    ),
    (kafka_clients_are_made_in_one_module, "from aiokafka import AIOKafkaConsumer\nmake = partial(AIOKafkaConsumer)"),
    (kafka_clients_are_made_in_one_module, "from confluent_kafka import Producer\nclass Mine(Producer): ..."),
    (broad_handlers_give_a_reason, "try:\n    f()\nexcept Exception:\n    pass"),
    (broad_handlers_give_a_reason, "try:\n    f()\nexcept (OSError, BaseException):  # noqa: BLE001\n    pass"),
    (broad_handlers_give_a_reason, "try:\n    f()\nexcept:\n    pass"),
    (asserts_only_in_tests, "assert paid"),
    (nothing_is_left_for_later, "x = 1  # TO" + "DO: the rest"),
    (nothing_is_left_for_later, "# FIX" + "ME"),
    (nothing_is_skipped, "import pytest\npytest.skip('slow')"),
    (nothing_is_skipped, "import pytest\n@pytest.mark.xfail\ndef test(): ..."),
    (nothing_is_skipped, "from pytest import importorskip"),
    (nothing_is_mocked, "from unittest.mock import Mock"),
    (names_no_machine, "index-url = https://pypi." + "org/simple"),
    (names_no_machine, "https://repo1.ma" + "ven.org/maven2"),
    (names_no_machine, "see /ro" + "ot/notes"),
    (names_no_machine, 'open("/wo' + 'rk/main/x")'),
    (errors_and_money_survive_cython, "cdef int64_t price(float x):"),
    (errors_and_money_survive_cython, "cdef double price(double x) noexcept nogil:"),
]
FINE: list[tuple[Rule, str]] = [
    (no_binary_fractions, 'x = folder / "name"\ny = Path(__file__).parent / "a" / "b"\nz = "0.1 / 2 float"'),
    (no_clock_or_randomness, "from datetime import datetime\ndatetime(2026, 1, 1)\nevent.time"),
    (
        kafka_clients_are_made_in_one_module,
        "from confluent_kafka import Consumer, KafkaError\nfrom faust.transport.drivers import aiokafka as aio\n"
        "def ask(reader: Consumer) -> Consumer | None: ...\nclass Mine(aio.Consumer):\n    reader: Consumer\n"
        "KafkaError(KafkaError.UNKNOWN)",
    ),
    (
        broad_handlers_give_a_reason,
        "try:\n    f()\nexcept Exception:  # whatever it was, the connection is closed\n    pass",
    ),
    (broad_handlers_give_a_reason, "try:\n    f()\nexcept ValueError:\n    pass"),
    (names_no_machine, "docs/work/x and ../root/ and https://example.cn/work/"),
    (errors_and_money_survive_cython, "cdef int64_t add(int64_t x) noexcept nogil:  # no double here"),
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize(("rule", "files"), PYTHON_RULES, ids=[rule.__name__ for rule, _ in PYTHON_RULES])
def test_rule(rule: Rule, files: list[Path]) -> None:
    assert files, "a rule over no files guards nothing"
    found = [f"{relative(path)} {wrong}" for path in files for wrong in rule(path.read_text(encoding="utf-8"))]
    assert not found, f"{rule.__doc__}\n" + "\n".join(found)


@pytest.mark.parametrize("rule", [nothing_is_left_for_later, names_no_machine], ids=lambda rule: rule.__name__)
def test_rule_of_every_tracked_file(rule: Rule) -> None:
    found = []
    for path in tracked_files():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [f"{relative(path)} {wrong}" for wrong in rule(text)]
    assert not found, f"{rule.__doc__}\n" + "\n".join(found)


@pytest.mark.parametrize(("rule", "canary"), CANARIES)
def test_a_canary_is_rejected(rule: Rule, canary: str) -> None:
    assert rule(canary)


@pytest.mark.parametrize(("rule", "source"), FINE)
def test_what_is_allowed_passes(rule: Rule, source: str) -> None:
    assert rule(source) == []


class Parsing:
    """Garbage that parses when it is collected, as a finalizer does that prints a traceback."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        ast.parse("paid = [1, (2, 3)]\n" * 50)


def test_what_is_collected_meanwhile_does_no_harm() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    thresholds = gc.get_threshold()
    try:
        for allocations in range(100, 200):
            Parsing()
            gc.set_threshold(allocations)
            says_what_it_is(source)
    finally:
        gc.set_threshold(*thresholds)


def missing_beside(folder: Path) -> list[str]:
    """Return the files missing in a folder of extensions, where each source has an interface and a compiled module."""
    sources = {path.stem for path in folder.glob("*.pyx")}
    interfaces = {path.stem for path in folder.glob("*.pyi")}
    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    compiled = {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}
    return [
        *(f"{name}.pyx without {name}.pyi" for name in sorted(sources - interfaces)),
        *(f"{name}.pyi without {name}.pyx" for name in sorted(interfaces - sources)),
        *(f"{name}.pyx is not compiled: run make build" for name in sorted(sources - compiled)),
        *(f"{name}{suffix} without {name}.pyx" for name in sorted(compiled - sources)),
    ]


def test_every_extension_has_source_interface_and_module() -> None:
    assert list((ROOT / "cython_ext").glob("*.pyx"))
    assert missing_beside(ROOT / "cython_ext") == []


def test_an_extension_without_interface_is_a_canary(tmp_path: Path) -> None:
    (tmp_path / "core.pyx").touch()
    assert missing_beside(tmp_path) == ["core.pyx without core.pyi", "core.pyx is not compiled: run make build"]


def test_cython_sources_keep_errors_and_money() -> None:
    sources = sorted((ROOT / "cython_ext").glob("*.p[yx][xd]"))
    assert sources
    found = [f"{relative(p)} {wrong}" for p in sources for wrong in errors_and_money_survive_cython(p.read_text())]
    assert not found, "\n".join(found)


def test_docker_is_no_package() -> None:
    """A package named ``docker`` would shadow the library of that name."""
    assert not list((ROOT / "docker").rglob("__init__.py"))


def test_test_modules_have_names_of_their_own() -> None:
    """The test folders are not packages, so two modules of the same name would be confused."""
    names = [path.name for path in python_files("tests") if path.name not in ("conftest.py", "__init__.py")]
    assert sorted(names) == sorted(set(names))


def test_every_verb_of_the_makefile_has_a_line_of_help() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split())
    helped = set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE))
    assert phony == helped
