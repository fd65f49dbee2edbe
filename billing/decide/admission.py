"""Admission of usage at the door: what the engine would reject is refused before it is sent to the log.

The rules are those of the engine: the limits of time (:mod:`billing.log_time`) and the price
(:func:`billing.decide.bill_usage.price_usage`). The clock of the door estimates the log's time. What only the engine
can know stays with it: duplicates, numbers of a source, and what changes on the way. The state of an account is no
reason, because the usage has happened. No SQL, no Kafka.
"""

from billing.decide.bill_usage import UsageRules, price_usage
from billing.log_time import TimeLimits, decided_at, time_refusal
from billing.pricing.period_prices import NOTHING_COUNTED, Counters
from schemas.refusals import Refusal
from schemas.usage import UsageEvent


def refused_at_the_door(
    event: UsageEvent,
    price_book: str | None,
    now_us: int,
    rules: UsageRules,
    counters: Counters = NOTHING_COUNTED,
    limits: TimeLimits = TimeLimits(),
) -> Refusal | None:
    """Return the rejection that the engine would decide at log time ``now_us``; None if it is not known to reject.

    ``price_book`` is that of the account, None if the account is unknown: then no price is looked up.
    """
    # A source that numbers its events does so with each of them.
    late = time_refusal(event, event.sequence is not None, now_us, limits)
    if late is not None or price_book is None:
        return late
    priced = price_usage(price_book, event, decided_at(now_us, limits), rules, counters)
    return priced if isinstance(priced, Refusal) else None
