"""Limits that a commit is decided with: on the time of an event relative to the log's time, and on its number.

The rules are in docs/reference/principles.md, "Log time", and docs/reference/usage-events.md, "Identity".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from schemas.meters import MAX_COUNT
from schemas.refusals import Refusal
from schemas.times import DAY_US, HOUR_US, MINUTE_US, format_time_us
from schemas.usage import UsageEvent

SEQUENCE_JUMP = 1_000_000_000
RULES_NUMBER = 2
"""Number of the rules by which commands and time-driven changes are decided now.

Rules 1 named a bill after the month in which its period mostly lies, rounded the credit of a change of plan down to
fen, and began what was sold at the microsecond of its command (docs/decisions/rules-of-a-commit.md).
"""
RESEND_US = 24 * HOUR_US
"""Log time within which a resend of an unnumbered source is recognised whatever its time says, beside the hour."""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Limits on the time of an event, in microseconds before and after log time, and on its number.

    They are recorded in each commit, so that a replay decides the same.
    """

    future_us: int = 10 * MINUTE_US
    past_us: int = 35 * DAY_US
    """Applies to events of unnumbered sources, whose identities are kept this long."""
    sequence_jump: int | None = SEQUENCE_JUMP
    """Greatest distance of a number from the highest number seen of its source.

    None only in a replay of commits of a release that had no such limit. Its identities did not name the account, and
    it decided by rules 1.
    """
    note_unknown: bool = False
    """Numbers of a usage object that its dialect does not know are a finding; otherwise the event is refused."""

    @property
    def rules(self) -> int:
        """Number of the rules that decide a commit with these limits."""
        return 1 if self.sequence_jump is None else RULES_NUMBER


class IdentityRules(NamedTuple):
    """The part of the limits that decides about identities."""

    names_account: bool
    """True if the account is part of an identity, and identities are filed by the hour of log time too."""
    sequence_jump: int
    future_us: int | None
    """The limit ahead of the log's time; None if there is no log."""

    def log_hour_us(self, log_time_us: int) -> int:
        """Return the hour of log time under which an identity is filed; always 0 if there is no log."""
        return 0 if self.future_us is None else log_time_us - log_time_us % HOUR_US

    def window_us(self, log_time_us: int) -> int:
        """Return the first hour of log time whose identities are looked up whatever the event's time is."""
        return self.log_hour_us(log_time_us) - RESEND_US

    def by_event_hour(self, time_us: int, log_time_us: int, unlogged_until_us: int) -> bool:
        """Return True if an event may repeat one that was rated before the window, under the hour of its own time.

        An event is rated at most ``future_us`` before its time. Identities rated up to ``unlogged_until_us`` are filed
        by the hour of the event's time alone.
        """
        if not self.names_account:
            return True
        if self.future_us is None:
            return False
        hour_us = time_us - time_us % HOUR_US
        return hour_us - self.future_us < max(self.window_us(log_time_us), unlogged_until_us)


def identity_rules(limits: TimeLimits | None) -> IdentityRules:
    """Return the identity rules of these limits. Without limits, in a simulation, they are those of the defaults."""
    if limits is None:
        return IdentityRules(True, SEQUENCE_JUMP, None)
    if limits.sequence_jump is None:
        return IdentityRules(False, MAX_COUNT, limits.future_us)
    return IdentityRules(True, limits.sequence_jump, limits.future_us)


def limits_object(limits: TimeLimits | None) -> dict[str, int]:
    """Return the limits as a commit records them; empty without limits."""
    if limits is None:
        return {}
    found = {"future_limit_us": limits.future_us, "past_limit_us": limits.past_us}
    if limits.sequence_jump is not None:
        found["sequence_jump_limit"] = limits.sequence_jump
    return found | {"note_unknown": 1} if limits.note_unknown else found


def read_limits(recorded: Mapping[str, int]) -> TimeLimits:
    """Return the limits that a commit recorded."""
    return TimeLimits(
        recorded["future_limit_us"],
        recorded["past_limit_us"],
        recorded.get("sequence_jump_limit"),
        bool(recorded.get("note_unknown")),
    )


@dataclass(frozen=True, slots=True)
class RulesByTime:
    """Numbers of rules by log time: those of now, and those of earlier commits, which a replay decides by again."""

    now: int = RULES_NUMBER
    earlier: tuple[tuple[int, int], ...] = ()
    """(log time of the last commit, number) of the earlier rules, in order."""

    def at(self, due_us: int) -> int:
        """Return the number of the rules for a change that falls due by time."""
        return next((number for until_us, number in self.earlier if due_us <= until_us), self.now)

    def followed_by(self, number: int, log_time_us: int) -> "RulesByTime":
        """Return these rules up to a log time, and others from then on."""
        return self if number == self.now else RulesByTime(number, (*self.earlier, (log_time_us, self.now)))


CURRENT_RULES = RulesByTime()


class DecidedAt(NamedTuple):
    """The time of a decision: log time, the oldest time that is still counted, and the rules.

    ``oldest_us`` is None without limits. Then there is no log, and ``now_us`` is the greatest time of the account so
    far.
    """

    now_us: int
    oldest_us: int | None
    rules: RulesByTime = CURRENT_RULES

    @property
    def simulated(self) -> bool:
        """True if there is no log."""
        return self.oldest_us is None


def decided_at(now_us: int, limits: TimeLimits | None) -> DecidedAt:
    """Return the time of a decision at ``now_us`` under these limits; None means no limits."""
    if limits is None:
        return DecidedAt(now_us, None)
    return DecidedAt(now_us, now_us - limits.past_us, rules_of(limits))


def rules_of(limits: TimeLimits | None) -> RulesByTime:
    """Return the rules of a commit with these limits. Without limits, in a simulation, they are those of now."""
    return CURRENT_RULES if limits is None or limits.rules == RULES_NUMBER else RulesByTime(limits.rules)


def time_refusal(event: UsageEvent, numbered: bool, log_time_us: int, limits: TimeLimits) -> Refusal | None:
    """Return a refusal if an event is too far ahead of or behind the log's time, else None.

    An event of a ``numbered`` source is never too old, because its numbers are kept for ever.
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
