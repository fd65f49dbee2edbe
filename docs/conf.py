"""Settings of the documentation site: the Markdown pages of the whole repository, built by Sphinx in strict mode.

Pages hold no markup of the site generator, so that they read the same on a code host. What a site needs beyond the
pages is added here while they are read: the navigation, and links to folders.
"""

import re
import shutil
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "Tokenbill"
author = "the contributors of Tokenbill"
copyright = f"{author}, Apache-2.0"
language = "en"

extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
highlight_language = "none"

root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "**/README.md"]
exclude_patterns = [".*", "**/.*", "build", "**/node_modules", "**/site-packages"]

html_theme = "furo"
html_title = "Tokenbill"
html_copy_source = False
html_show_sphinx = False

NAVIGATION = (
    ("Start", ("docs/ARCHITECTURE", "docs/GLOSSARY", "docs/customer-life", "docs/consuming-our-topics")),
    ("Guides", ("docs/price-books", "docs/plans", "docs/subscriptions", "docs/http-api", "docs/webhooks")),
    ("Operations", ("docs/OPERATIONS", "docs/promises", "docs/threats")),
    ("Reference", ("docs/reference/README", "docs/reference/*")),
    ("Decisions", ("docs/decisions/README", "docs/decisions/*")),
    ("Project", ("CONTRIBUTING", "SECURITY", "CHANGELOG")),
    ("Code", ("*/README",)),
)
"""Sections of the sidebar: a caption, and pages or patterns in order. A page belongs to the first that names it."""

_LINK = re.compile(r"\[(?P<label>[^\]\[]+)\]\((?P<target>[^()\s#]+)\)")


def navigation(pages: set[str]) -> str:
    """Return the sidebar as directives of the start page; every page of the site but the start page is in it."""
    left = pages - {root_doc}
    sections = []
    for caption, patterns in NAVIGATION:
        entries: list[str] = []
        for pattern in patterns:
            found = sorted(page for page in left if Path(page).match(pattern))
            entries += found
            left -= set(found)
        lines = "\n".join(f"/{entry}" for entry in entries)
        sections.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n")
    return "".join(sections)


def resolve_folders(text: str, folder: Path) -> str:
    """Point links to folders at their README.md, and leave the label alone where a folder has none."""

    def replace(link: re.Match[str]) -> str:
        target = folder / link["target"]
        if "://" in link["target"] or not target.is_dir():
            return link[0]
        if (target / "README.md").is_file():
            return f"[{link['label']}]({link['target'].rstrip('/')}/README.md)"
        return link["label"]

    return _LINK.sub(replace, text)


def read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Complete a page as it is read."""
    source[0] = resolve_folders(source[0], Path(app.env.doc2path(page)).parent)
    if page == root_doc:
        source[0] += navigation(set(app.env.found_docs))


def add_index(app: Sphinx, error: Exception | None) -> None:
    """Let the start page answer for the folder of the site."""
    if error is None and app.builder.format == "html":
        shutil.copyfile(Path(app.outdir) / f"{root_doc}.html", Path(app.outdir) / "index.html")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the functions above to Sphinx."""
    app.connect("source-read", read_page)
    app.connect("build-finished", add_index)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
