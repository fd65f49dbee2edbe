"""Checks of a plan: its buckets together, and its units with the price books that define them.

Errors stop publication; warnings are for a person to review. Never reads files.
"""

from collections.abc import Iterator, Sequence

from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import BY_TIME, NO_REFUND, REQUEST, STD_TOKEN, Plan, PriceBook, Proration
from billing.catalog.portion_counts import MAX_PORTIONS, most_portions
from schemas.units import MILLION, format_micro

CALENDAR_CYCLES = ("calendar_month", "day")
"""Kinds of cycle whose first one may begin within its period of the calendar."""


def check_plan(plan: Plan, books: Sequence[PriceBook]) -> Iterator[CatalogFinding]:
    """Find the errors in a plan, and settings without effect."""
    if not plan.buckets:
        yield CatalogFinding(plan.file, plan.line, "buckets", "is empty; a plan grants at least one bucket")
        return
    total_micro = sum(bucket.fee_share_micro for bucket in plan.buckets)
    if total_micro != MILLION:
        yield CatalogFinding(
            plan.file,
            plan.buckets[0].line,
            "buckets",
            f"have fee shares that add up to {format_micro(total_micro)}; let them add up to 1",
        )
    known = _known_units(plan, books)
    yield from _units(plan, known)
    yield from _caps(plan, known)
    yield from _portions(plan)
    yield from _debt(plan)
    yield from _cancellation(plan)
    if plan.proration != Proration() and plan.cycle.kind not in CALENDAR_CYCLES:
        yield CatalogFinding(
            plan.file,
            plan.line,
            "proration",
            f"has no meaning for cycles of kind {plan.cycle.kind}, whose first cycle is whole; remove it, or write one "
            f"of {', '.join(CALENDAR_CYCLES)}",
        )


def _portions(plan: Plan) -> Iterator[CatalogFinding]:
    """Find buckets that are granted anew too often, or without an end, or where the cycle begins with the first use."""
    for index, bucket in enumerate(plan.buckets):
        if not bucket.every:
            continue
        problem = ""
        if plan.cycle.kind == "once":
            problem = "has no meaning for a cycle without end; write a cycle of months or years"
        elif plan.activation != "purchase":
            problem = "has no meaning with activation: first_use; remove one of them"
        elif most_portions(plan.cycle, bucket.every) > MAX_PORTIONS:
            problem = f"makes more than {MAX_PORTIONS} buckets a cycle; write a shorter cycle or a longer part of it"
        if problem:
            yield CatalogFinding(
                plan.file, bucket.line, f"buckets[{index}].every", f"is {bucket.every!r}, which {problem}"
            )


def _known_units(plan: Plan, books: Sequence[PriceBook]) -> frozenset[str]:
    rows = (row for book in books if book.currency == plan.currency for row in book.rows)
    return frozenset({STD_TOKEN, REQUEST, plan.currency}.union(*(row.units for row in rows)))


def _units(plan: Plan, known: frozenset[str]) -> Iterator[CatalogFinding]:
    """Find buckets of a unit that no usage burns."""
    for index, bucket in enumerate(plan.buckets):
        if bucket.unit not in known:
            yield CatalogFinding(
                plan.file,
                bucket.line,
                f"buckets[{index}].unit",
                f"is {bucket.unit!r}, which no row of a price book in {plan.currency} has in 'units', so nothing burns "
                f"it; write one of {', '.join(sorted(known))}, or add coefficients",
                WARNING,
            )


def _caps(plan: Plan, known: frozenset[str]) -> Iterator[CatalogFinding]:
    """Find caps in a unit that the plan does not grant, and in one that no usage needs."""
    caps = [(window.line, f"windows[{index}]", window.unit) for index, window in enumerate(plan.windows)]
    if plan.members is not None and plan.members.cap_micro:
        caps.append((plan.line, "members", plan.members.unit))
    for line, key, unit in caps:
        if unit in plan.units:
            continue
        if unit == STD_TOKEN:
            message = f"caps standard tokens, but no bucket is of {STD_TOKEN}: it has no effect"
        elif unit not in known:
            message = f"is in {unit!r}, which no usage needs: it has no effect; write one of {', '.join(sorted(known))}"
        elif key == "members":
            message = f"is in {unit}, but no bucket is: it has no effect; write one of {', '.join(plan.units)}"
        else:
            continue  # the window counts what the usage that the plan pays for needs in this unit
        yield CatalogFinding(plan.file, line, f"{key}.cap", message, WARNING)


def _debt(plan: Plan) -> Iterator[CatalogFinding]:
    """Find a debt that no grant of the plan can pay."""
    if plan.overage.mode != "owe":
        return
    if not any(bucket.unit == STD_TOKEN for bucket in plan.buckets):
        yield CatalogFinding(
            plan.file,
            plan.line,
            "overage.mode",
            f"is owe, but no bucket is of {STD_TOKEN}, so no later grant can pay what is owed; take another mode",
        )
    if plan.activation == "first_use":
        yield CatalogFinding(
            plan.file,
            plan.line,
            "overage.mode",
            "is owe, but the plan's grants wait for their first use; take another mode or activation: purchase",
        )


def _cancellation(plan: Plan) -> Iterator[CatalogFinding]:
    """Find a refund that a cancellation can never give."""
    if plan.cancellation == BY_TIME and plan.cycle.kind == "once":
        yield CatalogFinding(
            plan.file,
            plan.line,
            "cancellation.refund",
            "is by_time, but the cycle has no end, so no part of its time is left; write by_quota or none",
        )
    if plan.cancellation != NO_REFUND and plan.activation == "first_use":
        yield CatalogFinding(
            plan.file,
            plan.line,
            "cancellation.refund",
            "has no effect: a plan that begins with its first use has no subscriptions",
            WARNING,
        )
