"""Explanation of the prices of an event: the steps of each meter from list price to amount, and the counters.

Part of :mod:`billing.pricing.explain`, which defines an explanation.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from billing.catalog.model import ABOVE_COMMITMENT, PriceBook, PriceRow
from billing.catalog.period_calendar import Period
from billing.catalog.period_rules import BLOCKS, BLOCKS_LINE, COMMITMENT, ONE_PICO, SETTLE_AT_ONCE, PeriodRule
from billing.pricing.adjust import counting, factor_of
from billing.pricing.increments import UsedQuantities, billed_counts
from billing.pricing.period_prices import Clock, Counted, Counters, Part, split
from billing.pricing.rate import charged_counts
from billing.pricing.row_prices import RowPrices
from schemas.times import format_time_us
from schemas.units import (
    MICRO_DIGITS,
    MILLION,
    PICO_DIGITS,
    divide_half_even,
    format_micro,
    format_pico,
    format_scaled,
)
from schemas.usage import UsageEvent

_Json = dict[str, Any]


def explain_prices(
    event: UsageEvent, prices: RowPrices, counters: Counters, clock: Clock | None
) -> tuple[list[_Json], list[_Json]]:
    """Return every part of an event with its price, and every counter before and after it.

    If a meter has no price, or the period is no longer counted, the parts are the meters that the row prices, at the
    row's prices, and there are no counters.
    """
    base = prices(None, ONE_PICO)
    charged = charged_counts(event, base)
    used = UsedQuantities(prices.row, charged)
    counts = billed_counts(prices.row, charged)
    known = [(meter, quantity) for meter, quantity in counts if meter in base]
    parts, counted = [Part(meter, quantity, *base[meter]) for meter, quantity in known], list[Counted]()
    if prices.row.periods and len(known) == len(counts):
        clock = clock or Clock(event.time_us)
        found = split(known, event.time_us, prices.row, prices.rules, prices, counters, clock)
        if not isinstance(found, Period):
            parts, counted = found
    return [_price(prices, part, used) for part in parts], [_counted(prices, item, parts) for item in counted]


def _counted(prices: RowPrices, item: Counted, parts: Sequence[Part]) -> _Json:
    """Return a period rule with its period, its tiers, and its counter before and after the event."""
    rule = item.rule
    told: _Json = {"name": rule.name, "kind": rule.kind}
    if rule.line:
        told["line"] = rule.line
    told |= {"every": rule.every, "timezone": rule.timezone, "first_day": item.period.first_day}
    told |= {"from": format_time_us(item.period.from_us), "until": format_time_us(item.period.until_us)}
    if rule.kind == COMMITMENT:
        told |= {"committed": format_pico(rule.amount_pico)}
        told |= {"multiply": _factor(rule.multiply_pico), "overflow_multiply": _factor(rule.overflow_pico)}
        if item.outside is not None:
            surcharge_pico = item.outside.surcharge_pico(Fraction(1))
            told |= {"included_usage": rule.included_usage, ABOVE_COMMITMENT: format_pico(surcharge_pico)}
        if item.after is None:
            return told | {"settled": True}
        return told | {"drawn_before": format_pico(item.before.used), "drawn_after": format_pico(item.after.used)}
    told["count"] = list(rule.count)
    after = item.before if item.after is None else item.after
    if rule.kind == BLOCKS:
        told["block"] = {"units": str(rule.block_units), "price": format_pico(rule.block_price_pico)}
        return told | {"left_before": format_micro(item.before.used), "left_after": format_micro(after.used)}
    told["tiers"] = _tiers(rule)
    if rule.settle != SETTLE_AT_ONCE:
        told["settle"] = rule.settle
    told["tiers_used"] = sorted({part.tier for part in parts if part.tier is not None})
    return told | {"counted_before": format_micro(item.before.used), "counted_after": format_micro(after.used)}


def _tiers(rule: PeriodRule) -> list[_Json]:
    told: list[_Json] = []
    for tier in rule.tiers:
        of: _Json = {"up_to": None if tier.up_to is None else str(tier.up_to)}
        if tier.price_pico:
            of["per_million"] = {meter: format_scaled(price, MICRO_DIGITS) for meter, price in tier.price_pico.items()}
        else:
            of["multiply"] = _factor(tier.multiply_pico)
        told.append(of)
    return told


def _factor(factor_pico: int) -> str:
    return format_scaled(factor_pico, PICO_DIGITS)


def _price(prices: RowPrices, part: Part, used: UsedQuantities) -> _Json:
    """Return the steps of one part from list price to amount."""
    book, row = prices.book, prices.row
    meter = part.meter
    told: _Json = {"meter": meter, "quantity": part.quantity}
    if meter in row.increments:
        used_quantity = used.of(meter, part.quantity)
        told["used"] = part.quantity if used_quantity is None else used_quantity
        told["increment"] = dict(zip(("minimum", "step"), row.increments[meter], strict=True))
    if meter == BLOCKS_LINE:
        priced, list_pico = meter, prices.block_list_pico
        coefficient_micro, origin = 0, "none: the units in a block have theirs"
    else:
        priced = "output" if meter == "reasoning" and "reasoning" not in row.price_pico else meter
        list_pico = prices.priced(part.tier).price_pico[priced]
        coefficient_micro, origin = _coefficient(book, row, meter, priced)
    if priced != meter:
        told["price_of"] = priced
    if part.tier is not None:
        told["tier"] = part.tier
    if part.committed is not None:
        told["committed"] = part.committed
    if part.in_block:
        told["in_block"] = True
    counted = () if part.in_block else counting(book.stacking, prices.matching, priced)
    factor, digits = factor_of(counted)
    period_factor, period_digits = 1, 0
    for more_pico in _period_factors(prices, part):
        period_factor, period_digits = period_factor * more_pico, period_digits + PICO_DIGITS
    return told | {
        "list_per_million": format_scaled(list_pico, MICRO_DIGITS),
        "adjustments": [number for number, a in enumerate(book.adjustments) if any(a is other for other in counted)],
        "factor": format_scaled(factor, digits),
        **({"period_factor": format_scaled(period_factor, period_digits)} if row.periods else {}),
        "per_million": format_scaled(part.price_pico, MICRO_DIGITS),
        "amount": format_pico(part.quantity * part.price_pico),
        "coefficient": format_micro(coefficient_micro),
        "coefficient_from": origin,
        "standard_tokens": format_micro(part.quantity * coefficient_micro),
    }


def _period_factors(prices: RowPrices, part: Part) -> tuple[int, ...]:
    """Return the factors of a part's tier and of a commitment; 0 for units that a block covers."""
    if part.in_block:
        return (0,)
    _, commitment = prices.rules
    if commitment is None or part.committed is None:
        return (prices.tier_factor(part.tier),)
    return prices.tier_factor(part.tier), commitment.multiply_pico if part.committed else commitment.overflow_pico


def _coefficient(book: PriceBook, row: PriceRow, meter: str, priced: str) -> tuple[int, str]:
    """Return the coefficient of a meter in micro, and its origin."""
    origin = ""
    if meter not in row.coefficient_micro and priced != meter:
        meter, origin = priced, "output's, "
    coefficient_micro = row.coefficient_micro.get(meter)
    if coefficient_micro is None:
        return 0, origin + "none: the row states none and the book has no standard_token_price"
    standard_price = book.standard_token_price_pico_per_million
    stated = row.stated is None or meter in row.stated
    if standard_price and (row.stated is None or not stated) and meter in row.price_pico:
        price_pico = row.price_pico[meter]
        if coefficient_micro == divide_half_even(price_pico * MILLION * MILLION, standard_price):
            price, standard = format_scaled(price_pico, MICRO_DIGITS), format_pico(standard_price)
            return coefficient_micro, origin + f"price {price} ÷ standard token price {standard}"
    return coefficient_micro, origin + "stated in the row"
