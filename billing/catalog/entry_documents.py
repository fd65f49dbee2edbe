"""JSON documents of catalogue entries for the HTTP API, with defaults filled in.

Keys and values are spelled as in catalogue files (docs/reference/price-books.md, "Rows"; docs/reference/plans.md,
"Fields").
"""

from collections.abc import Mapping
from typing import Any

from billing.catalog.model import (
    DAYS,
    NO_REFUND,
    TEXT_DIMENSIONS,
    Adjustment,
    Members,
    Plan,
    PlanBucket,
    PriceBook,
    PriceRow,
    Proration,
    TimeBand,
    Window,
)
from billing.catalog.period_rules import BLOCKS, COMMITMENT, SETTLE_AT_ONCE, USAGE_IN, PeriodRule, Tier
from schemas.times import format_time_us
from schemas.units import MICRO_DIGITS, PICO_DIGITS, format_micro, format_pico, format_scaled

_Json = dict[str, Any]


def plan_object(plan: Plan) -> _Json:
    """Return the document of a version of a plan."""
    return {
        "name": plan.name,
        "version": plan.version,
        "title": dict(plan.title),
        "price": {
            "amount": format_pico(plan.price_pico),
            "currency": plan.currency,
            "tax_rate": format_micro(plan.tax_rate_micro),
        },
        "cycle": _without_none(
            {
                "kind": plan.cycle.kind,
                "timezone": plan.cycle.timezone,
                "days": plan.cycle.days if plan.cycle.kind == "days" else None,
                **({plan.cycle.kind: plan.cycle.length} if plan.cycle.length else {}),
            }
        ),
        "buckets": [
            {
                "unit": bucket.unit,
                "amount": format_micro(bucket.amount_micro),
                "kind": bucket.kind,
                "priority": bucket.priority,
                **_carry_over(bucket),
                "scope": _scope(bucket.scope),
                "fee_share": format_micro(bucket.fee_share_micro),
                **({"every": bucket.every} if bucket.every else {}),
            }
            for bucket in plan.buckets
        ],
        "windows": [_window(window) for window in plan.windows],
        "overage": _overage(plan),
        "grace_hours": plan.grace_hours,
        "breakage": {"policy": plan.breakage},
        "alerts": [format_micro(alert) for alert in plan.alerts_micro],
        **({} if plan.members is None else {"members": _members(plan.members)}),
        **({} if plan.withdrawn_from_us is None else {"withdrawn_from": format_time_us(plan.withdrawn_from_us)}),
        **({} if plan.proration == Proration() else {"proration": _proration(plan.proration)}),
        **({} if plan.cancellation == NO_REFUND else {"cancellation": {"refund": plan.cancellation}}),
    }


def _carry_over(bucket: PlanBucket) -> _Json:
    if bucket.carry_max_micro is None and not bucket.carry_min_micro:
        return {"carry_over_cycles": bucket.carry_over_cycles}
    limits = {"max": bucket.carry_max_micro, "min": bucket.carry_min_micro or None}
    written = {name: format_micro(micro) for name, micro in limits.items() if micro is not None}
    return {"carry_over": {"cycles": bucket.carry_over_cycles} | written}


def _window(window: Window) -> _Json:
    return (
        {"kind": window.kind}
        | ({"every": window.every} if window.kind == "fixed" else {"hours": window.hours})
        | {"cap": format_micro(window.cap_micro), "unit": window.unit}
        | ({"alerts": [format_micro(alert) for alert in window.alerts_micro]} if window.alerts_micro else {})
    )


def _proration(proration: Proration) -> _Json:
    return {"fee": proration.fee, "quota": proration.quota}


def _members(members: Members) -> _Json:
    return _without_none(
        {
            "seats": members.seats or None,
            "cap": format_micro(members.cap_micro) if members.cap_micro else None,
            "unit": members.unit if members.cap_micro else None,
        }
    )


def _overage(plan: Plan) -> _Json:
    overage = plan.overage
    if overage.mode != "auto_pack":
        cap = {"cap": format_pico(overage.cap_pico)} if overage.cap_pico else {}
        owed = {"max_owed": format_micro(overage.max_owed_micro)} if overage.max_owed_micro else {}
        return {"mode": overage.mode} | cap | owed | ({"consent": "required"} if overage.consent_required else {})
    return {
        "mode": overage.mode,
        "block": format_micro(overage.block_micro),
        "price": format_pico(overage.price_pico),
        "max_packs": overage.max_packs,
    }


def book_head(book: PriceBook) -> _Json:
    """Return the document of a version of a price book without its rows, as lists show it."""
    return {
        "name": book.name,
        "version": book.version,
        "currency": book.currency,
        "tax_rate": format_micro(book.tax_rate_micro),
        "effective_from": format_time_us(book.effective_from_us),
        "rows": len(book.rows),
    }


def book_object(book: PriceBook) -> _Json:
    """Return the document of a version of a price book with its rows."""
    price_pico = book.standard_token_price_pico_per_million
    return book_head(book) | {
        "standard_token_price": None if price_pico is None else format_pico(price_pico),
        "stacking": book.stacking,
        "meters": list(book.meters),
        **({"dimensions": dimensions} if (dimensions := _dimensions(book)) else {}),
        "time_bands": {name: _band(band) for name, band in book.time_bands.items()},
        "periods": {name: _period(rule) for name, rule in book.periods.items()},
        "rows": [_row(row, book) for row in book.rows],
        "adjustments": [_adjustment(adjustment) for adjustment in book.adjustments],
    }


def _dimensions(book: PriceBook) -> _Json:
    return {name: f"attributes.{attribute}" for name, attribute in book.dimensions.items()}


def _period(rule: PeriodRule) -> _Json:
    of_kind: _Json = {}
    if rule.kind == COMMITMENT:
        of_kind = {
            "amount": format_pico(rule.amount_pico),
            "multiply": format_pico(rule.multiply_pico),
            "overflow_multiply": format_pico(rule.overflow_pico),
        } | ({} if rule.included_usage == USAGE_IN else {"included_usage": rule.included_usage})
    elif rule.kind == BLOCKS:
        of_kind = {"block": {"units": str(rule.block_units), "price": format_pico(rule.block_price_pico)}}
    else:
        settle = {} if rule.settle == SETTLE_AT_ONCE else {"settle": rule.settle}
        of_kind = {"tiers": [_tier(tier) for tier in rule.tiers]} | settle
    count = {"count": list(rule.count)} if rule.count else {}
    return {"kind": rule.kind, "every": rule.every, "timezone": rule.timezone} | count | of_kind


def _tier(tier: Tier) -> _Json:
    end = None if tier.up_to is None else str(tier.up_to)
    if tier.price_pico:
        return {"up_to": end, "per_million": _per_million(tier.price_pico)}
    return {"up_to": end, "multiply": format_pico(tier.multiply_pico)}


def _per_million(price_pico: Mapping[str, int]) -> _Json:
    return {meter: format_scaled(pico, PICO_DIGITS - MICRO_DIGITS) for meter, pico in price_pico.items()}


def _row(row: PriceRow, book: PriceBook) -> _Json:
    return _without_none(
        {
            **dict(zip((*TEXT_DIMENSIONS, *book.dimensions), row.patterns, strict=True)),
            "outcome": list(row.outcome),
            "time_band": row.time_band,
            "periods": list(row.periods) or None,
            "context": None if row.context is None else list(row.context),
            "output_context": None if row.output_context is None else list(row.output_context),
            "per_million": _per_million(row.price_pico),
            "standard_tokens": {meter: format_micro(micro) for meter, micro in row.coefficient_micro.items()},
            "units": {
                unit: {meter: format_micro(micro) for meter, micro in values.items()}
                for unit, values in row.units.items()
            }
            or None,
            "minimum_charge": format_pico(row.minimum_charge_pico) if row.minimum_charge_pico else None,
            "unmetered": row.unmetered or None,
            "increments": {
                meter: {"minimum": minimum, "step": step} for meter, (minimum, step) in row.increments.items()
            }
            or None,
        }
    )


def _adjustment(adjustment: Adjustment) -> _Json:
    return _without_none(
        {
            **_scope(adjustment.scope),
            "time_band": list(adjustment.time_bands) or None,
            "context": None if adjustment.context is None else list(adjustment.context),
            "output_context": None if adjustment.output_context is None else list(adjustment.output_context),
            "meters": list(adjustment.meters) or None,
            "multiply": format_pico(adjustment.multiply_pico),
            "reason": adjustment.reason,
        }
    )


def _band(band: TimeBand) -> _Json:
    return _without_none(
        {
            "timezone": band.timezone,
            "days": [DAYS[day] for day in band.days],
            "hours": [f"{_clock(start)}-{_clock(end)}" for start, end in band.hours],
            "except": band.excepts,
        }
    )


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def _scope(scope: Mapping[str, tuple[str, ...]]) -> _Json:
    return {dimension: list(patterns) for dimension, patterns in scope.items()}


def _without_none(body: _Json) -> _Json:
    return {name: value for name, value in body.items() if value is not None}
