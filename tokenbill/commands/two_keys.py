"""The options of a step to which two people agree, each with an API key.

A secret is read from a file or from the environment: the arguments of a process are seen by everybody on the machine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from billing.store.api.keys import PREFIX
from billing.store.database import Database
from billing.store.two_keys import KeysRefused, TwoKeys
from billing.store.two_keys import two_keys as verified_keys
from tokenbill.user_errors import UserError

REQUESTED_KEY_VARIABLE = "TOKENBILL_REQUESTED_KEY"
APPROVED_KEY_VARIABLE = "TOKENBILL_APPROVED_KEY"
_CREATE = "`tokenbill api-key create NAME --role admin` makes a key; name it after the person who holds it."


def two_keys_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options ``--requested-key`` and ``--approved-key`` to a command."""
    for option, whose, variable in (
        ("--approved-key", "of another person, who agrees", APPROVED_KEY_VARIABLE),
        ("--requested-key", "of the person who looked at the cause", REQUESTED_KEY_VARIABLE),
    ):
        command = click.option(
            option,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help=f"File with the API key {whose} [default: the key in {variable}].",
        )(command)
    return command


def agreed(database: Database, requested_key: Path | None, approved_key: Path | None) -> TwoKeys:
    """Return the two people whose keys were given.

    Raises:
        UserError: a key is missing or cannot be read, or the two do not show that two people agree.
    """
    tokens = (
        _token("--requested-key", requested_key, REQUESTED_KEY_VARIABLE),
        _token("--approved-key", approved_key, APPROVED_KEY_VARIABLE),
    )
    try:
        return verified_keys(database, *tokens)
    except KeysRefused as error:
        raise UserError("Two people must agree, each with a key", str(error), _CREATE) from error


def _token(option: str, file: Path | None, variable: str) -> str:
    if file is None:
        token = os.environ.get(variable, "").strip()
        if not token:
            raise UserError(
                "Two people must agree, each with a key", f"neither {option} nor {variable} is set", _CREATE
            )
        return token
    if file.name.startswith(f"{PREFIX}_"):
        raise UserError(
            f"{option} is a key, not a file",
            "the arguments of a process are seen by everybody on the machine",
            f"Revoke that key; write the next one to a private file, or set {variable}.",
        )
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{option} cannot be read", f"{file}: {error}", "Give a file with one key in it.") from error
