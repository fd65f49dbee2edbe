"""One count of a usage object: what is accepted, and why one is refused. Knows no dialect."""

from schemas.fields import show
from schemas.meters import MAX_COUNT


class CountProblem(ValueError):
    """A count that cannot be billed: ``reason`` is one of REASONS, the message is for a person."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def check_count(field: str, value: object) -> int:
    """Accept one count.

    Raises:
        CountProblem: not an integer, negative, or greater than 2^63-1.
    """
    if type(value) is not int:
        raise CountProblem("invalid_event", f"{field} is {show(value)}: expected an integer from 0")
    if value < 0:
        raise CountProblem("usage_mismatch", f"{field} is {value}: a count cannot be negative")
    if value > MAX_COUNT:
        raise CountProblem("overflow", f"{field} is {show(value)}: a count is at most {MAX_COUNT}")
    return value
