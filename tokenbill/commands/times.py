"""Times that people give to a command: RFC 3339, with an offset."""

from datetime import datetime
from typing import Any

import click

from schemas.times import parse_time_us
from tokenbill.errors import UserError

_INSTEAD = "Write 2027-01-01T00:00:00Z."


class Moment(click.ParamType):
    """An RFC 3339 time with offset, as microseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the time, or say what one looks like."""
        if isinstance(value, int):
            return value
        try:
            return parse_time_us(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def time_option(option: str, text: str | None) -> datetime | None:
    """The moment that an option names; None where it is not given.

    Raises:
        UserError: it is no time, or has no offset.
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
