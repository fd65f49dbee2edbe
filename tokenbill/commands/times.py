"""Times that people give to a command: RFC 3339, with an offset."""

from datetime import datetime

from tokenbill.errors import UserError

_INSTEAD = "Write 2027-01-01T00:00:00Z."


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
        raise UserError(f"{option} is {text!r}", str(error), _INSTEAD) from error
    if moment.tzinfo is None:
        raise UserError(f"{option} is {text!r}", "it has no offset", _INSTEAD)
    return moment
