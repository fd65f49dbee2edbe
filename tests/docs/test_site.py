"""The documentation site builds in strict mode without a network, and every link of every page resolves."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
BUILD = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise OSError(f"the build wants the network: {event} {arguments}")

sys.addaudithook(refuse)
from sphinx.cmd.build import main
sys.exit(main(sys.argv[1:]))
"""


def pages() -> list[Path]:
    """Every Markdown page that git knows, or would know after the next commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout.decode()
    return sorted({path for name in listed.split("\0") if name and (path := ROOT / name).is_file()})


def _tokens(text: str) -> Iterator[Token]:
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or ()


def headings(text: str) -> list[str]:
    """The headings of a page as plain text."""
    tokens = MARKDOWN.parse(text)
    return [
        "".join(part.content for part in after.children or () if part.type in ("text", "code_inline"))
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]


def anchors(text: str) -> set[str]:
    """The anchors that a code host gives the headings of a page."""
    found: set[str] = set()
    for heading in headings(text):
        plain = slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 0
        while slug in found:
            number += 1
            slug = f"{plain}-{number}"
        found.add(slug)
    return found


def links(text: str) -> list[str]:
    """The targets of links and images of a page."""
    targets = (token.attrs.get("href") or token.attrs.get("src") for token in _tokens(text))
    return [str(target) for target in targets if target]


def broken_links(page: Path, text: str) -> list[str]:
    """The relative links of a page whose file or heading does not exist."""
    broken = []
    for target in links(text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target, re.IGNORECASE):
            continue
        name, _, anchor = MarkdownIt().normalizeLinkText(target).partition("#")
        file = (page.parent / name).resolve() if name else page
        if name.startswith("/") or not file.is_relative_to(ROOT):
            broken.append(f"{target}: leaves the repository")
        elif name and not file.exists():
            broken.append(f"{target}: there is no such file")
        elif anchor and file.suffix == ".md":
            content = text if file == page else file.read_text(encoding="utf-8")
            if anchor not in anchors(content):
                broken.append(f"{target}: there is no such heading")
    return broken


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
