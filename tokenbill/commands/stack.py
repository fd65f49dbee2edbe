"""`tokenbill up`, `down` and `status`: command line of the local stack, which `tokenbill.stack` implements."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from tokenbill import stack
from tokenbill.hidden_secrets import without_secrets
from tokenbill.stack.info import StackInfo
from tokenbill.stack.layout import DATA_DIR_VARIABLE
from tokenbill.stack.progress import Plain, Progress, Spinner

NOT_READY, STOPPED, DOWN = 1, 1, 3
PART_NAMES = {"kafka": "Kafka", "postgresql": "PostgreSQL"}


def data_dir_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option `--data-dir`, the same for every command that uses the stack."""
    return click.option(
        "--data-dir",
        type=click.Path(file_okay=False, path_type=Path),
        help=f"Folder of the stack's data and logs [default: {DATA_DIR_VARIABLE}, else .tokenbill in the project].",
    )(command)


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    console = Console()
    if not console.is_terminal:
        yield Plain(console)
        return
    spinner = Spinner(console)
    try:
        yield spinner
    finally:
        spinner.close()


@click.command(
    epilog="Exit codes: 0 every process is ready, 1 a process did not become ready, 2 a setting must be corrected."
)
@data_dir_option
@click.option("--workers", type=click.IntRange(min=0), help="Number of Faust workers [default: unchanged; 1 at first].")
@click.option("--no-workers", is_flag=True, help="Same as --workers 0.")
@click.option(
    "--partitions", type=click.IntRange(min=1), help="Number of partitions; fixed by the first `up` [default: 4]."
)
@click.option("--only-servers", is_flag=True, help="Start only Kafka and PostgreSQL; create no schema and no topics.")
@click.option("--docker", is_flag=True, help="Run Kafka and PostgreSQL as containers of the official images.")
def up(
    data_dir: Path | None,
    workers: int | None,
    no_workers: bool,
    partitions: int | None,
    only_servers: bool,
    docker: bool,
) -> None:
    """Start the local stack, unless it runs already, and return when every process is ready.

    Kafka, PostgreSQL, workers, relay, scheduler, HTTP API and webhook sender run on loopback, each in a process that is
    restarted when it dies. TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are addresses of servers to use instead of the
    embedded ones.

    Example: tokenbill up --workers 2
    """
    if no_workers and workers:
        raise click.UsageError("--no-workers and --workers contradict each other.")
    from tokenbill.stack.status import document

    wanted = 0 if no_workers else workers
    try:
        with _progress() as progress:
            running = stack.start(data_dir, wanted, partitions, only_servers, docker, progress)
    except stack.NotReady as error:
        click.echo(without_secrets(f"{error}\n`tokenbill status` shows what runs."), err=True)
        sys.exit(NOT_READY)
    _print_parts(running)
    _print_processes(running)
    _print_stopped(document(running)["stopped"] or [])
    click.echo(f"Data and logs are in {running.data_dir}. `tokenbill status` looks, `tokenbill down` ends it.")


@click.command(epilog="Exit code: 0, also when nothing was running.")
@data_dir_option
def down(data_dir: Path | None) -> None:
    """Stop the local stack and print what was stopped. The data is kept.

    Example: tokenbill down
    """
    with _progress() as progress:
        stack.stop(data_dir, progress)
    click.echo("The stack is down; its data stays.")


@click.command(epilog="Exit codes: 0 every process runs, 1 a partition is stopped, 3 the stack is down or partly down.")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(data_dir: Path | None, as_json: bool) -> None:
    """Show the addresses and processes of the local stack, how many records wait, and which partitions are stopped.

    Records wait for a commit (input topics) or for publication (outbox). `tokenbill partition` resumes a partition.

    Example: tokenbill status --json
    """
    from tokenbill.stack.status import document

    found = stack.info(data_dir)
    value = document(found)
    if as_json:
        click.echo(json.dumps(value))
    elif not found.processes:
        click.echo(f"No stack runs in {found.data_dir}. `tokenbill up` starts one.")
    else:
        _print_parts(found)
        _print_processes(found)
        _print_lag(value["lag"])
        _print_stopped(value["stopped"] or [])
    if not found.running:
        sys.exit(DOWN)
    if value["stopped"]:
        sys.exit(STOPPED)


def _print_stopped(stopped: list[dict[str, Any]]) -> None:
    for one in stopped:
        if one.get("process") == "relay":
            click.echo(f"partition {one['partition']} is not published: {one['reason']}")
        else:
            where = f"{one['topic']} offset {one['offset']}" if one["topic"] else "no topic"
            click.echo(f"partition {one['partition']} is stopped since {one['since']} at {where}: {one['reason']}")
        click.echo(f"  to go on: {one['resume']}")


def _print_parts(found: StackInfo) -> None:
    database = found.database_url or found.admin_database_url
    addresses = {"kafka": found.kafka, "postgresql": database and without_secrets(database)}
    for part, kind in found.parts.items():
        click.echo(f"{PART_NAMES[part]:<11} {addresses[part]}  ({kind})")
    if found.api is not None:
        click.echo(f"HTTP API    {found.api}")
    if found.partitions is not None:
        click.echo(f"Partitions  {found.partitions}")


def _print_processes(found: StackInfo) -> None:
    table = Table("process", "pid", "restarts", "port", box=None, pad_edge=False)
    for one in found.processes:
        pid = str(one.pid) if one.pid is not None else "not running"
        ports = [str(found.ports[name]) for name in (one.name, f"{one.name}-web") if name in found.ports]
        table.add_row(one.name, pid, str(one.restarts), " ".join(ports))
    Console().print(table)


def _print_lag(lag: dict[str, int | None]) -> None:
    table = Table("behind", "records", box=None, pad_edge=False)
    for name, records in lag.items():
        table.add_row(name, "unknown" if records is None else str(records))
    Console().print(table)
