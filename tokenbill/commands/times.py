"""Parsing of times in command-line options: RFC 3339 with an offset."""

from datetime import datetime
from typing import Any

import click

from schemas.times import format_time_us, parse_time_us
from tokenbill.user_errors import UserError

_INSTEAD = "Write 2027-01-01T00:00:00Z."


class TimeParameter(click.ParamType):
    """Option type of an RFC 3339 time with an offset; the value is microseconds UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse the time; fail with a message that describes the format."""
        if isinstance(value, int):
            return value
        try:
            return parse_time_us(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def check_span(from_us: int | None, to_us: int | None) -> None:
    """Refuse a time range without a moment in it.

    Raises:
        UserError: ``--from`` is not before ``--to``.
    """
    if from_us is not None and to_us is not None and from_us >= to_us:
        times = f"--from is {format_time_us(from_us)}, --to is {format_time_us(to_us)}"
        raise UserError(
            "The time range is empty", times, "--from is inclusive, --to exclusive: give an earlier --from."
        )


def time_option(option: str, text: str | None) -> datetime | None:
    """Return the time given to an option; None if the option is not given.

    Raises:
        UserError: the text is not an RFC 3339 time, or has no offset.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UserError(f"{option} is {text!r}", "it is no RFC 3339 time", _INSTEAD) from error
    if moment.tzinfo is None:
        raise UserError(f"{option} is {text!r}", "it has no offset", _INSTEAD)
    return moment
