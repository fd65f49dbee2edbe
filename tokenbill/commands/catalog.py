"""``tokenbill catalog``: checks, imports and publishes price books, plans and holidays."""

from pathlib import Path

import click

from billing.catalog import ERROR, Catalog, CatalogError, lint_folder, load_folder
from billing.pricing.changes import price_changes
from schemas.units import MILLION, InexactError, parse_micro
from tokenbill.commands.catalog_import import import_litellm, import_sheet_command
from tokenbill.commands.stack import data_dir_option
from tokenbill.user_errors import UserError

CHECK_EXAMPLE = """
\b
Example:
  tokenbill catalog check examples/catalog
  tokenbill catalog check examples/catalog --max-price-change 2
"""

PUBLISH_EXAMPLE = """
\b
Example:
  tokenbill catalog publish examples/catalog
"""
WORKERS_SECONDS = 60.0
NOT_IN_USE = 1


@click.group()
def catalog() -> None:
    """Check, import and publish price books, plans and holidays.

    \b
    Example:
      tokenbill catalog check examples/catalog
    """


catalog.add_command(import_litellm)
catalog.add_command(import_sheet_command)


@catalog.command(epilog=CHECK_EXAMPLE)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--max-price-change",
    "most",
    metavar="FACTOR",
    help="Also report an error for each price that is more than FACTOR times the price of the previous version, or "
    "less than 1/FACTOR of it.",
)
@click.pass_context
def check(context: click.Context, folder: Path, most: str | None) -> None:
    """Check every *.yaml file below DIR and print each problem with its file and line.

    Exit codes: 0 the catalogue can be published (there may be warnings), 1 it has errors.
    """
    most_micro = None if most is None else _factor(most)
    entries, findings = lint_folder(folder)
    if most_micro is not None and not any(finding.severity == ERROR for finding in findings):
        findings = tuple(sorted([*findings, *price_changes(entries, most_micro)]))
    for finding in findings:
        click.echo(str(finding))
    errors = sum(finding.severity == ERROR for finding in findings)
    click.echo(_summary(entries, errors, len(findings) - errors), err=bool(errors))
    context.exit(1 if errors else 0)


@catalog.command(epilog=PUBLISH_EXAMPLE)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--rerate",
    is_flag=True,
    help="Publish a price book although it begins before usage that was billed under its name. The command names that "
    "usage, which keeps its price: re-rating it needs an archive of rated events, which is not kept yet.",
)
@data_dir_option
@click.pass_context
def publish(context: click.Context, folder: Path, rerate: bool, data_dir: Path | None) -> None:
    """Publish the new entries of DIR and return when every running worker uses them.

    A published version never changes: publishing it again with the same content has no effect, and with other content
    it is refused. A later version of a price book that begins before usage billed under its name is also refused,
    unless --rerate is given.

    Exit codes: 0 in use, 1 published but not yet used by some worker, 2 refused.
    """
    from billing.errors import CatalogConflict
    from billing.store.store import Store
    from tokenbill.command_database import database_url, explained

    entries = open_catalog(folder)
    with explained(), Store(database_url(data_dir)) as store:
        try:
            done = store.publish(entries, rerate)
        except CatalogConflict as error:
            why = "".join(f"\n  {reason}" for reason in error.reasons)
            raise UserError(
                f"the catalogue {folder} is refused", why, "nothing was published; correct this first"
            ) from error
        for label in done.published:
            click.echo(f"published {label}")
        for which in done.backdated:
            click.echo(f"{which}; it keeps its price, as nothing rates it anew yet", err=True)
        late = store.wait_for_workers(done.epoch, WORKERS_SECONDS)
    new = f"{len(done.published)} new {'entry' if len(done.published) == 1 else 'entries'}"
    if late:
        click.echo(f"{new}; after {WORKERS_SECONDS:.0f} s not in use yet by {', '.join(late)}", err=True)
    else:
        click.echo(f"{new}: every running worker uses the catalogue (epoch {done.epoch})")
    context.exit(NOT_IN_USE if late else 0)


def _factor(text: str) -> int:
    """Parse a factor of at least 1; the result is in units of 1e-6."""
    try:
        factor_micro = parse_micro(text)
    except InexactError:
        factor_micro = 0
    if factor_micro < MILLION:
        raise UserError(f"--max-price-change {text} is not a factor", "", "write a decimal of at least 1, such as 2")
    return factor_micro


def open_catalog(folder: Path) -> Catalog:
    """Load the catalogue of a command.

    Raises:
        UserError: the catalogue has errors; the message lists all of them by file and line.
    """
    try:
        return load_folder(folder)
    except CatalogError as error:
        why = "\n" + "\n".join(f"  {finding}" for finding in error.findings)
        fix = f"correct these lines and run: tokenbill catalog check {folder}"
        raise UserError(f"the catalogue {folder} cannot be used", why, fix) from error


def _summary(entries: Catalog, errors: int, warnings: int) -> str:
    """Return one line with the numbers of entries read, errors and warnings."""
    rows = sum(len(book.rows) for book in entries.price_books)
    read = ", ".join(
        (
            _count(len(entries.price_books), "price book version") + f" ({_count(rows, 'row')})",
            _count(len(entries.plans), "plan version"),
            _count(len(entries.holidays), "holiday table"),
        )
    )
    found = f"{_count(errors, 'error')}, {_count(warnings, 'warning')}"
    return f"{read}: {found}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
