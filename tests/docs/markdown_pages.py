"""The Markdown pages of the repository as the tests read them: headings, anchors, links, and what they point at."""

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
MARKDOWN = MarkdownIt("commonmark").enable("table")
CODE_PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)+\.(?:hpp|jsonl|lock|md|py|pyx|pxd|toml|txt|ya?ml)")


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


def missing_paths(text: str) -> list[str]:
    """The paths of source files that a page names as code and that do not exist."""
    spans = {token.content for token in _tokens(text) if token.type == "code_inline"}
    return sorted(span for span in spans if CODE_PATH.fullmatch(span) and not (ROOT / span).is_file())
