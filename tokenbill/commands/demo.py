"""``tokenbill demo``: an end-to-end run of the pipeline on the local stack, with verification of every figure."""

import sys
from pathlib import Path

import click
from rich.console import Console

from tokenbill.commands.catalog import open_catalog
from tokenbill.commands.stack import data_dir_option

DEFAULT_EVENTS = 1_000_000
DEFAULT_ACCOUNTS = 10_000
PIPE_WIDTH = 120
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "catalog"


@click.command(
    epilog="Exit codes: 0 every check holds, 1 a check failed, 2 a setting must be corrected.\n\n\b\n"
    "Example:\n  tokenbill demo --events 200000 --keep"
)
@data_dir_option
@click.option(
    "--events", type=click.IntRange(min=1), default=DEFAULT_EVENTS, show_default=True, help="Number of records to send."
)
@click.option(
    "--accounts", type=click.IntRange(min=1), default=DEFAULT_ACCOUNTS, show_default=True, help="Number of accounts."
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with the columns ContextTokens and GeneratedTokens [default: the trace beside the project, else "
    "built-in sizes].",
)
@click.option(
    "--catalog",
    "catalog_dir",
    type=click.Path(path_type=Path),
    default=EXAMPLES,
    help="Folder of the catalogue [default: examples/catalog].",
)
@click.option("--keep", is_flag=True, help="Leave the stack running afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one line of JSON at the end.")
def demo(
    data_dir: Path | None,
    events: int,
    accounts: int,
    trace: Path | None,
    catalog_dir: Path,
    keep: bool,
    as_json: bool,
) -> None:
    """Bill a million usage events on the local stack, kill a worker meanwhile, and verify the result.

    The events pass through Kafka, Faust and PostgreSQL. Two emitter processes send events shaped by a real trace: some
    are sent twice, some go to the wrong partition, some are malformed. At the end every figure is compared with what
    the emitters sent.
    """
    from tokenbill.demo.play import DemoOptions, play
    from tokenbill.demo.summary import json_line, show

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    outcome = play(DemoOptions(data_dir, open_catalog(catalog_dir), events, accounts, trace, keep), console)
    show(console, outcome.evidence, outcome.checks, outcome.speed, outcome.data_dir, outcome.run)
    if as_json:
        click.echo(json_line(outcome.evidence, outcome.speed))
    sys.exit(0 if all(check.holds for check in outcome.checks) else 1)
