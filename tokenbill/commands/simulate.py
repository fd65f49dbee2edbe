"""``tokenbill simulate``: bills a file of commands and usage with the billing engine, without servers."""

import json
import sys
from contextlib import nullcontext
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import click

from billing.calculator.compiled import CompiledCalculator
from billing.calculator.plain import PlainCalculator
from billing.engine.simulation import Simulation
from billing.record_keys import SIMULATED_KEYS, TRUSTING_KEYS
from schemas.commands import CorrectUsage, VoidUsage
from schemas.json_text import dump_json
from schemas.times import format_time_us, parse_time_us
from tokenbill.commands.catalog import open_catalog
from tokenbill.usage_settings import NOTE, unknown_usage_option
from tokenbill.user_errors import UserError

_EXAMPLE = """
\b
Examples:
  tokenbill simulate --catalog examples/catalog --events examples/customer-life.jsonl
  tokenbill simulate --catalog examples/catalog --events examples/customer-life.jsonl \\
    --as-of 2027-06-01T00:00:00+08:00 --account-events account-events.jsonl --out balances.json
"""


OUT = click.Path(path_type=Path, dir_okay=False)


def _corrects_usage(events: Path) -> bool:
    """Return True if the file may void or correct usage; its lines must then stay in memory.

    The test is a text search for the command types. It returns True for standard input, which cannot be searched, and
    for files with escaped characters, which it does not decode.
    """
    try:
        with events.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as text:
            return any(text.find(mark) >= 0 for mark in (VoidUsage.TYPE.encode(), CorrectUsage.TYPE.encode(), b"\\u"))
    except (OSError, ValueError):  # no file, an empty file, or a file that cannot be mapped
        return True


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_time_us(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(epilog=_EXAMPLE)
@click.option(
    "--catalog", "catalog_dir", required=True, type=click.Path(path_type=Path), help="Folder of the catalogue."
)
@click.option(
    "--events",
    required=True,
    type=click.Path(path_type=Path),
    help="File of usage and commands, JSON lines; - is standard input.",
)
@click.option(
    "--as-of", "as_of_us", callback=_time, help="Roll every account forward to this time [default: the latest time]."
)
@click.option("--out", type=OUT, help="Output file [default: standard output].")
@click.option(
    "--account-events",
    "told",
    type=OUT,
    help="Write the events of the topic account.events to this file (JSON lines): outcomes of commands with reasons, "
    "alerts, renewals.",
)
@click.option(
    "--trust-own-sources",
    is_flag=True,
    help="Take events whose source begins with urn:tokenbill: as the product's own: for a file copied from the log.",
)
@click.option("--reference", is_flag=True, help="Use the plain Python calculator instead of the compiled core.")
@unknown_usage_option
def simulate(
    catalog_dir: Path,
    events: Path,
    as_of_us: int | None,
    out: Path | None,
    told: Path | None,
    trust_own_sources: bool,
    reference: bool,
    unknown_usage: str,
) -> None:
    """Bill a file of usage and commands in file order and print every account as JSON.

    The billing engine decides the lines without servers and without time limits; the result is one JSON document. The
    same input gives the same bytes. Time is taken from the lines: a file with times far ahead, or --as-of, shows
    renewals, expiry and bills.

    Sources that begin with urn:tokenbill: belong to the product, which marks its records with keys that a file does not
    have. Such events are rejected unless --trust-own-sources is given.

    What a person should look at (findings) is counted on standard error.
    """
    try:
        with nullcontext() if told is None else told.open("wb") as lines:
            text = _simulated(catalog_dir, events, as_of_us, reference, trust_own_sources, lines, unknown_usage)
        if out is not None:
            out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {error.filename}", error.strerror or str(error), "give another file") from error
    if out is None:
        click.echo(text, nl=False)


def _at(time_us: int, event: bytes) -> bytes:
    """Return the event as a line with the time of the input line that caused it, as there is no log time."""
    return dump_json(json.loads(event) | {"time": format_time_us(time_us)}) + b"\n"


def _simulated(
    catalog_dir: Path,
    events: Path,
    as_of_us: int | None,
    reference: bool,
    trust_own_sources: bool,
    told: BinaryIO | None,
    unknown_usage: str,
) -> str:
    simulation = Simulation(
        open_catalog(catalog_dir),
        PlainCalculator() if reference else CompiledCalculator(),
        keep_history=_corrects_usage(events),
        record_keys=TRUSTING_KEYS if trust_own_sources else SIMULATED_KEYS,
        note_unknown=unknown_usage == NOTE,
        account_event=None if told is None else lambda time_us, event: told.write(_at(time_us, event)),
    )
    try:
        if str(events) == "-":
            simulation.feed(sys.stdin.buffer)
        else:
            with events.open("rb") as lines:
                simulation.feed(lines)
    except OSError as error:
        raise UserError(f"cannot read {events}", error.strerror or str(error), "give a file of JSON lines") from error
    document = simulation.document(as_of_us)
    for kind, number in sorted(simulation.findings.items()):
        click.echo(f"{number} findings {kind}, the first: {simulation.first_findings[kind]}", err=True)
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
