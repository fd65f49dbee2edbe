"""A group of commands whose modules are imported on first use, so that commands load only the libraries they need."""

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyCommands(click.Group):
    """A click group; ``modules`` gives the module of each subcommand, in the order of the help."""

    def __init__(self, *arguments: Any, modules: Mapping[str, str], **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands; no module is imported."""
        return list(self._modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a subcommand from its module, or None if there is none of this name.

        Raises:
            TypeError: the module has something else under the name.
        """
        module_name = self._modules.get(cmd_name)
        if module_name is None:
            return None
        module = importlib.import_module(module_name)
        command = getattr(module, cmd_name.replace("-", "_"))
        if not isinstance(command, click.Command):
            raise TypeError(f"{module_name}.{cmd_name} is not a command")
        return command
