"""``tokenbill bench``: what the core and the pipeline do, as ratios to a baseline of the same run."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

EXAMPLE = """
\b
Examples:
  tokenbill bench kernel
  tokenbill bench pipeline --events 500000 --json pipeline.json
  tokenbill bench reserve --accounts 100000
  tokenbill bench memory
  tokenbill bench kinds
"""

SOME = click.IntRange(1)


def _writable(_context: click.Context, _parameter: click.Parameter, file: Path | None) -> Path | None:
    """Before minutes are spent on what could not be written."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.parent}")
    return file


_JSON = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    callback=_writable,
    help="Write the list of results here too.",
)


@click.group(epilog=EXAMPLE)
def bench() -> None:
    """Measure the core (kernel, kinds, memory), the whole pipeline and reservations (reserve) on the local stack."""


@bench.command(epilog=EXAMPLE)
@click.option("--events", type=SOME, default=1_000_000, show_default=True, help="Events to measure.")
@click.option("--accounts", type=SOME, default=100_000, show_default=True, help="Active accounts.")
@_JSON
def kernel(events: int, accounts: int, json_file: Path | None) -> None:
    """The core on one processor, without servers; baseline: the plain reference in Python."""
    from benchmarks import kernel as measured

    _report(measured.run(events=events, accounts=accounts), json_file)


@bench.command(epilog=EXAMPLE)
@click.option("--events", type=SOME, default=1_000_000, show_default=True, help="Events to measure.")
@click.option("--accounts", type=SOME, default=100_000, show_default=True, help="Active accounts.")
@click.option("--workers", type=SOME, default=1, show_default=True, help="Faust workers.")
@_JSON
def pipeline(events: int, accounts: int, workers: int, json_file: Path | None) -> None:
    """Kafka to published topics with everything committed; baseline: a plain Faust agent doing the same job."""
    from benchmarks import pipeline as measured

    _report(measured.run(events=events, accounts=accounts, workers=workers), json_file)


@bench.command(epilog=EXAMPLE)
@click.option("--requests", type=SOME, default=60_000, show_default=True, help="Reservations to make.")
@click.option("--accounts", type=SOME, default=1_000_000, show_default=True, help="Accounts in the database.")
@click.option(
    "--clients", type=SOME, default=16, show_default=True, help="Clients at once, each with one request at a time."
)
@click.option("--rate", type=click.IntRange(1), help="Reservations a second of all clients  [default: no pause].")
@_JSON
def reserve(requests: int, accounts: int, clients: int, rate: int | None, json_file: Path | None) -> None:
    """Reservations over HTTP on the local stack; baseline: 10 ms at the 99th percentile."""
    from benchmarks import reserve as measured

    _report(measured.run(requests=requests, accounts=accounts, clients=clients, rate=rate), json_file)


@bench.command(epilog=EXAMPLE)
@click.option("--events", type=SOME, default=40_000, show_default=True, help="Events to measure, of each kind.")
@click.option("--accounts", type=SOME, default=4_000, show_default=True, help="Active accounts, of each kind.")
@_JSON
def kinds(events: int, accounts: int, json_file: Path | None) -> None:
    """The core on each kind of account: old subscribers, gifts, families, windows; baseline: one package."""
    from benchmarks import kinds as measured

    _report(measured.run(events=events, accounts=accounts), json_file)


@bench.command(epilog=EXAMPLE)
@click.option("--accounts", type=SOME, default=1_000_000, show_default=True, help="Accounts to load.")
@_JSON
def memory(accounts: int, json_file: Path | None) -> None:
    """Memory of a worker for each account it has loaded, without servers; baseline: 400 bytes."""
    from benchmarks import memory as measured

    _report(measured.run(accounts=accounts), json_file)


def _report(results: list[Result], json_file: Path | None) -> None:
    table = Table("metric", "value", "unit", "x baseline")
    for result in results:
        value = f"{result.value:,.0f}" if result.value >= 1000 else f"{result.value:g}"
        table.add_row(result.metric, value, result.unit, f"{result.ratio_to_baseline:g}")
    console = Console()
    console.print(table)
    for result in results:
        console.print(f"{result.metric}: " + ", ".join(f"{name} {value}" for name, value in result.conditions.items()))
    if json_file is not None:
        text = json.dumps([result.as_json() for result in results], indent=1, ensure_ascii=False)
        json_file.write_text(text + "\n", encoding="utf-8")
