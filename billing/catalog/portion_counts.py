"""Greatest number of portions in one cycle of a plan, from the lengths alone, without a calendar.

Portions are :mod:`billing.packages.portions`.
"""

from billing.catalog.model import Cycle, Plan

MAX_PORTIONS = 400
"""Greatest number of portions of one bucket in a cycle: a year by days, with some to spare."""
_MOST_MONTHS = {"months": 1, "years": 12, "calendar_month": 1, "subscription_month": 1}
_MOST_DAYS = {"day": 1, "days": 1, "weeks": 7} | {kind: 31 * months for kind, months in _MOST_MONTHS.items()}
_LEAST_DAYS = {"day": 1, "week": 7, "month": 28}


def most_portions(cycle: Cycle, every: str) -> int:
    """Return a number of portions that no cycle exceeds; 0 for a cycle without end, which cannot be counted."""
    if cycle.kind not in _MOST_DAYS:
        return 0
    length = max(cycle.days if cycle.kind == "days" else cycle.length, 1)
    if every == "month" and cycle.kind in _MOST_MONTHS:
        return length * _MOST_MONTHS[cycle.kind] + 1
    return length * _MOST_DAYS[cycle.kind] // _LEAST_DAYS[every] + 2


def most_buckets(plan: Plan) -> int:
    """Return a number of buckets that one cycle of a plan does not exceed; exact for a plan without portions."""
    return sum(most_portions(plan.cycle, bucket.every) if bucket.every else 1 for bucket in plan.buckets)
