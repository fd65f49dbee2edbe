"""``tokenbill catalog import-litellm`` and ``import-sheet``: conversion of external price lists to price books.

The rules are in :mod:`billing.catalog.importers`; this module reads and writes the files.
"""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

import click

from billing.catalog.importers.litellm import DEFAULT_EFFECTIVE_FROM, Imported, import_price_map
from billing.catalog.importers.litellm_source import SourceError
from billing.catalog.importers.sheet import SheetOptions, import_sheet
from billing.catalog.importers.sheet_cells import Sheet, SheetProblem, read_csv
from billing.catalog.importers.sheet_xlsx import read_xlsx
from billing.catalog.importers.values import ROUNDED_AT_MOST, count_by_reason
from billing.catalog.importers.write import write_books
from billing.catalog.timebands import zone_of
from schemas.times import parse_time_us
from schemas.units import MICRO_DIGITS, MILLION, InexactError, parse_scaled
from tokenbill.user_errors import UserError

LITELLM_EXAMPLE = """
\b
Example:
  tokenbill catalog import-litellm model_prices_and_context_window.json --out catalog/litellm
"""
SHEET_EXAMPLE = """
\b
Example:
  tokenbill catalog import-sheet examples/price-lists/prices-by-meter.csv --out catalog
"""
_PATH = click.Path(path_type=Path)
_NAME = re.compile(r"\w[\w.\-]*")
_CURRENCY = re.compile(r"[A-Z]{3}")
_ERRORS_SHOWN = 50


@click.command("import-litellm", epilog=LITELLM_EXAMPLE)
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder for litellm.yaml and litellm-left-out.txt.")
@click.option(
    "--effective-from", metavar="T", default=DEFAULT_EFFECTIVE_FROM, show_default=True, help="Start of the prices."
)
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Version of the price book.")
@click.option(
    "--round",
    "round_by",
    metavar="[PART]",
    is_flag=False,
    flag_value="1",
    help="Round a price finer than 1e-12 per unit if that changes it by at most this part of it; without a part, by "
    "any, but never to 0 [default: 1e-9].",
)
def import_litellm(file: Path, out: Path, effective_from: str, version: int, round_by: str | None) -> None:
    """Convert LiteLLM's price map FILE to the price book "litellm" (USD).

    Every price that a price book can express is written to OUT/litellm.yaml. Every other price is listed in
    OUT/litellm-left-out.txt by key and field, with the reason, and so are fields that the importer does not know.
    Prices that are rounded are listed in OUT/litellm-rounded.txt with the relative error.
    """
    begins = check_time(effective_from)
    at_most = ROUNDED_AT_MOST if round_by is None else _part(round_by)
    try:
        imported = import_price_map(read_text(file), begins, version, at_most)
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
    write_text(out / "litellm-rounded.txt", _rounded(imported))
    click.echo(f"{imported.imported_keys} of {imported.keys} keys, {imported.imported_fields} price fields imported")
    click.echo(f"{len(imported.book.rows)} rows in {out / 'litellm.yaml'}")
    if imported.rounded:
        worst = max(one.error for one in imported.rounded)
        click.echo(
            f"{len(imported.rounded)} prices rounded by at most {worst:.3E} of them, each in"
            f" {out / 'litellm-rounded.txt'}"
        )
    click.echo(f"{len(imported.left_out)} left out, each in {out / 'litellm-left-out.txt'}:")
    for reason, number in count_by_reason(imported.left_out).items():
        click.echo(f"  {number:>6}  {reason}")


@click.command("import-sheet", epilog=SHEET_EXAMPLE)
@click.argument("file", metavar="FILE", type=_PATH)
@click.option("--out", required=True, type=_PATH, help="Folder for NAME.yaml.")
@click.option("--sheet", default="", help="Sheet of an XLSX workbook; required if several sheets have content.")
@click.option("--name", default="", help="Name of the price book [default: the name of the file].")
@click.option("--version", type=click.IntRange(1), default=1, show_default=True, help="Number of the first version.")
@click.option("--currency", default="", help="Currency such as CNY [default: the currency stated in the sheet].")
@click.option("--effective-from", metavar="T", default="", help="Start of the prices in rows without a date.")
@click.option("--timezone", default="Asia/Shanghai", show_default=True, help="Time zone of the dates in the sheet.")
@click.option("--tax-rate", default="", help="Tax rate included in the prices, such as 0.06 [default: by currency].")
def import_sheet_command(
    file: Path,
    out: Path,
    sheet: str,
    name: str,
    version: int,
    currency: str,
    effective_from: str,
    timezone: str,
    tax_rate: str,
) -> None:
    """Convert the price sheet FILE (CSV or XLSX) to a price book.

    The first row holds headers in English or Chinese, such as 模型, 硬件, 能源, 计量项, 单价(元/百万), 生效日期.
    Prices are either in one column, with the meter in another, or in one column per meter. Each date becomes a version
    of the price book. If any row has an error, nothing is written.
    """
    options = SheetOptions(
        name=_matching(_NAME, name or file.stem, "a name of letters, digits, '_', '.' and '-'"),
        version=version,
        currency=_matching(_CURRENCY, currency, "a currency code such as CNY") if currency else "",
        effective_from=check_time(effective_from) if effective_from else "",
        timezone=_zone(timezone),
        tax_rate=_tax_rate(tax_rate) if tax_rate else "",
    )
    try:
        books = import_sheet(_read_sheet(file, sheet), options)
    except SheetProblem as problem:
        shown = [f"  {error}" for error in problem.errors[:_ERRORS_SHOWN]]
        if len(problem.errors) > len(shown):
            shown.append(f"  and {len(problem.errors) - len(shown)} more")
        raise UserError(f"{file} cannot be imported", "\n" + "\n".join(shown), "correct these cells") from problem
    target = out / f"{options.name}.yaml"
    write_text(target, write_books(books))
    for book in books:
        prices = sum(len(row.per_million) for row in book.rows)
        label = f"{book.name}@{book.version} from {book.effective_from}"
        click.echo(f"{label}: {prices} prices in {len(book.rows)} rows, {book.currency}")
    click.echo(f"written to {target}")


def _read_sheet(path: Path, sheet: str) -> Sheet:
    """Read the sheet of a file.

    Raises:
        UserError: the file cannot be read, or is neither XLSX nor CSV.
        SheetProblem: the content is not a valid sheet.
    """
    if path.suffix.lower() == ".xlsx":
        return read_xlsx(path.name, _read_bytes(path), sheet)
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or sheet:
        what = "has no sheets" if sheet else f"has a name that ends in {path.suffix!r}"
        raise UserError(f"{path} {what}", "", "give an XLSX workbook, or CSV without --sheet")
    return read_csv(path.name, _read_bytes(path))


def _matching(pattern: re.Pattern[str], text: str, expected: str) -> str:
    if not pattern.fullmatch(text):
        raise UserError(f"{text!r} is not {expected}")
    return text


def _zone(name: str) -> str:
    try:
        zone_of(name)
    except ValueError as error:
        raise UserError(f"{name!r} is not a time zone", "", "write one such as Asia/Shanghai") from error
    return name


def _tax_rate(text: str) -> str:
    try:
        rate = parse_scaled(text, MICRO_DIGITS)
    except InexactError as error:
        raise UserError(f"{text!r} is not a tax rate", str(error), "write a decimal such as 0.06") from error
    if not 0 <= rate <= MILLION:
        raise UserError(f"{text!r} is not a tax rate", "", "write a decimal from 0 to 1 such as 0.06")
    return text


def _left_out(imported: Imported) -> str:
    """Return the fields left out as text: key, field, reason and detail, separated by tabs."""
    return "key\tfield\treason\tdetail\n" + "".join(f"{entry}\n" for entry in imported.left_out)


def _rounded(imported: Imported) -> str:
    """Return the rounded prices as text: key, field, price, rounded price and relative error, separated by tabs."""
    return "key\tfield\tprice\trounded\trelative error\n" + "".join(f"{entry}\n" for entry in imported.rounded)


def _part(text: str) -> Decimal:
    try:
        part = Decimal(text)
    except InvalidOperation:
        part = Decimal(-1)
    if not 0 <= part <= 1:
        raise UserError(f"{text!r} is not a part of a price", "", "write --round, or --round with 0 to 1 such as 1e-6")
    return part


def check_time(text: str) -> str:
    """Return ``text`` unchanged if it is a time with an offset.

    Raises:
        UserError: the text is not a time with an offset.
    """
    try:
        parse_time_us(text)
    except ValueError as error:
        fix = "write a time with offset such as 2026-11-01T00:00:00+08:00"
        raise UserError(f"{text!r} is not a time", str(error), fix) from error
    return text


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        return _read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"cannot read {path}", "it is not UTF-8 text", "save it as UTF-8") from error


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}", error.strerror or str(error), "give the file to import") from error


def write_text(path: Path, text: str) -> None:
    """Write a file, and create its folder if it is missing.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {path}", error.strerror or str(error), "give another folder") from error
