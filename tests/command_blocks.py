"""The fenced blocks of shell commands on the Markdown pages of the repository."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[1]
SHELLS = ("sh", "bash", "shell", "console")


@dataclass(frozen=True, slots=True)
class CommandBlock:
    """A fenced block of shell commands on a page."""

    page: str
    """Path of the page in the repository."""
    line: int
    text: str

    @property
    def first(self) -> str:
        """The first command without its comment, by which tests name the block."""
        return self.text.splitlines()[0].partition("#")[0].strip()


def command_blocks() -> Iterator[CommandBlock]:
    """Yield every block of shell commands on any page that git knows, or would know after the next commit."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in sorted({one for one in names if one and (ROOT / one).is_file()}):
        for token in MarkdownIt("commonmark").parse((ROOT / name).read_text(encoding="utf-8")):
            if token.type == "fence" and token.info.strip() in SHELLS:
                yield CommandBlock(name, token.map[0] + 1 if token.map else 0, token.content)
