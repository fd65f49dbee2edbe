"""Storable bodies of period rules, which are part of a price book's body (:mod:`billing.catalog.entries`)."""

from collections.abc import Mapping
from typing import Any

from billing.catalog.period_rules import ONE_PICO, SETTLE_AT_ONCE, USAGE_IN, PeriodRule, Tier

PeriodBody = dict[str, Any]
_DEFAULTS: dict[str, Any] = {
    "block_units": 0,
    "block_price_pico": 0,
    "amount_pico": 0,
    "multiply_pico": ONE_PICO,
    "overflow_pico": ONE_PICO,
    "included_usage": USAGE_IN,
    "settle": SETTLE_AT_ONCE,
}
"""Fields of a rule with the values at which they are left out of its body."""


def rule_body(rule: PeriodRule) -> PeriodBody:
    """Return the body of a rule."""
    body: PeriodBody = {"name": rule.name, "kind": rule.kind, "every": rule.every, "timezone": rule.timezone}
    if rule.count:
        body["count"] = list(rule.count)
    if rule.tiers:
        body["tiers"] = [_tier_body(tier) for tier in rule.tiers]
    return body | {key: value for key, default in _DEFAULTS.items() if (value := getattr(rule, key)) != default}


def rule_of(body: Mapping[str, Any]) -> PeriodRule:
    """Rebuild a rule from its body."""
    return PeriodRule(
        name=body["name"],
        kind=body["kind"],
        every=body["every"],
        timezone=body["timezone"],
        count=tuple(body.get("count", ())),
        tiers=tuple(
            Tier(tier.get("up_to"), tier.get("multiply_pico", ONE_PICO), dict(tier.get("price_pico", {})))
            for tier in body.get("tiers", ())
        ),
        **{key: body.get(key, default) for key, default in _DEFAULTS.items()},
    )


def _tier_body(tier: Tier) -> PeriodBody:
    body: PeriodBody = {}
    if tier.up_to is not None:
        body["up_to"] = tier.up_to
    if tier.multiply_pico != ONE_PICO:
        body["multiply_pico"] = tier.multiply_pico
    if tier.price_pico:
        body["price_pico"] = dict(tier.price_pico)
    return body
