"""Check of one count of a usage object, for all dialects."""

from schemas.fields import show
from schemas.meters import MAX_COUNT


class CountProblem(ValueError):
    """A count cannot be billed. ``reason`` is one of :data:`schemas.rejections.REASONS`; the text is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def check_count(field: str, value: object) -> int:
    """Return one count if it is valid.

    Raises:
        CountProblem: it is not an integer (``invalid_event``), negative (``usage_mismatch``), or greater than 2^63-1
            (``overflow``).
    """
    if type(value) is not int:
        raise CountProblem("invalid_event", f"{field} is {show(value)}: expected an integer from 0")
    if value < 0:
        raise CountProblem("usage_mismatch", f"{field} is {value}: a count cannot be negative")
    if value > MAX_COUNT:
        raise CountProblem("overflow", f"{field} is {show(value)}: a count is at most {MAX_COUNT}")
    return value
