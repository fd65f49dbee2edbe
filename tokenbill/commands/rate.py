"""``tokenbill rate``: prices the usage events of a file, without servers."""

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
from tokenbill.usage_settings import NOTE, unknown_usage_option
from tokenbill.user_errors import UserError

_EXAMPLE = """
\b
Example:
  tokenbill rate --catalog examples/catalog --events examples/events.jsonl --out rated.jsonl
  tokenbill rate --catalog examples/catalog --events examples/events.jsonl --explain
"""

_LINES_PER_STEP = 1_000
_BYTES_PER_STEP = 1 << 18  # small enough that input and output stay in the processor's cache
_PATH = click.Path(path_type=Path)


def choose_book(catalog: Catalog, name: str | None) -> str:
    """Return the name of the price book to use: ``name``, else the only one of the catalogue.

    Raises:
        UserError: no price book has that name, or the catalogue does not have exactly one.
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


@click.command(epilog=_EXAMPLE)
@click.option("--catalog", "catalog_dir", required=True, type=_PATH, help="Folder of the catalogue.")
@click.option("--events", required=True, type=_PATH, help="File of usage events, JSON lines; - is standard input.")
@click.option("--price-book", metavar="NAME", help="Price book to use [default: the only one of the catalogue].")
@click.option("--out", type=_PATH, help="Output file [default: standard output].")
@click.option("--explain", "explained", is_flag=True, help="Add an explanation of the price to each line.")
@unknown_usage_option
def rate(
    catalog_dir: Path, events: Path, price_book: str | None, out: Path | None, explained: bool, unknown_usage: str
) -> None:
    """Price usage events: one JSON line per event, with the amount or the reason of the rejection.

    The command needs no servers, applies no time limits and does not detect duplicates. It skips blank lines. Where
    prices depend on a period, usage is counted in memory, per account and in file order, from zero at the first line.
    The shortfall of a commitment at the end of a period is not charged here (simulate charges it). Numbers of usage
    objects that --unknown-usage note leaves out are counted on standard error.
    """
    catalog = open_catalog(catalog_dir)
    name = choose_book(catalog, price_book)
    noting = unknown_usage == NOTE
    plain, compiled = BookRater(catalog, name, note_unknown=noting), CompiledRater(catalog, name, note_unknown=noting)
    with ExitStack() as stack:
        source = open_file(stack, events, "rb")
        target = sys.stdout.buffer if out is None else open_file(stack, out, "wb")
        advance = stack.enter_context(_progress(events))
        if explained:
            explain_lines(plain, source, target, advance)
        else:
            rate_lines(compiled, source, target, advance)
    noted = [*plain.unknown, *compiled.unknown]
    if noted:
        left_out = plain.with_unknown + compiled.with_unknown
        click.echo(f"{left_out} events have numbers that their dialect does not know, the first: {noted[0]}", err=True)
    click.echo(f"{plain.rated + compiled.rated} rated, {plain.rejected + compiled.rejected} rejected", err=True)


def open_file(stack: ExitStack, path: Path, mode: str) -> BinaryIO:
    """Open a file given on the command line; ``-`` is standard input.

    Raises:
        UserError: the file cannot be opened.
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
    """Price the lines of a file of any size in bounded memory; the buffer grows to hold the longest line."""
    text = bytearray(_BYTES_PER_STEP)
    held = 0
    while True:
        if 2 * (held + 1) > len(text):
            text.extend(bytes(len(text)))
        with memoryview(text) as room:
            read = source.readinto1(room[held:-1])  # type: ignore[attr-defined]  # the rater needs the last byte
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
    """Price the lines of a file with the plain rater and add an explanation to each."""
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
    """Show a progress bar over the bytes of the file on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal or not events.is_file():
        yield lambda _bytes: None
        return
    columns = (TextColumn("rating"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("rating", total=events.stat().st_size)
        yield lambda size: progress.advance(task, size)
