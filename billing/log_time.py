"""Which event times are accepted against the log's time (DESIGN 4)."""

from dataclasses import dataclass
from typing import NamedTuple

from schemas.refusals import Refusal
from schemas.times import DAY_US, MINUTE_US, format_time_us
from schemas.usage import UsageEvent


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Bounds on the time of an event; recorded in the commit that used them."""

    future_us: int = 10 * MINUTE_US
    past_us: int = 35 * DAY_US
    """Applies to events without a number: their identities are kept that long."""


class DecidedAt(NamedTuple):
    """When something was decided: the log's time, and from when on anything is counted (None: no limits; there is no
    log then, and ``now_us`` is the greatest time of the account so far)."""

    now_us: int
    oldest_us: int | None

    @property
    def simulated(self) -> bool:
        """Whether there was no log."""
        return self.oldest_us is None


def decided_at(now_us: int, limits: TimeLimits | None) -> DecidedAt:
    """A log time with the limits that are in force."""
    return DecidedAt(now_us, None if limits is None else now_us - limits.past_us)


def time_refusal(event: UsageEvent, numbered: bool, log_time_us: int, limits: TimeLimits) -> Refusal | None:
    """Refuse an event that is too far ahead of, or behind, the log's time; else None.

    An event of a ``numbered`` source is never too old: numbers are remembered for ever.
    """
    if event.time_us > log_time_us + limits.future_us:
        return event.refuse(
            "time_in_future",
            f"time: {format_time_us(event.time_us)} is more than {limits.future_us // MINUTE_US} minutes ahead of the "
            f"log's {format_time_us(log_time_us)}; set the worker's clock and send it again",
        )
    if not numbered and event.time_us < log_time_us - limits.past_us:
        return event.refuse(
            "time_too_old",
            f"time: {format_time_us(event.time_us)} is more than {limits.past_us // DAY_US} days before the log's "
            f"{format_time_us(log_time_us)}, and its source does not number its events",
        )
    return None
