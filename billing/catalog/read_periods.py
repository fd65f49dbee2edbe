"""Reader of the key ``periods`` of a price book into :class:`~billing.catalog.period_rules.PeriodRule` values.

Errors are collected at their lines, as in every reader. :mod:`billing.catalog.check_periods` checks that rows and rules
fit together.
"""

from collections.abc import Callable

from billing.catalog.nodes import Node, is_null
from billing.catalog.period_rules import (
    BLOCKS,
    EVERY,
    INCLUDED_USAGE,
    ONE_PICO,
    PERIOD_KINDS,
    SETTLE_AT_ONCE,
    SETTLEMENTS,
    STANDARD_TOKENS,
    USAGE_IN,
    PeriodRule,
    Tier,
)
from billing.catalog.read_common import is_meter_name, read_timezone
from billing.catalog.source import MAX_BALANCE, Fields
from schemas.units import PICO_DIGITS

DEFAULT_TIMEZONE = "Asia/Shanghai"
COMMON = ("kind", "every", "timezone")
OF_KIND: dict[str, tuple[str, ...]] = {
    "graduated": ("count", "tiers"),
    "volume": ("count", "tiers", "settle"),
    "blocks": ("count", "block"),
    "commitment": ("amount", "multiply", "overflow_multiply", "included_usage"),
}
"""Keys of a rule by its kind, beyond the common ones."""
_REQUIRED_OF_KIND = {"graduated": 2, "volume": 2, "blocks": 2, "commitment": 1}
TIER_KEYS = ("up_to", "multiply", "per_million")
BLOCK_KEYS = ("units", "price")
_EVERY_KEY = tuple(dict.fromkeys(key for keys in OF_KIND.values() for key in keys))

ReadPrices = Callable[[Fields, str], dict[str, int]]
"""Function that reads a mapping of meters to prices per million."""


def read_periods(fields: Fields, known: frozenset[str], read_prices: ReadPrices) -> dict[str, PeriodRule]:
    """Read the rules by name. ``known`` are the meters of the book."""
    if "periods" not in fields:
        return {}
    rules = fields.mapping("periods")
    return {name: _read_rule(rules, name, known, read_prices) for name in rules}


def _read_rule(rules: Fields, name: str, known: frozenset[str], read_prices: ReadPrices) -> PeriodRule:
    fields = rules.mapping(name, ("kind",), ("every", "timezone", *_EVERY_KEY))
    if not is_meter_name(name):
        rules.fail(name, "is not a name of a period rule; write small letters, digits and '_'")
    kind = fields.choice("kind", PERIOD_KINDS)
    if kind in OF_KIND:
        own = OF_KIND[kind]
        for key in _EVERY_KEY:
            if key in fields and key not in own:
                fields.fail(key, f"does not belong to a rule of kind {kind}; its keys are {', '.join(own)}")
        for key in own[: _REQUIRED_OF_KIND[kind]]:
            if key not in fields:
                fields.fail(key, "is missing; add it")
    count = _read_count(fields, known)
    units, price_pico = _read_block(fields) if kind == BLOCKS and "block" in fields else (0, 0)
    return PeriodRule(
        name=name,
        kind=kind,
        every=fields.choice("every", EVERY, EVERY[0]),
        timezone=read_timezone(fields, DEFAULT_TIMEZONE),
        count=count,
        tiers=_read_tiers(fields, count, read_prices),
        block_units=units,
        block_price_pico=price_pico,
        amount_pico=fields.scaled("amount", PICO_DIGITS, positive=True, maximum=MAX_BALANCE),
        multiply_pico=_factor(fields, "multiply"),
        overflow_pico=_factor(fields, "overflow_multiply"),
        included_usage=fields.choice("included_usage", INCLUDED_USAGE, USAGE_IN),
        settle=fields.choice("settle", SETTLEMENTS, SETTLE_AT_ONCE),
        line=fields.node.line,
    )


def _factor(fields: Fields, key: str) -> int:
    return fields.scaled(key, PICO_DIGITS) if key in fields else ONE_PICO


def _read_count(fields: Fields, known: frozenset[str]) -> tuple[str, ...]:
    """Read the meters to count, sorted, or :data:`STANDARD_TOKENS`."""
    count = fields.texts("count")
    for meter in count:
        if meter == STANDARD_TOKENS and len(count) > 1:
            fields.fail("count", f"has {meter!r} beside meters; count either the one or the others")
        elif meter and meter != STANDARD_TOKENS and meter not in known:
            fields.fail(
                "count",
                f"has {meter!r}, not a meter; write meters or {STANDARD_TOKENS}, or declare it in 'meters' of the book",
            )
    return tuple(sorted(count))


def _read_tiers(fields: Fields, count: tuple[str, ...], read_prices: ReadPrices) -> tuple[Tier, ...]:
    nodes = fields.items("tiers")
    tiers = [_read_tier(fields, node, path, count, read_prices) for node, path in nodes]
    if "tiers" in fields and not tiers and not fields.failed:
        fields.fail("tiers", "is empty; write at least one, the last with up_to: null")
    if fields.failed:
        return ()
    before = 0
    for (node, path), tier in zip(nodes, tiers, strict=True):
        last = node is nodes[-1][0]
        if tier.up_to is None and not last:
            fields.fail_at(node, f"{path}.up_to", "is null, but more tiers follow; only the last one is open")
        elif tier.up_to is not None and last:
            fields.fail_at(node, f"{path}.up_to", f"is {tier.up_to}; the last tier is open: write null")
        elif tier.up_to is not None and tier.up_to <= before:
            fields.fail_at(node, f"{path}.up_to", f"is {tier.up_to}, not more than {before} before it; let them rise")
        before = tier.up_to or before
    return tuple(tiers)


def _read_tier(rule: Fields, node: Node, path: str, count: tuple[str, ...], read_prices: ReadPrices) -> Tier:
    fields = Fields(rule.source, node, path, ("up_to",), TIER_KEYS[1:])
    up_to = None
    if "up_to" in fields and not is_null(fields.where("up_to")):
        up_to = fields.integer("up_to", 1)
    prices = read_prices(fields, "per_million")
    if "multiply" in fields and "per_million" in fields:
        fields.fail("multiply", "stands beside per_million; a tier has a factor or prices of its own")
    if "per_million" in fields and not prices and not fields.failed:
        fields.fail("per_million", "prices no meter; write at least one, or leave it out")
    for meter in prices:
        if count and count != (STANDARD_TOKENS,) and meter not in count:
            fields.fail("per_million", f"prices {meter!r}, which the rule does not count; count it or take it out")
    return Tier(up_to, _factor(fields, "multiply"), prices, node.line)


def _read_block(rule: Fields) -> tuple[int, int]:
    fields = rule.mapping("block", BLOCK_KEYS)
    return fields.integer("units", 1), fields.scaled("price", PICO_DIGITS, maximum=MAX_BALANCE)
