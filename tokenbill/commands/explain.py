"""``tokenbill explain``: why usage events cost what they cost, from the events and the catalogue alone."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from billing.pricing.explain_text import explain_as_text
from billing.pricing.lines import BookRater, encode_line
from tokenbill.commands.catalog import open_catalog
from tokenbill.commands.rate import choose_book, open_file
from tokenbill.errors import UserError

EXAMPLE = """
\b
Example:
  tokenbill explain examples/events.jsonl --catalog examples/catalog --id call-01JD9Z6N
  tokenbill explain examples/events.jsonl --catalog examples/catalog --format json
"""
_PATH = click.Path(path_type=Path)


@click.command(epilog=EXAMPLE)
@click.argument("events", metavar="EVENTFILE", type=_PATH)
@click.option("--catalog", "catalog_dir", required=True, type=_PATH, help="Folder of the catalogue.")
@click.option("--price-book", metavar="NAME", help="Price by this book; default: the only one of the catalogue.")
@click.option("--id", "wanted", metavar="ID", help="Only the events with this id.")
@click.option(
    "--format",
    "as_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: one line each.",
)
def explain(events: Path, catalog_dir: Path, price_book: str | None, wanted: str | None, as_: str) -> None:
    """Say why each usage event of EVENTFILE (JSON lines; - is stdin) costs what it costs.

    Which version of the book, which row won and why the others did not, every adjustment, every coefficient, the local
    time that decided. The JSON is that of rate --explain. What period rules count is counted from the first line on.
    """
    catalog = open_catalog(catalog_dir)
    rater = BookRater(catalog, choose_book(catalog, price_book))
    told = 0
    with ExitStack() as stack:
        source = open_file(stack, events, "rb")
        for value in source:
            if not value.strip():
                continue
            line = rater.line(value, explained=True, only=wanted)  # a line that is not wanted counts for those after it
            if wanted is not None and line["id"] != wanted:
                continue
            text = encode_line(line) if as_ == "json" else (b"\n" if told else b"") + explain_as_text(line).encode()
            sys.stdout.buffer.write(text)
            told += 1
        sys.stdout.buffer.flush()
    if wanted is not None and not told:
        raise UserError(f"{events} has no event with the id {wanted!r}", "", "look up the id with tokenbill rate")
