"""``tokenbill rate``: what each usage event of a file costs, without servers."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from billing.calculator.core_rater import CompiledRater
from billing.catalog import Catalog
from billing.pricing.lines import BookRater, encode_line
from tokenbill.commands.catalog import open_catalog
from tokenbill.errors import UserError

EXAMPLE = """
\b
Example:
  tokenbill rate --catalog examples/catalog --events examples/events.jsonl --out rated.jsonl
  tokenbill rate --catalog examples/catalog --events examples/events.jsonl --explain
"""

_LINES_PER_STEP = 1_000
_BYTES_PER_STEP = 1 << 18  # with what is written for them they stay in the cache
_PATH = click.Path(path_type=Path)


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

    Needs no servers, applies no time limits and does not look for duplicates. Blank lines are left out. Where prices
    depend on a period, usage is counted per account in the order of the file, from nothing at the first line, in
    memory; what is missing to a commitment at the end of a period is not charged here (simulate does).
    """
    catalog = open_catalog(catalog_dir)
    name = choose_book(catalog, price_book)
    plain, compiled = BookRater(catalog, name), CompiledRater(catalog, name)
    with ExitStack() as stack:
        source = open_file(stack, events, "rb")
        target = sys.stdout.buffer if out is None else open_file(stack, out, "wb")
        advance = stack.enter_context(_progress(events))
        if explained:
            explain_lines(plain, source, target, advance)
        else:
            rate_lines(compiled, source, target, advance)
    click.echo(f"{plain.rated + compiled.rated} rated, {plain.rejected + compiled.rejected} rejected", err=True)


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


def rate_lines(
    rater: CompiledRater, source: BinaryIO, target: BinaryIO, advance: Callable[[int], None] = lambda _bytes: None
) -> None:
    """Price the lines of a file of any size in bounded memory; a line longer than the buffer makes it wider."""
    text = bytearray(_BYTES_PER_STEP)
    held = 0
    while True:
        if 2 * (held + 1) > len(text):
            text.extend(bytes(len(text)))
        with memoryview(text) as room:
            read = source.readinto1(room[held:-1])  # type: ignore[attr-defined]  # the last byte is the rater's
        held += read
        taken, output = rater.rate(text, held, ended=not read)
        target.write(output)
        text[: held - taken] = text[taken:held]
        held -= taken
        advance(read)
        if not read:
            break
    target.flush()


def explain_lines(rater: BookRater, source: BinaryIO, target: BinaryIO, advance: Callable[[int], None]) -> None:
    """Price the lines of a file the plain way, and say why each costs that."""
    done = 0
    for number, line in enumerate(source, 1):
        done += len(line)
        if line.strip():
            target.write(encode_line(rater.line(line, explained=True)))
        if number % _LINES_PER_STEP == 0:
            advance(done)
            done = 0
    target.flush()
    advance(done)


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
