"""Reader of the YAML of ``kind: plan`` into a :class:`Plan`."""

from billing.catalog.model import (
    CANCELLATION_REFUNDS,
    NO_REFUND,
    TEXT_DIMENSIONS,
    Cycle,
    Members,
    Overage,
    Plan,
    PlanBucket,
    Window,
)
from billing.catalog.nodes import Node
from billing.catalog.read_book import read_tax_rate
from billing.catalog.read_common import read_currency, read_name, read_scope, read_timezone
from billing.catalog.source import MAX_BALANCE, Fields
from schemas.units import FEN_PICO, MICRO_DIGITS, MILLION, PICO_DIGITS

PLAN_REQUIRED = ("kind", "name", "version", "title", "price", "cycle", "buckets")
PLAN_OPTIONAL = (
    "windows",
    "overage",
    "grace_hours",
    "breakage",
    "alerts",
    "members",
    "activation",
    "activate_within_days",
    "expiry_alert_days",
    "withdrawn_from",
    "cancellation",
)
ACTIVATIONS = ("purchase", "first_use")
CYCLE_KINDS = ("subscription_month", "calendar_month", "days", "once")
BUCKET_KINDS = ("periodic", "total")
OVERAGE_KEYS = {
    "pay_as_you_go": ("cap", "consent"),
    "block": (),
    "auto_pack": ("block", "price", "max_packs"),
    "owe": ("max_owed",),
}
CONSENT = ("not_required", "required")
MAX_PACKS = 1_000
MAX_CARRIED_CYCLES = 1_000
_TIMEZONE = "Asia/Shanghai"


def read_plan(fields: Fields) -> Plan:
    """Read a plan from fields whose keys were checked."""
    price_pico, currency, tax_rate_micro = _read_price(fields)
    nodes = fields.items("buckets")
    return Plan(
        name=read_name(fields),
        version=fields.integer("version", 1),
        title=_read_title(fields),
        price_pico=price_pico,
        currency=currency,
        tax_rate_micro=tax_rate_micro,
        cycle=_read_cycle(fields),
        buckets=tuple(_read_bucket(fields, node, name, len(nodes)) for node, name in nodes),
        windows=tuple(_read_window(fields, node, name) for node, name in fields.items("windows")),
        overage=_read_overage(fields),
        grace_hours=fields.integer("grace_hours", 0, 24, 1_000_000),
        breakage=_read_breakage(fields),
        alerts_micro=_read_alerts(fields),
        members=_read_members(fields),
        activation=_read_activation(fields),
        activate_within_days=fields.integer("activate_within_days", 1, 0, 36_500),
        expiry_alert_days=_read_alert_days(fields),
        withdrawn_from_us=fields.instant("withdrawn_from") if "withdrawn_from" in fields else None,
        cancellation=_read_cancellation(fields),
        file=fields.source.file,
        line=fields.node.line,
    )


def _read_title(plan: Fields) -> dict[str, str]:
    if "title" not in plan:
        return {}
    fields = plan.mapping("title")
    if not len(fields) and not fields.failed:
        plan.fail("title", 'is empty; write a title by language such as {zh: "9.9元词元包"}')
    return {language: fields.text(language) for language in sorted(fields)}


def _read_price(plan: Fields) -> tuple[int, str, int]:
    if "price" not in plan:
        return 0, "", 0
    fields = plan.mapping("price", ("amount", "currency", "tax_rate"))
    amount_pico = fields.scaled("amount", PICO_DIGITS, maximum=MAX_BALANCE)
    if amount_pico % FEN_PICO:
        fields.fail("amount", "is finer than 0.01; a fee is charged in whole fen")
    return amount_pico, read_currency(fields), read_tax_rate(fields)


def _read_cycle(plan: Fields) -> Cycle:
    if "cycle" not in plan:
        return Cycle("once", _TIMEZONE)
    fields = plan.mapping("cycle", ("kind",), ("timezone", "days"))
    kind = fields.choice("kind", CYCLE_KINDS)
    if kind == "days" and "days" not in fields:
        fields.fail("days", "is missing; add how many days a cycle lasts")
    elif kind != "days" and "days" in fields:
        fields.fail("days", f"has no meaning for kind {kind}; remove it or write kind: days")
    return Cycle(kind, read_timezone(fields, _TIMEZONE), fields.integer("days", 1, 0, 36_500))


def _read_bucket(plan: Fields, node: Node, path: str, buckets: int) -> PlanBucket:
    optional = ("priority", "carry_over_cycles", "carry_over", "scope", "fee_share")
    fields = Fields(plan.source, node, path, ("unit", "amount", "kind"), optional)
    scope: dict[str, tuple[str, ...]] = {}
    if "scope" in fields:
        nested = fields.mapping("scope", (), TEXT_DIMENSIONS)
        scope = read_scope(nested)
    share_micro = fields.scaled("fee_share", MICRO_DIGITS, maximum=MILLION)
    if "fee_share" not in fields:
        share_micro = MILLION
        if buckets > 1:
            fields.fail("fee_share", 'is missing; a plan of several buckets needs one in each, such as "0.5"')
    cycles, max_micro, min_micro = _read_carry_over(fields)
    return PlanBucket(
        unit=fields.text("unit"),
        amount_micro=fields.scaled("amount", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        kind=fields.choice("kind", BUCKET_KINDS),
        priority=fields.integer("priority", 0, 100, 1_000_000),
        carry_over_cycles=cycles,
        scope=scope,
        fee_share_micro=share_micro,
        carry_max_micro=max_micro,
        carry_min_micro=min_micro,
        line=node.line,
    )


def _read_carry_over(bucket: Fields) -> tuple[int, int | None, int]:
    """Read the number of cycles for which a remainder is carried over, and the most and the least that is carried."""
    if "carry_over" not in bucket:
        return bucket.integer("carry_over_cycles", 0, 0, MAX_CARRIED_CYCLES), None, 0
    if "carry_over_cycles" in bucket:
        bucket.fail("carry_over_cycles", "stands beside carry_over; write the number as carry_over.cycles")
    fields = bucket.mapping("carry_over", ("cycles",), ("max", "min"))
    max_micro = None
    if "max" in fields:
        max_micro = fields.scaled("max", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE)
    min_micro = fields.scaled("min", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE) if "min" in fields else 0
    if max_micro is not None and max_micro < min_micro:
        fields.fail("max", "is less than min, so nothing could be carried over")
    return fields.integer("cycles", 1, 1, MAX_CARRIED_CYCLES), max_micro, min_micro


def _read_window(plan: Fields, node: Node, path: str) -> Window:
    fields = Fields(plan.source, node, path, ("kind", "cap"), ("hours", "every"))
    kind = fields.choice("kind", ("rolling", "fixed"))
    needed, useless = ("hours", "every") if kind == "rolling" else ("every", "hours")
    if kind and needed not in fields:
        fields.fail(needed, f"is missing; a {kind} window needs it")
    if kind and useless in fields:
        fields.fail(useless, f"has no meaning for a {kind} window; remove it")
    return Window(
        kind=kind,
        hours=fields.integer("hours", 1, 0, 1_000_000),
        every=fields.choice("every", ("week", "month")),
        cap_micro=fields.scaled("cap", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        line=node.line,
    )


def _read_overage(plan: Fields) -> Overage:
    if "overage" not in plan:
        return Overage("block")
    fields = plan.mapping("overage", ("mode",), tuple(key for keys in OVERAGE_KEYS.values() for key in keys))
    mode = fields.choice("mode", OVERAGE_KEYS)
    for key in OVERAGE_KEYS["auto_pack"]:
        if mode == "auto_pack" and key not in fields:
            fields.fail(key, "is missing; mode auto_pack needs it")
    for other, keys in OVERAGE_KEYS.items():
        for key in keys:
            if mode != other and key in fields:
                fields.fail(key, f"has no meaning for mode {mode}; remove it")
    price_pico = fields.scaled("price", PICO_DIGITS, maximum=MAX_BALANCE)
    if price_pico % FEN_PICO:
        fields.fail("price", "is finer than 0.01; a pack is charged in whole fen")
    return Overage(
        mode,
        block_micro=fields.scaled("block", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        price_pico=price_pico,
        max_packs=fields.integer("max_packs", 1, 0, MAX_PACKS),
        cap_pico=fields.scaled("cap", PICO_DIGITS, positive=True, maximum=MAX_BALANCE),
        consent_required=fields.choice("consent", CONSENT) == "required",
        max_owed_micro=fields.scaled("max_owed", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
    )


def _read_members(plan: Fields) -> Members | None:
    if "members" not in plan:
        return None
    fields = plan.mapping("members", (), ("seats", "cap"))
    if not len(fields) and not fields.failed:
        plan.fail("members", "is empty; write seats, cap or both")
    return Members(
        seats=fields.integer("seats", 1, 0, 1_000_000),
        cap_micro=fields.scaled("cap", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
    )


def _read_activation(plan: Fields) -> str:
    kind = plan.choice("activation", ACTIVATIONS) if "activation" in plan else ACTIVATIONS[0]
    if kind != "first_use" and "activate_within_days" in plan:
        plan.fail("activate_within_days", "has no meaning without activation: first_use; remove it")
    return kind


def _read_alerts(plan: Fields) -> tuple[int, ...]:
    """Read the shares of a bucket that raise alerts, at most 1: an alert at "80" instead of "0.8" would never occur."""
    shares = {
        plan.scaled_of(node, name, MICRO_DIGITS, positive=True, maximum=MILLION) for node, name in plan.items("alerts")
    }
    return tuple(sorted(shares))


def _read_alert_days(plan: Fields) -> tuple[int, ...]:
    days = {plan.integer_of(node, name, 1, 36_500) for node, name in plan.items("expiry_alert_days")}
    return tuple(sorted(days, reverse=True))


def _read_cancellation(plan: Fields) -> str:
    if "cancellation" not in plan:
        return NO_REFUND
    fields = plan.mapping("cancellation", ("refund",))
    return fields.choice("refund", CANCELLATION_REFUNDS)


def _read_breakage(plan: Fields) -> str:
    if "breakage" not in plan:
        return "at_expiry"
    fields = plan.mapping("breakage", ("policy",))
    return fields.text("policy")
