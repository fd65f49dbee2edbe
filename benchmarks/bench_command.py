"""``tokenbill bench``: measurements of the core and the pipeline, each as a ratio to its baseline."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result

_EXAMPLE = """
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
    """Reject an output file whose folder does not exist, before minutes are spent on the measurement."""
    if file is not None and not file.parent.is_dir():
        raise click.BadParameter(f"there is no folder {file.parent}")
    return file


_JSON = click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    callback=_writable,
    help="Also write the results to this file, as a JSON list.",
)


@click.group(epilog=_EXAMPLE)
def bench() -> None:
    """Measure the core (kernel, kinds, memory), the pipeline and HTTP reservations (reserve).

    pipeline and reserve run on the local stack; the others need no servers. Each result is a ratio to a baseline.
    """


@bench.command(epilog=_EXAMPLE)
@click.option("--events", type=SOME, default=1_000_000, show_default=True, help="Number of events to measure.")
@click.option("--accounts", type=SOME, default=100_000, show_default=True, help="Number of active accounts.")
@_JSON
def kernel(events: int, accounts: int, json_file: Path | None) -> None:
    """Measure the core on one processor, without servers. Baseline: the plain reference in Python."""
    from benchmarks import kernel as measured

    _report(measured.run(events=events, accounts=accounts), json_file)


@bench.command(epilog=_EXAMPLE)
@click.option("--events", type=SOME, default=1_000_000, show_default=True, help="Number of events to measure.")
@click.option("--accounts", type=SOME, default=100_000, show_default=True, help="Number of active accounts.")
@click.option("--workers", type=SOME, default=1, show_default=True, help="Number of Faust workers.")
@_JSON
def pipeline(events: int, accounts: int, workers: int, json_file: Path | None) -> None:
    """Measure the pipeline from Kafka to published topics. Baseline: a plain Faust agent doing the same job.

    Every event is committed to PostgreSQL and every result is published.
    """
    from benchmarks import pipeline as measured

    _report(measured.run(events=events, accounts=accounts, workers=workers), json_file)


@bench.command(epilog=_EXAMPLE)
@click.option("--requests", type=SOME, default=60_000, show_default=True, help="Number of reservations.")
@click.option("--accounts", type=SOME, default=1_000_000, show_default=True, help="Accounts in the database.")
@click.option(
    "--clients", type=SOME, default=16, show_default=True, help="Concurrent clients, each with one request at a time."
)
@click.option("--rate", type=click.IntRange(1), help="Reservations per second of all clients [default: no limit].")
@_JSON
def reserve(requests: int, accounts: int, clients: int, rate: int | None, json_file: Path | None) -> None:
    """Measure reservations over HTTP on the local stack. Baseline: 10 ms at the 99th percentile."""
    from benchmarks import reserve as measured

    _report(measured.run(requests=requests, accounts=accounts, clients=clients, rate=rate), json_file)


@bench.command(epilog=_EXAMPLE)
@click.option("--events", type=SOME, default=40_000, show_default=True, help="Number of events of each kind.")
@click.option("--accounts", type=SOME, default=4_000, show_default=True, help="Active accounts of each kind.")
@_JSON
def kinds(events: int, accounts: int, json_file: Path | None) -> None:
    """Measure the core on each kind of account. Baseline: accounts with one package.

    The kinds are, for example, old subscribers, gifts, families and windows.
    """
    from benchmarks import kinds as measured

    _report(measured.run(events=events, accounts=accounts), json_file)


@bench.command(epilog=_EXAMPLE)
@click.option("--accounts", type=SOME, default=1_000_000, show_default=True, help="Number of accounts to load.")
@_JSON
def memory(accounts: int, json_file: Path | None) -> None:
    """Measure the memory of a worker per loaded account, without servers. Baseline: 400 bytes."""
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
