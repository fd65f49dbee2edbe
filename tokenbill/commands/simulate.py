"""``tokenbill simulate``: what a file of commands and usage leads to, without servers."""

import json
import sys
from mmap import ACCESS_READ, mmap
from pathlib import Path

import click

from billing.core import CompiledCalculator
from billing.reference.calculator import PlainCalculator
from billing.simulate import Simulation
from schemas.commands import CorrectUsage, VoidUsage
from schemas.times import parse_time_us
from tokenbill.commands.catalog import open_catalog
from tokenbill.errors import UserError

EXAMPLE = """
\b
Example:
  tokenbill simulate --catalog examples/catalog --events events.jsonl --as-of 2026-12-31T00:00:00+08:00
"""


PATH = click.Path(path_type=Path)


def _corrects_usage(events: Path) -> bool:
    """Whether a file may void or correct usage: then its lines stay in memory. Of standard input nobody knows, and
    what is escaped is not read here."""
    try:
        with events.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
            return any(text.find(mark) >= 0 for mark in (VoidUsage.TYPE.encode(), CorrectUsage.TYPE.encode(), b"\\u"))
    except (OSError, ValueError):  # no file, an empty one, or none that can be mapped
        return True


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_time_us(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=EXAMPLE)
@click.option(
    "--catalog", "catalog_dir", required=True, type=click.Path(path_type=Path), help="Folder of the catalogue."
)
@click.option(
    "--events", required=True, type=click.Path(path_type=Path), help="JSON lines, usage and commands; - is stdin."
)
@click.option(
    "--as-of", "as_of_us", callback=_time, help="Roll every account to this time; default: the greatest time."
)
@click.option("--out", type=click.Path(path_type=Path), help="Write here instead of standard output.")
@click.option("--reference", is_flag=True, help="Use the plain Python rules instead of the compiled core.")
def simulate(catalog_dir: Path, events: Path, as_of_us: int | None, out: Path | None, reference: bool) -> None:
    """Run usage and commands in file order through the billing engine and print every account as one JSON document.

    Needs no servers and applies no time limits. The same input gives the same bytes.
    """
    simulation = Simulation(
        open_catalog(catalog_dir),
        PlainCalculator() if reference else CompiledCalculator(),
        keep_history=_corrects_usage(events),
    )
    try:
        if str(events) == "-":
            simulation.feed(sys.stdin.buffer)
        else:
            with events.open("rb") as lines:
                simulation.feed(lines)
    except OSError as error:
        raise UserError(f"cannot read {events}", error.strerror or str(error), "give a file of JSON lines") from error
    text = json.dumps(simulation.document(as_of_us), ensure_ascii=False, indent=1) + "\n"
    if out is None:
        click.echo(text, nl=False)
    else:
        out.write_text(text, encoding="utf-8")
