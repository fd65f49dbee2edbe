"""The command ``tokenbill``: dispatches to subcommands and prints user errors without a traceback."""

import errno
import sys
from typing import NoReturn

import click

from billing.errors import DatabaseDown, NotPrepared
from tokenbill import __version__
from tokenbill.hidden_secrets import without_secrets
from tokenbill.lazy_commands import LazyCommands
from tokenbill.user_errors import UserError

_COMMANDS = {
    "up": "tokenbill.commands.stack",
    "down": "tokenbill.commands.stack",
    "status": "tokenbill.commands.stack",
    "prepare": "tokenbill.commands.prepare",
    "worker": "tokenbill.commands.run",
    "relay": "tokenbill.commands.run",
    "scheduler": "tokenbill.commands.run",
    "serve": "tokenbill.commands.serve",
    "api-key": "tokenbill.commands.serve",
    "webhooks": "tokenbill.commands.webhook",
    "webhook": "tokenbill.commands.webhook",
    "catalog": "tokenbill.commands.catalog",
    "rate": "tokenbill.commands.rate",
    "explain": "tokenbill.commands.explain",
    "simulate": "tokenbill.commands.simulate",
    "dialects": "tokenbill.commands.dialect_list",
    "report": "tokenbill.commands.report",
    "suspense": "tokenbill.commands.suspense",
    "partition": "tokenbill.commands.partition",
    "conflict": "tokenbill.commands.conflict",
    "audit": "tokenbill.commands.audit",
    "foreign": "tokenbill.commands.own_records",
    "key": "tokenbill.commands.own_records",
    "demo": "tokenbill.commands.demo",
    "bench": "benchmarks.bench_command",
}
"""Module of each subcommand, in the order of ``tokenbill --help``."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@click.group(
    cls=LazyCommands,
    modules=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__)
def cli() -> None:
    """Tokenbill: billing and settlement of AI tokens (词元).

    \b
    Start here:
      tokenbill up                  start the local stack: Kafka, PostgreSQL, workers, relay, HTTP API
      tokenbill status              show what runs and how many records wait
      tokenbill catalog check DIR   check price books and plans
      tokenbill simulate ...        bill a file of commands and usage, without servers
    """


def main() -> None:
    """Run the command line.

    Exit codes: 0 done, 1 a check failed, 2 wrong usage or a setting that must be corrected.
    """
    try:
        cli(prog_name="tokenbill")
    except UserError as error:
        _leave(error.message, error.hint)
    except DatabaseDown as error:
        _leave(f"The database does not answer: {error}", "Is the stack up? `tokenbill status`")
    except NotPrepared as error:
        _leave(f"The database is not prepared: {error}", "Run `tokenbill up` or `tokenbill prepare` first.")
    except OSError as error:
        if error.errno not in _NO_SPACE:
            raise
        _leave(str(error), "Make space on the disk, then run the command again.")


def _leave(message: str, hint: str) -> NoReturn:
    click.echo(without_secrets(f"tokenbill: {message}"), err=True)
    if hint:
        click.echo(without_secrets(f"  what to do: {hint}"), err=True)
    sys.exit(2)
