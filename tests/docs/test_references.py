"""Docstrings and comments cite pages and headings that exist: ``(docs/reference/plans.md, "Windows")``.

A heading may be cited without the Chinese words that follow it in parentheses. Docstrings and pages name modules,
classes, functions and exceptions of the product that exist.
"""

import re
import subprocess
from pathlib import Path

import pytest
from markdown_pages import ROOT, headings, pages
from python_names import PRODUCT, missing_exceptions, missing_roles, missing_spans

CITED = re.compile(r"(?<![\w./-])(?P<page>docs/[\w./-]+\.md)(?:,(?P<gap>[\s#/*]+)\"(?P<heading>[^\"]{1,120})\")?")
SOURCES = ("*.py", "*.pyx", "*.pxd", "*.pyi", "*.hpp", "*.toml", "*.yaml", "*.yml", "Makefile", "docker/Dockerfile")


def sources() -> list[Path]:
    """Every source file that git knows, without the tests of this folder."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *SOURCES], cwd=ROOT, check=True, capture_output=True
    ).stdout.decode()
    files = sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())
    return [path for path in files if path.parent != Path(__file__).parent]


def wrong_citations(text: str) -> list[str]:
    """The citations of a text whose page or heading does not exist."""
    wrong = []
    for cited in CITED.finditer(text):
        page = ROOT / cited["page"]
        if not page.is_file():
            wrong.append(f"{cited['page']}: there is no such page")
        elif cited["heading"] is not None:
            heading = " ".join(re.sub(r"\n[\s#/*]*", " ", cited["heading"]).split())
            known = headings(page.read_text(encoding="utf-8"))
            if heading not in known and heading not in (one.partition(" (")[0] for one in known):
                wrong.append(f"{cited['page']} has no heading {heading!r}")
    return wrong


def test_cited_pages_and_headings_exist() -> None:
    assert sources()
    found = [
        f"{path.relative_to(ROOT)}: {wrong}"
        for path in sources()
        for wrong in wrong_citations(path.read_text(encoding="utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "canary",
    [
        "see docs/nowhere.md",
        '(docs/reference/plans.md, "Nowhere")',
        '(docs/reference/plans.md,\n    "Nowhere")',
        '# (docs/reference/plans.md,\n# "Void and\n# nothing")',
    ],
)
def test_a_wrong_citation_is_rejected(canary: str) -> None:
    assert wrong_citations(canary)


@pytest.mark.parametrize(
    "fine",
    [
        "docs/reference/plans.md",
        '(docs/reference/plans.md, "Windows")',
        '(docs/plans.md, "Sharing")',
        '# (docs/reference/plans.md,\n# "Void and\n# correction")',
        "build/docs/nowhere.md",
    ],
)
def test_a_right_citation_passes(fine: str) -> None:
    assert wrong_citations(fine) == []


def test_names_in_docstrings_and_pages_exist() -> None:
    texts = {path.relative_to(ROOT): path.read_text(encoding="utf-8") for path in (*sources(), *pages())}
    python = {path: text for path, text in texts.items() if path.suffix in (".py", ".pyi")}
    modules = {path: ".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in python}
    ours = "\n".join(text for path, text in python.items() if path.parts[0] in PRODUCT)
    classes = set(re.findall(r"^ *class (\w+)", ours, re.MULTILINE))
    found = [
        f"{path}: {name}"
        for path, text in texts.items()
        for name in (
            *missing_spans(text, ours),
            *(missing_roles(text, modules[path]) if path in python else ()),
            *(missing_exceptions(text, classes) if path in python else ()),
        )
    ]
    assert found == []


@pytest.mark.parametrize(
    "canary",
    [
        ":mod:`billing.nowhere`",
        ":class:`billing.errors.Nothing`",
        ":meth:`Burned.nothing`",
        ":attr:`billing.accounts.account.Account.nothing`",
        ":func:`nothing`",
        ":data:`~billing.tax.NOTHING`",
    ],
)
def test_a_role_that_points_at_nothing_is_rejected(canary: str) -> None:
    assert missing_roles(f'"""See {canary}."""', "billing.burning.deduct")


@pytest.mark.parametrize(
    "fine",
    [
        ":mod:`billing.tax`",
        ":class:`Burned`",
        ":attr:`Burned.charged_pico`",
        ":attr:`~streams.worker.intake.Intake.tail`",
        ":class:`billing.engine.commit_draft.CommitDraft`",
        ":class:`cython_ext.records.PackedRecords`",
        ":class:`decimal.Decimal`",
        ":class:`ValueError`",
    ],
)
def test_a_role_that_points_at_something_passes(fine: str) -> None:
    assert missing_roles(f'"""See {fine}."""', "billing.burning.deduct") == []


def test_a_name_in_backticks_that_does_not_exist_is_found() -> None:
    text = "`billing.store.Store`, ``streams.errors``, `billing.store.store.Store`, `tokenbill.feed`, `usage.events`"
    assert missing_spans(text, 'getLogger("tokenbill.feed")') == ["billing.store.Store", "streams.errors"]


def test_an_exception_that_does_not_exist_is_found() -> None:
    source = '"""One.\n\nRaises:\n    Nothing: a.\n    Fenced, ValueError: b.\n    KafkaException: c.\n"""\n'
    assert missing_exceptions(f"{source}from kafka import KafkaException\n", {"Fenced"}) == ["Nothing"]
