"""Checks of a plan: its buckets together, and its units with the price books that define them.

Errors stop publication; warnings are for a person to review. Never reads files.
"""

from collections.abc import Iterator, Sequence

from billing.catalog.findings import WARNING, CatalogFinding
from billing.catalog.model import BY_TIME, NO_REFUND, REQUEST, STD_TOKEN, Plan, PriceBook
from schemas.units import MILLION, format_micro


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
    yield from _units(plan, books)
    yield from _caps(plan)
    yield from _debt(plan)
    yield from _cancellation(plan)


def _units(plan: Plan, books: Sequence[PriceBook]) -> Iterator[CatalogFinding]:
    """Find buckets of a unit that no usage burns."""
    rows = (row for book in books if book.currency == plan.currency for row in book.rows)
    known = {STD_TOKEN, REQUEST, plan.currency}.union(*(row.units for row in rows))
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


def _caps(plan: Plan) -> Iterator[CatalogFinding]:
    """Find caps of standard tokens on a plan that grants none."""
    if any(bucket.unit == STD_TOKEN for bucket in plan.buckets) or plan.overage.mode == "auto_pack":
        return
    caps = [(window.line, f"windows[{index}].cap") for index, window in enumerate(plan.windows)]
    if plan.members is not None and plan.members.cap_micro:
        caps.append((plan.line, "members.cap"))
    for line, key in caps:
        yield CatalogFinding(
            plan.file, line, key, f"caps standard tokens, but no bucket is of {STD_TOKEN}: it has no effect", WARNING
        )


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
