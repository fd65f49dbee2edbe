"""``tokenbill demo``: the main job from end to end on the local stack, with a proof at the end."""

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
    epilog="Exit codes: 0 every check holds, 1 one does not, 2 something to put right first.\n\n\b\n"
    "Example:\n  tokenbill demo --events 200000 --keep"
)
@data_dir_option
@click.option(
    "--events", type=click.IntRange(min=1), default=DEFAULT_EVENTS, show_default=True, help="Records to send."
)
@click.option(
    "--accounts", type=click.IntRange(min=1), default=DEFAULT_ACCOUNTS, show_default=True, help="Accounts to open."
)
@click.option(
    "--trace",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="CSV file with ContextTokens, GeneratedTokens [default: the trace beside the project, else built-in sizes].",
)
@click.option(
    "--catalog",
    "catalog_dir",
    type=click.Path(path_type=Path),
    default=EXAMPLES,
    help="Folder of the catalogue [default: examples/catalog].",
)
@click.option("--keep", is_flag=True, help="Leave the stack running.")
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON.")
def demo(
    data_dir: Path | None,
    events: int,
    accounts: int,
    trace: Path | None,
    catalog_dir: Path,
    keep: bool,
    as_json: bool,
) -> None:
    """Send a million usage events through Kafka, Faust and PostgreSQL, kill a worker on the way, and prove the result.

    Two emitters in processes of their own send events shaped by a real trace, some of them twice, some to the wrong
    partition, some malformed. At the end every figure is compared with what the emitters sent.
    """
    from tokenbill.demo.play import Wish, play
    from tokenbill.demo.summary import json_line, show

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    outcome = play(Wish(data_dir, open_catalog(catalog_dir), events, accounts, trace, keep), console)
    show(console, outcome.evidence, outcome.checks, outcome.speed, outcome.data_dir, outcome.run)
    if as_json:
        click.echo(json_line(outcome.evidence, outcome.speed))
    sys.exit(0 if all(check.holds for check in outcome.checks) else 1)
