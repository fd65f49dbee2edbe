"""Settings of an installation about usage, from the environment. All processes of an installation have the same."""

import os

import click

from tokenbill.user_errors import UserError

UNKNOWN_VARIABLE = "TOKENBILL_UNKNOWN_USAGE"
REFUSE, NOTE = "refuse", "note"


def notes_unknown_usage() -> bool:
    """Return True if numbers of a usage object that its dialect does not know are noted and not refused.

    Raises:
        UserError: TOKENBILL_UNKNOWN_USAGE is neither refuse nor note.
    """
    choice = os.environ.get(UNKNOWN_VARIABLE, REFUSE)
    if choice not in (REFUSE, NOTE):
        raise UserError(f"{UNKNOWN_VARIABLE} is {choice!r}", "", f"Set it to {REFUSE} or {NOTE}.")
    return choice == NOTE


unknown_usage_option = click.option(
    "--unknown-usage",
    type=click.Choice((REFUSE, NOTE)),
    default=REFUSE,
    envvar=UNKNOWN_VARIABLE,
    show_default=True,
    show_envvar=True,
    help="Refuse usage with a number that its dialect does not know, or rate it and report the number.",
)
"""Option of commands that rate usage without servers."""
