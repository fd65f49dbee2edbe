"""Reader of the YAML of ``kind: plan`` into a :class:`Plan`."""

from billing.catalog.model import (
    CANCELLATION_REFUNDS,
    NO_REFUND,
    STD_TOKEN,
    TEXT_DIMENSIONS,
    Cycle,
    Members,
    Overage,
    Plan,
    PlanBucket,
    Proration,
    Window,
)
from billing.catalog.nodes import Node
from billing.catalog.read_book import read_tax_rate
from billing.catalog.read_common import read_currency, read_name, read_scope, read_timezone
from billing.catalog.source import MAX_BALANCE, Fields
from schemas.currencies import is_payable, minor_unit_pico
from schemas.units import MICRO_DIGITS, MILLION, PICO_DIGITS, format_pico

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
    "proration",
    "cancellation",
)
ACTIVATIONS = ("purchase", "first_use")
CYCLE_LENGTHS = {"days": 36_500, "weeks": 5_200, "months": 1_200, "years": 100}
"""Kinds of cycle that a number of units defines, with the greatest number: a cycle lasts at most a century."""
CYCLE_KINDS = ("subscription_month", "calendar_month", "day", *CYCLE_LENGTHS, "once")
BUCKET_KINDS = ("periodic", "total")
PORTIONS = ("day", "week", "month")
WINDOW_KINDS = {"rolling": "hours", "from_first_use": "hours", "fixed": "every"}
"""Kinds of window, with the key that says how long one is."""
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
    buckets = tuple(_read_bucket(fields, node, name, len(nodes)) for node, name in nodes)
    overage = _read_overage(fields, currency)
    capped = _capped_unit(buckets, overage)
    return Plan(
        name=read_name(fields),
        version=fields.integer("version", 1),
        title=_read_title(fields),
        price_pico=price_pico,
        currency=currency,
        tax_rate_micro=tax_rate_micro,
        cycle=_read_cycle(fields),
        buckets=buckets,
        windows=tuple(_read_window(fields, node, name, capped) for node, name in fields.items("windows")),
        overage=overage,
        grace_hours=fields.integer("grace_hours", 0, 24, 1_000_000),
        breakage=_read_breakage(fields),
        alerts_micro=_read_alerts(fields),
        members=_read_members(fields, capped),
        activation=_read_activation(fields),
        activate_within_days=fields.integer("activate_within_days", 1, 0, 36_500),
        expiry_alert_days=_read_alert_days(fields),
        withdrawn_from_us=fields.instant("withdrawn_from") if "withdrawn_from" in fields else None,
        proration=_read_proration(fields),
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
    currency = read_currency(fields)
    _check_payable(fields, "amount", amount_pico, currency, "a fee")
    return amount_pico, currency, read_tax_rate(fields)


def _check_payable(fields: Fields, key: str, amount_pico: int, currency: str, what: str) -> None:
    """Report an amount that is finer than the minor unit of its currency, which cannot be paid."""
    if not is_payable(amount_pico, currency):
        unit = format_pico(minor_unit_pico(currency))
        coins = "fen" if currency == "CNY" else f"units of {unit} {currency}"
        fields.fail(key, f"is finer than {unit}; {what} is charged in whole {coins}")


def _read_cycle(plan: Fields) -> Cycle:
    if "cycle" not in plan:
        return Cycle("once", _TIMEZONE)
    fields = plan.mapping("cycle", ("kind",), ("timezone", *CYCLE_LENGTHS))
    kind = fields.choice("kind", CYCLE_KINDS)
    if kind in CYCLE_LENGTHS and kind not in fields:
        fields.fail(kind, f"is missing; add how many {kind} a cycle lasts")
    for key in CYCLE_LENGTHS:
        if key != kind and key in fields:
            fields.fail(key, f"has no meaning for kind {kind}; remove it or write kind: {key}")
    lengths = {key: fields.integer(key, 1, 0, most) for key, most in CYCLE_LENGTHS.items()}
    length = 0 if kind == "days" else lengths.get(kind, 0)
    return Cycle(kind, read_timezone(fields, _TIMEZONE), lengths["days"], length)


def _capped_unit(buckets: tuple[PlanBucket, ...], overage: Overage) -> str:
    """Return the unit of caps that name none: standard tokens, or the unit of all buckets if that is another one."""
    units = {bucket.unit for bucket in buckets}
    return units.pop() if len(units) == 1 and overage.mode != "auto_pack" else STD_TOKEN


def _read_proration(plan: Fields) -> Proration:
    if "proration" not in plan:
        return Proration()
    fields = plan.mapping("proration", (), ("fee", "quota"))
    if not len(fields) and not fields.failed:
        plan.fail("proration", "is empty; write fee, quota or both")
    return Proration(*(fields.choice(key, ("true", "false"), "false") == "true" for key in ("fee", "quota")))


def _read_bucket(plan: Fields, node: Node, path: str, buckets: int) -> PlanBucket:
    optional = ("priority", "carry_over_cycles", "carry_over", "scope", "fee_share", "every")
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
        every=fields.choice("every", PORTIONS),
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


def _read_window(plan: Fields, node: Node, path: str, unit: str) -> Window:
    fields = Fields(plan.source, node, path, ("kind", "cap"), ("hours", "every", "unit", "alerts"))
    kind = fields.choice("kind", WINDOW_KINDS)
    for key in ("hours", "every"):
        needed = WINDOW_KINDS.get(kind)
        if key == needed and key not in fields:
            fields.fail(key, f"is missing; a {kind} window needs it")
        elif needed and key != needed and key in fields:
            fields.fail(key, f"has no meaning for a {kind} window; remove it")
    return Window(
        kind=kind,
        hours=fields.integer("hours", 1, 0, 1_000_000),
        every=fields.choice("every", ("day", "week", "month")),
        cap_micro=fields.scaled("cap", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        unit=fields.text("unit", unit),
        alerts_micro=_read_alerts(fields),
        line=node.line,
    )


def _read_overage(plan: Fields, currency: str) -> Overage:
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
    _check_payable(fields, "price", price_pico, currency, "a pack")
    return Overage(
        mode,
        block_micro=fields.scaled("block", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        price_pico=price_pico,
        max_packs=fields.integer("max_packs", 1, 0, MAX_PACKS),
        cap_pico=fields.scaled("cap", PICO_DIGITS, positive=True, maximum=MAX_BALANCE),
        consent_required=fields.choice("consent", CONSENT) == "required",
        max_owed_micro=fields.scaled("max_owed", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
    )


def _read_members(plan: Fields, unit: str) -> Members | None:
    if "members" not in plan:
        return None
    fields = plan.mapping("members", (), ("seats", "cap", "unit"))
    if not len(fields) and not fields.failed:
        plan.fail("members", "is empty; write seats, cap or both")
    if "unit" in fields and "cap" not in fields:
        fields.fail("unit", "has no meaning without cap; add one or remove it")
    return Members(
        seats=fields.integer("seats", 1, 0, 1_000_000),
        cap_micro=fields.scaled("cap", MICRO_DIGITS, positive=True, maximum=MAX_BALANCE),
        unit=fields.text("unit", unit) if "cap" in fields else STD_TOKEN,
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
