"""The documentation site builds in strict mode without a network, and every link of every page resolves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_pages import ROOT, broken_links, missing_paths, pages

BUILD = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError(f"the build wants the network: {event} {arguments}")

sys.addaudithook(refuse)
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def build(source: Path, settings: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build a site in strict mode, without a network."""
    arguments = ["-W", "--keep-going", "-q", "-c", str(settings), "-d", str(out / "doctrees"), "-b", "html"]
    return subprocess.run(
        [sys.executable, "-c", BUILD, *arguments, str(source), str(out / "site")],
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_and_anchor_resolves(page: Path) -> None:
    assert broken_links(page, page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "canary",
    [
        "[a](nowhere.md)",
        "[a](plans.md#nowhere)",
        "[a](#nowhere)",
        "[a](../billing/nowhere.py)",
        "[a](../../outside.md)",
        "| t |\n|---|\n| [a](nowhere.md) |",
        "![a](nowhere.png)",
        "[a][b]\n\n[b]: nowhere.md",
    ],
)
def test_a_broken_link_is_rejected(canary: str) -> None:
    assert broken_links(ROOT / "docs" / "page.md", f"# A page\n\n{canary}\n")


def test_links_that_resolve_pass() -> None:
    text = (
        "# One page\n\n## Two (二)\n\n## Two (二)\n\n[a](plans.md) [b](#one-page) [c](#two-二) [d](#two-二-1) "
        "[e](plans.md#windows-限速窗口) [f](../billing/ledger.py) [g](decisions) [h](https://example.org/x#y)\n\n"
        "```\n[i](nowhere.md)\n```\n"
    )
    assert broken_links(ROOT / "docs" / "page.md", text) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_source_file_that_a_page_names_exists(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_a_source_file_that_does_not_exist_is_found() -> None:
    assert missing_paths("see `billing/nowhere.py`, `billing/ledger.py`, `a/b`") == ["billing/nowhere.py"]


def test_the_site_builds_in_strict_mode_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    done = build(ROOT, ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    assert (site / "index.html").is_file()
    built = {path.relative_to(site).with_suffix(".md") for path in site.rglob("*.html")}
    assert {page.relative_to(ROOT) for page in pages() if ".github" not in page.parts} <= built
    loads = re.compile(
        r"""<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)=["'](?:https?:)?//|@import|url\(["']?https?:"""
    )
    for file in (*site.rglob("*.html"), *site.rglob("*.css")):
        assert loads.findall(file.read_text(encoding="utf-8")) == [], file


@pytest.mark.parametrize("canary", ["[a](nowhere.md)", "[a](README.md#nowhere)", "[a](nowhere.py)"])
def test_a_site_with_a_broken_link_does_not_build(canary: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "README.md").write_text(f"# Start\n\n{canary}\n", encoding="utf-8")
    done = build(source, ROOT / "docs", tmp_path)
    assert done.returncode != 0
    assert "myst.xref_missing" in done.stdout + done.stderr
