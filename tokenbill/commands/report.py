"""`tokenbill report`: balances, usage, revenue, bills and the trial balance, read from the database."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import click

from billing.store.proofs import reports
from schemas.times import MINUTE_US, format_time_us
from tokenbill.command_database import database_url, explained
from tokenbill.commands.table import FORMATS, TableRow, write_rows
from tokenbill.commands.times import TimeParameter, check_span
from tokenbill.user_errors import UserError

_EXAMPLE = """
\b
Examples:
  tokenbill report balance --account acct-000123
  tokenbill report bills --open --format csv
  tokenbill report revenue --from 2026-11-01T00:00:00+08:00 --to 2026-12-01T00:00:00+08:00
  tokenbill report usage --by model,energy_source --from 2026-11-01T00:00:00+08:00
  tokenbill report trial-balance --format json
"""


_QUARTER_US = 15 * MINUTE_US


class ReportDimensions(click.ParamType):
    """Option type of a comma-separated list of usage dimensions."""

    name = "dimensions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Split the list; fail with a message that lists the valid names if a name is unknown."""
        names = value if isinstance(value, tuple) else tuple(name.strip() for name in str(value).split(","))
        for name in names:
            if name not in reports.USAGE_DIMENSIONS:
                self.fail(f"{name!r} is none of {', '.join(reports.USAGE_DIMENSIONS)}", param, ctx)
        return tuple(dict.fromkeys(names))


def _common(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--format", "written_as", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
    )(command)
    return click.option(
        "--data-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder of the stack's data and logs."
    )(command)


def _span(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--to", "to_us", type=TimeParameter(), help="End of the time range, exclusive.")(command)
    return click.option("--from", "from_us", type=TimeParameter(), help="Start of the time range, inclusive.")(command)


def _write(rows: Iterable[TableRow], columns: Sequence[str], written_as: str) -> None:
    with explained():
        write_rows(rows, columns, written_as, sys.stdout)


@click.group(epilog=_EXAMPLE)
def report() -> None:
    """Report balances, usage, revenue, bills and the trial balance."""


@report.command(epilog=_EXAMPLE)
@click.option("--account", help="Only this account.")
@_common
def balance(account: str | None, data_dir: Path | None, written_as: str) -> None:
    """List accounts with their wallets and buckets, one row per bucket."""
    with explained():
        rows = _at_least_one(reports.balances(database_url(data_dir), account), account)
    _write(rows, reports.BALANCE_COLUMNS, written_as)


def _at_least_one(rows: Iterable[TableRow], account: str | None) -> Iterator[TableRow]:
    """Return the rows. Every account has one at least.

    Raises:
        UserError: a given account has none, so it was never opened.
    """
    source = iter(rows)
    first = next(source, None)
    if first is None:
        if account is not None:
            raise UserError(f"There is no account {account!r}", "", "`tokenbill report balance` lists the accounts.")
        return source
    return chain([first], source)


@report.command(epilog=_EXAMPLE)
@click.option(
    "--by", type=ReportDimensions(), default="model", show_default=True, help="Dimensions to group by, comma-separated."
)
@_span
@_common
def usage(by: tuple[str, ...], from_us: int | None, to_us: int | None, data_dir: Path | None, written_as: str) -> None:
    """Sum events, tokens and money by dimension.

    --from and --to limit the events' own time. They are the beginnings of hours of UTC, because usage is summed by
    these; every other time is refused.
    """
    check_span(from_us, to_us)
    try:
        rows = reports.usage(database_url(data_dir), by, from_us, to_us)
    except reports.InexactBound as error:
        raise _inexact("--from" if error.time_us == from_us else "--to", error) from error
    _write(rows, (*by, "currency", *reports.USAGE_SUMS), written_as)


def _inexact(option: str, error: reports.InexactBound) -> UserError:
    before, after = map(format_time_us, error.nearest_us)
    why = "usage is summed by hours of UTC, so a time within an hour cannot be answered exactly"
    fix = f"Write {before} or {after}."
    if error.time_us % _QUARTER_US == 0:
        fix += " A day of a zone whose offset is not whole hours, such as +05:30, cannot be reported."
    return UserError(f"{option} is {format_time_us(error.time_us)}", why, fix)


@report.command(epilog=_EXAMPLE)
@_span
@_common
def revenue(from_us: int | None, to_us: int | None, data_dir: Path | None, written_as: str) -> None:
    """Sum revenue without tax by plan or price book.

    --from and --to limit the log time of the commits; each commit counts as a whole.
    """
    check_span(from_us, to_us)
    _write(reports.revenue(database_url(data_dir), from_us, to_us), reports.REVENUE_COLUMNS, written_as)


@report.command(epilog=_EXAMPLE)
@click.option("--open", "only_open", is_flag=True, help="Only unpaid bills: the list for the collecting party.")
@_common
def bills(only_open: bool, data_dir: Path | None, written_as: str) -> None:
    """List the bills of postpaid accounts.

    The account command bill.collected.v1 confirms that a bill was paid.
    """
    _write(reports.bills(database_url(data_dir), only_open=only_open), reports.BILL_COLUMNS, written_as)


@report.command("trial-balance", epilog=_EXAMPLE)
@click.option("--as-of", "as_of_us", type=TimeParameter(), help="Include only commits up to this time.")
@_common
def trial_balance(as_of_us: int | None, data_dir: Path | None, written_as: str) -> None:
    """List the balance of every control account (debit positive) and their sum, which is 0."""
    with explained():
        balances, total = reports.trial_balance(database_url(data_dir), as_of_us)
    if written_as == "json":
        click.echo(json.dumps({"trial_balance": balances, "sum": total}, ensure_ascii=False))
        return
    rows: list[TableRow] = [{"account_code": code, "amount": amount} for code, amount in balances.items()]
    write_rows([*rows, {"account_code": "sum", "amount": total}], ("account_code", "amount"), written_as, sys.stdout)
