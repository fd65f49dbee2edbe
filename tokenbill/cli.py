"""The command ``tokenbill``: dispatches to subcommands and prints user errors without a traceback.

A subcommand's module is imported on first use, so that commands load only the libraries they need.
"""

import importlib
import sys

import click

from tokenbill import __version__
from tokenbill.errors import UserError

_COMMANDS = {
    "up": "stack",
    "down": "stack",
    "status": "stack",
    "prepare": "prepare",
    "worker": "run",
    "relay": "run",
    "scheduler": "run",
    "serve": "serve",
    "api-key": "serve",
    "webhooks": "webhook",
    "webhook": "webhook",
    "catalog": "catalog",
    "rate": "rate",
    "explain": "explain",
    "simulate": "simulate",
    "report": "report",
    "suspense": "suspense",
    "audit": "audit",
    "demo": "demo",
    "bench": "bench",
}
"""Module below ``tokenbill.commands`` of each subcommand, in the order of ``tokenbill --help``."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module_name = _COMMANDS.get(cmd_name)
        if module_name is None:
            return None
        module = importlib.import_module(f"tokenbill.commands.{module_name}")
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"tokenbill.commands.{module_name}.{cmd_name} is not a command")
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
        click.echo(f"tokenbill: {error.message}", err=True)
        if error.hint:
            click.echo(f"  what to do: {error.hint}", err=True)
        sys.exit(2)
