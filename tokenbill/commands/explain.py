"""``tokenbill explain``: explains the price of usage events from the events and the catalogue, without servers."""

import sys
from contextlib import ExitStack
from pathlib import Path

import click

from billing.pricing.explain_text import explain_as_text
from billing.pricing.lines import BookRater, encode_line
from tokenbill.commands.catalog import open_catalog
from tokenbill.commands.rate import choose_book, open_file
from tokenbill.user_errors import UserError

_EXAMPLE = """
\b
Example:
  tokenbill explain examples/events.jsonl --catalog examples/catalog --id call-01JD9Z6N
  tokenbill explain examples/events.jsonl --catalog examples/catalog --format json
"""
_PATH = click.Path(path_type=Path)


@click.command(epilog=_EXAMPLE)
@click.argument("events", metavar="EVENTFILE", type=_PATH)
@click.option("--catalog", "catalog_dir", required=True, type=_PATH, help="Folder of the catalogue.")
@click.option("--price-book", metavar="NAME", help="Price book to use [default: the only one of the catalogue].")
@click.option("--id", "wanted", metavar="ID", help="Explain only the events with this id.")
@click.option(
    "--format",
    "as_",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Output format; json prints one line per event.",
)
def explain(events: Path, catalog_dir: Path, price_book: str | None, wanted: str | None, as_: str) -> None:
    """Explain the price of each usage event of EVENTFILE (JSON lines; - is standard input).

    The explanation gives the version of the price book, the winning row and why the other rows did not win, every
    adjustment, every coefficient, and the local time that applied. The JSON format is that of rate --explain. Usage for
    period rules is counted from the first line on.
    """
    catalog = open_catalog(catalog_dir)
    rater = BookRater(catalog, choose_book(catalog, price_book))
    told = 0
    with ExitStack() as stack:
        source = open_file(stack, events, "rb")
        for value in source:
            if not value.strip():
                continue
            # Every line is rated, because period rules count it for the lines after it; `only` limits the explanation.
            line = rater.line(value, explained=True, only=wanted)
            if wanted is not None and line["id"] != wanted:
                continue
            text = encode_line(line) if as_ == "json" else (b"\n" if told else b"") + explain_as_text(line).encode()
            sys.stdout.buffer.write(text)
            told += 1
        sys.stdout.buffer.flush()
    if wanted is not None and not told:
        raise UserError(f"{events} has no event with the id {wanted!r}", "", "look up the id with tokenbill rate")
