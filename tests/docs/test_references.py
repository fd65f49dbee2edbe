"""Docstrings and comments cite pages and headings that exist: ``(docs/reference/plans.md, "Windows")``.

A heading may be cited without the Chinese words that follow it in parentheses.
"""

import re
import subprocess
from pathlib import Path

import pytest
from markdown_pages import ROOT, headings

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
