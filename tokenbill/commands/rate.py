"""``tokenbill rate``: what each usage event of a file costs, without servers."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from billing.catalog import Catalog
from billing.pricing import Rated, Rater, rated_as_json, rejection_as_json
from billing.pricing.explain import explain
from schemas.rejections import Rejection
from schemas.times import format_time_us
from schemas.usage import UsageEvent, parse_usage
from tokenbill.commands.catalog import open_catalog
from tokenbill.errors import UserError

EXAMPLE = """
\b
Example:
  tokenbill rate --catalog examples/catalog --events events.jsonl --out rated.jsonl
  tokenbill rate --catalog examples/catalog --events events.jsonl --explain
"""

_LINES_PER_STEP = 1_000
_PATH = click.Path(path_type=Path)


class BookRater:
    """Prices the events of a file by the versions of one book, each by the version in force at its time."""

    def __init__(self, catalog: Catalog, name: str) -> None:
        self.name = name
        self.rated = 0
        self.rejected = 0
        self._catalog = catalog
        versions = [book for book in catalog.price_books if book.name == name]
        self._declared = frozenset(meter for book in versions for meter in book.meters)
        self._raters = {book.version: Rater(book) for book in versions}

    def line(self, value: bytes, *, explained: bool = False) -> dict[str, object]:
        """The line of output for a line of input; explained with the key ``explain``, where a book is in force."""
        event = parse_usage(value, declared_meters=self._declared)
        if isinstance(event, Rejection):
            self.rejected += 1
            return rejection_as_json(event)
        result = self._rate(event)
        if isinstance(result, Rejection):
            self.rejected += 1
        else:
            self.rated += 1
        line = rated_as_json(event, result)
        if explained and (rater := self._rater(event)) is not None:
            line["explain"] = explain(event, rater.index)
        return line

    def _rater(self, event: UsageEvent) -> Rater | None:
        """The version in force at an event's time."""
        book = self._catalog.price_book_at(self.name, event.time_us)
        return None if book is None else self._raters[book.version]

    def _rate(self, event: UsageEvent) -> Rated | Rejection:
        rater = self._rater(event)
        if rater is None:
            first = min(book.effective_from_us for book in self._catalog.price_books if book.name == self.name)
            detail = (
                f"no version of {self.name} is in force at {format_time_us(event.time_us)}; "
                f"the first begins at {format_time_us(first)}"
            )
            return Rejection("no_price_book", detail, event.source, event.id, event.sequence, event.account)
        return rater.rate(event)


def choose_book(catalog: Catalog, name: str | None) -> str:
    """The book to price by: the one named, else the only one.

    Raises:
        UserError: there is none of that name, or not exactly one.
    """
    books = ", ".join(catalog.books)
    if name is not None:
        if name not in catalog.books:
            raise UserError(
                f"there is no price book {name!r}", f"the catalogue has {books or 'none'}", "name one of it"
            )
        return name
    if not books:
        raise UserError("the catalogue has no price book", "", "add an entry of kind price_book")
    if len(catalog.books) > 1:
        raise UserError("the catalogue has several price books", books, "choose one with --price-book NAME")
    return catalog.books[0]


@click.command(epilog=EXAMPLE)
@click.option("--catalog", "catalog_dir", required=True, type=_PATH, help="Folder of the catalogue.")
@click.option("--events", required=True, type=_PATH, help="JSON lines of usage events; - is stdin.")
@click.option("--price-book", metavar="NAME", help="Price by this book; default: the only one of the catalogue.")
@click.option("--out", type=_PATH, help="Write here instead of standard output.")
@click.option("--explain", "explained", is_flag=True, help="Add to each line why it costs that.")
def rate(catalog_dir: Path, events: Path, price_book: str | None, out: Path | None, explained: bool) -> None:
    """Price usage events: one JSON line for each, with the amount or the reason why there is none.

    Needs no servers, applies no time limits and does not look for duplicates. Blank lines are left out.
    """
    catalog = open_catalog(catalog_dir)
    rater = BookRater(catalog, choose_book(catalog, price_book))
    with ExitStack() as stack:
        source = open_file(stack, events, "rb")
        target = sys.stdout.buffer if out is None else open_file(stack, out, "wb")
        advance = stack.enter_context(_progress(events))
        _rate_lines(rater, source, target, advance, explained)
    click.echo(f"{rater.rated} rated, {rater.rejected} rejected", err=True)


def open_file(stack: ExitStack, path: Path, mode: str) -> BinaryIO:
    """Open a file that a person named; ``-`` is standard input.

    Raises:
        UserError: it cannot be opened.
    """
    if str(path) == "-" and mode == "rb":
        return sys.stdin.buffer
    try:
        return stack.enter_context(path.open(mode))  # type: ignore[return-value]
    except OSError as error:
        verb, fix = ("read", "give a file of JSON lines") if mode == "rb" else ("write", "give another file")
        raise UserError(f"cannot {verb} {path}", error.strerror or str(error), fix) from error


def _rate_lines(
    rater: BookRater, source: BinaryIO, target: BinaryIO, advance: Callable[[int], None], explained: bool
) -> None:
    done = 0
    for number, line in enumerate(source, 1):
        done += len(line)
        if line.strip():
            target.write(encode_line(rater.line(line, explained=explained)))
        if number % _LINES_PER_STEP == 0:
            advance(done)
            done = 0
    target.flush()
    advance(done)


def encode_line(document: dict[str, object]) -> bytes:
    """A line of output."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


@contextmanager
def _progress(events: Path) -> Iterator[Callable[[int], None]]:
    """A bar over the bytes of the file, on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal or not events.is_file():
        yield lambda _bytes: None
        return
    columns = (TextColumn("rating"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("rating", total=events.stat().st_size)
        yield lambda size: progress.advance(task, size)
