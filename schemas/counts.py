"""Check of one count of a usage object, for all dialects."""

from schemas.fields import show
from schemas.meters import MAX_COUNT
from schemas.refusals import Refused


def check_count(field: str, value: object) -> int:
    """Return one count if it is valid.

    Raises:
        Refused: it is not an integer (``invalid_event``), negative (``usage_mismatch``), or greater than 2^63-1
            (``overflow``).
    """
    if type(value) is not int:
        raise Refused("invalid_event", f"{field} is {show(value)}: expected an integer from 0")
    if value < 0:
        raise Refused("usage_mismatch", f"{field} is {value}: a count cannot be negative")
    if value > MAX_COUNT:
        raise Refused("overflow", f"{field} is {show(value)}: a count is at most {MAX_COUNT}")
    return value
