"""``tokenbill catalog import-litellm`` and ``import-sheet``: price lists of others as price books.

The rules are in :mod:`billing.catalog.importers`; here files are read and written.
"""

from pathlib import Path

import click

from billing.catalog.importers.litellm import DEFAULT_EFFECTIVE_FROM, Imported, import_price_map
from billing.catalog.importers.litellm_source import SourceError
from billing.catalog.importers.values import count_by_reason
from billing.catalog.importers.write import write_books
from schemas.times import parse_time_us
from tokenbill.errors import UserError

LITELLM_EXAMPLE = """
\b
Example:
  tokenbill catalog import-litellm model_prices_and_context_window.json --out catalog/litellm
"""
_PATH = click.Path(path_type=Path)


@click.command("import-litellm", epilog=LITELLM_EXAMPLE)
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder for litellm.yaml and litellm-left-out.txt.")
@click.option(
    "--effective-from", metavar="T", default=DEFAULT_EFFECTIVE_FROM, show_default=True, help="When it begins."
)
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Version of the book.")
def import_litellm(file: Path, out: Path, effective_from: str, version: int) -> None:
    """Make the price book "litellm" (USD) of LiteLLM's price map FILE.

    Every price that a price book can express is in OUT/litellm.yaml. Each one that it cannot is in
    OUT/litellm-left-out.txt, by key and field, with the reason.
    """
    begins = check_time(effective_from)
    try:
        imported = import_price_map(read_text(file), begins, version)
    except SourceError as error:
        raise UserError(f"{file} is not a price map of LiteLLM", str(error), "give its JSON file as it is") from error
    write_text(out / "litellm-left-out.txt", _left_out(imported))
    if imported.book is None:
        raise UserError(
            f"{file} has no price that can be imported",
            f"{len(imported.left_out)} fields were left out",
            f"read {out / 'litellm-left-out.txt'}",
        )
    write_text(out / "litellm.yaml", write_books([imported.book]))
    click.echo(f"{imported.imported_keys} of {imported.keys} keys, {imported.imported_fields} price fields imported")
    click.echo(f"{len(imported.book.rows)} rows in {out / 'litellm.yaml'}")
    click.echo(f"{len(imported.left_out)} left out, each in {out / 'litellm-left-out.txt'}:")
    for reason, number in count_by_reason(imported.left_out).items():
        click.echo(f"  {number:>6}  {reason}")


def _left_out(imported: Imported) -> str:
    """The list as text: key, field, reason and detail, separated by tabs."""
    return "key\tfield\treason\tdetail\n" + "".join(f"{entry}\n" for entry in imported.left_out)


def check_time(text: str) -> str:
    """A time with offset as it was written.

    Raises:
        UserError: it is not one.
    """
    try:
        parse_time_us(text)
    except ValueError as error:
        fix = "write a time with offset such as 2026-11-01T00:00:00+08:00"
        raise UserError(f"{text!r} is not a time", str(error), fix) from error
    return text


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {path}", error.strerror or str(error), "give the file to import") from error
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}", "it is not UTF-8 text", "save it as UTF-8") from error


def write_text(path: Path, text: str) -> None:
    """Write a file, with its folder.

    Raises:
        UserError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}", error.strerror or str(error), "give another folder") from error
