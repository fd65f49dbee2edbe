"""Storable bodies of catalogue entries, with their digest: JSON of strings, integers, lists and objects.

A body holds the meaning, not the text: defaults are filled in; comments, file and line are dropped. A key without a
value (an open context, no time band) is left out; there are no nulls. Bodies of published versions are kept for ever,
so every shape that was ever written stays readable, and a change of shape raises ``body_version``. A body has the
lowest version that can hold it:

- 2 for stacking, conditions of an adjustment or a minimum charge;
- 3 for period rules, and for plans with windows, members, units other than standard tokens, packs, or a cap or consent
  of overage;
- 4 for a plan that is withdrawn;
- 5 for bands of output length, increments and declared dimensions, a volume price of the whole period, and a commitment
  that included usage does not draw; and for a plan with a proration, with cycles or portions by number of weeks, months
  or years or by day, with windows or members' caps of other units, by day, from the first use or with alerts, with a
  refund at cancellation, limits of a carry-over, or debt as overage;
- 1 for everything else.

A program that does not know a version refuses the entry instead of deciding without part of it. The digests of entries
without the new parts do not change.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from billing.catalog.load import assemble
from billing.catalog.model import (
    NO_REFUND,
    STACKING,
    STD_TOKEN,
    TEXT_DIMENSIONS,
    Adjustment,
    Catalog,
    Cycle,
    Holidays,
    Members,
    Overage,
    Plan,
    PlanBucket,
    PriceBook,
    PriceRow,
    Proration,
    TimeBand,
    Window,
)
from billing.catalog.period_bodies import rule_body, rule_of
from billing.catalog.period_rules import SETTLE_AT_ONCE, USAGE_IN

BODY_VERSION = 5
_FIFTH_VERSION = 5
_FOURTH_VERSION = 4
_THIRD_VERSION = 3
_SECOND_VERSION = 2
_FIRST_VERSION = 1
EntryBody = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One entry as stored.

    ``effective_from_us`` is None for an entry without a date. ``sha256`` is the digest of the body.
    """

    kind: str
    name: str
    version: int
    effective_from_us: int | None
    body: EntryBody
    sha256: str


def canonical_json(body: Mapping[str, Any]) -> bytes:
    """Return a body as UTF-8 JSON with sorted keys and no blanks: the bytes that are hashed."""
    return json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def body_sha256(body: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest of a body, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(body)).hexdigest()


def to_entries(catalog: Catalog) -> tuple[CatalogEntry, ...]:
    """Return the stored form of every price book, plan and holiday table, sorted by kind, name and version."""
    entries = [_entry(_holidays_body(table), None) for table in catalog.holidays]
    entries += [_entry(_plan_body(plan), None) for plan in catalog.plans]
    entries += [_entry(_book_body(book), book.effective_from_us) for book in catalog.price_books]
    return tuple(sorted(entries, key=lambda entry: (entry.kind, entry.name, entry.version)))


def from_entries(bodies: Iterable[Mapping[str, Any]]) -> Catalog:
    """Rebuild a catalogue from the bodies of its entries.

    Raises:
        ValueError: a body of an unknown kind or version.
    """
    books: list[PriceBook] = []
    plans: list[Plan] = []
    holidays: list[Holidays] = []
    for body in bodies:
        kind = body["kind"]
        if not _FIRST_VERSION <= body["body_version"] <= BODY_VERSION:
            raise ValueError(
                f"{kind} {body['name']} has a body of version {body['body_version']}, "
                f"not {_FIRST_VERSION} to {BODY_VERSION}"
            )
        if kind == "price_book":
            books.append(_book(body))
        elif kind == "plan":
            plans.append(_plan(body))
        elif kind == "holidays":
            holidays.append(_holidays(body))
        else:
            raise ValueError(f"{kind!r} is not a kind of catalogue entry")
    return assemble(books, plans, holidays)


def _entry(body: EntryBody, effective_from_us: int | None) -> CatalogEntry:
    return CatalogEntry(body["kind"], body["name"], body["version"], effective_from_us, body, body_sha256(body))


def _head(kind: str, name: str, version: int, body_version: int = _FIRST_VERSION) -> EntryBody:
    return {"kind": kind, "body_version": body_version, "name": name, "version": version}


def _without_none(body: EntryBody) -> EntryBody:
    return {key: value for key, value in body.items() if value is not None}


def _holidays_body(table: Holidays) -> EntryBody:
    days = {
        "off": [date.fromordinal(day).isoformat() for day in table.off],
        "work": [date.fromordinal(day).isoformat() for day in table.work],
    }
    return _head("holidays", table.name, table.version) | days


def _holidays(body: Mapping[str, Any]) -> Holidays:
    off, work = (tuple(date.fromisoformat(day).toordinal() for day in body[key]) for key in ("off", "work"))
    return Holidays(body["name"], body["version"], off, work)


def _scope_body(scope: Mapping[str, tuple[str, ...]]) -> EntryBody:
    return {dimension: list(patterns) for dimension, patterns in scope.items()}


def _scope(body: Mapping[str, list[str]], declared: Iterable[str] = ()) -> dict[str, tuple[str, ...]]:
    return {dimension: tuple(body[dimension]) for dimension in (*TEXT_DIMENSIONS, *declared) if dimension in body}


def _book_body_version(book: PriceBook) -> int:
    if (
        book.has_output_bands
        or book.dimensions
        or any(row.increments or row.unmetered for row in book.rows)
        or any(rule.settle != SETTLE_AT_ONCE or rule.included_usage != USAGE_IN for rule in book.periods.values())
    ):
        return _FIFTH_VERSION
    if book.periods:
        return _THIRD_VERSION
    newer = (
        book.stacking != STACKING[0]
        or any(a.time_bands or a.context or a.meters for a in book.adjustments)
        or any(row.minimum_charge_pico for row in book.rows)
    )
    return _SECOND_VERSION if newer else _FIRST_VERSION


def _book_body(book: PriceBook) -> EntryBody:
    return _head("price_book", book.name, book.version, _book_body_version(book)) | _without_none(
        {
            "currency": book.currency,
            "tax_rate_micro": book.tax_rate_micro,
            "effective_from_us": book.effective_from_us,
            "standard_token_price_pico_per_million": book.standard_token_price_pico_per_million,
            "meters": list(book.meters),
            "time_bands": [_band_body(book.time_bands[name]) for name in sorted(book.time_bands)],
            "rows": [_row_body(row) for row in book.rows],
            "adjustments": [_adjustment_body(adjustment) for adjustment in book.adjustments],
            "stacking": None if book.stacking == STACKING[0] else book.stacking,
            "periods": [rule_body(book.periods[name]) for name in sorted(book.periods)] or None,
            "dimensions": [[name, attribute] for name, attribute in book.dimensions.items()] or None,
        }
    )


def _book(body: Mapping[str, Any]) -> PriceBook:
    dimensions: dict[str, str] = dict(body.get("dimensions", ()))
    return PriceBook(
        name=body["name"],
        version=body["version"],
        currency=body["currency"],
        tax_rate_micro=body["tax_rate_micro"],
        effective_from_us=body["effective_from_us"],
        standard_token_price_pico_per_million=body.get("standard_token_price_pico_per_million"),
        time_bands={band["name"]: _band(band) for band in body["time_bands"]},
        rows=tuple(_row(index, row) for index, row in enumerate(body["rows"])),
        adjustments=tuple(_adjustment(adjustment, dimensions) for adjustment in body["adjustments"]),
        meters=tuple(body["meters"]),
        stacking=body.get("stacking", STACKING[0]),
        periods={rule["name"]: rule_of(rule) for rule in body.get("periods", ())},
        dimensions=dimensions,
    )


def _adjustment_body(adjustment: Adjustment) -> EntryBody:
    body: EntryBody = {
        "scope": _scope_body(adjustment.scope),
        "multiply_pico": adjustment.multiply_pico,
        "reason": adjustment.reason,
    }
    if adjustment.time_bands:
        body["time_bands"] = list(adjustment.time_bands)
    if adjustment.context is not None:
        body["context"] = _context_body(adjustment.context)
    if adjustment.output_context is not None:
        body["output_context"] = _context_body(adjustment.output_context)
    if adjustment.meters:
        body["meters"] = list(adjustment.meters)
    return body


def _adjustment(body: Mapping[str, Any], declared: Iterable[str]) -> Adjustment:
    return Adjustment(
        scope=_scope(body["scope"], declared),
        multiply_pico=body["multiply_pico"],
        reason=body["reason"],
        time_bands=tuple(body.get("time_bands", ())),
        context=_context(body.get("context")),
        meters=tuple(body.get("meters", ())),
        output_context=_context(body.get("output_context")),
    )


def _context_body(context: tuple[int, int | None]) -> list[int]:
    return [end for end in context if end is not None]


def _context(ends: list[int] | None) -> tuple[int, int | None] | None:
    return None if ends is None else (ends[0], ends[1] if len(ends) > 1 else None)


def _band_body(band: TimeBand) -> EntryBody:
    return _without_none(
        {
            "name": band.name,
            "timezone": band.timezone,
            "days": list(band.days),
            "hours": [list(hours) for hours in band.hours],
            "except": band.excepts,
        }
    )


def _band(body: Mapping[str, Any]) -> TimeBand:
    hours = tuple((start, end) for start, end in body["hours"])
    return TimeBand(body["name"], body["timezone"], tuple(body["days"]), hours, body.get("except"))


def _row_body(row: PriceRow) -> EntryBody:
    patterns = list(row.patterns[: len(TEXT_DIMENSIONS)])
    body: EntryBody = {"patterns": patterns, "outcome": list(row.outcome), "price_pico": dict(row.price_pico)}
    if row.declared:
        body["declared"] = list(row.declared)
    if row.time_band is not None:
        body["time_band"] = row.time_band
    if row.context is not None:
        body["context"] = _context_body(row.context)
    if row.output_context is not None:
        body["output_context"] = _context_body(row.output_context)
    if row.increments:
        body["increments"] = {meter: list(increment) for meter, increment in row.increments.items()}
    if row.coefficient_micro:
        body["coefficient_micro"] = dict(row.coefficient_micro)
    if row.units:
        body["units"] = {unit: dict(values) for unit, values in row.units.items()}
    if row.minimum_charge_pico:
        body["minimum_charge_pico"] = row.minimum_charge_pico
    if row.periods:
        body["periods"] = list(row.periods)
    if row.unmetered:
        body["unmetered"] = True
    return body


def _row(index: int, body: Mapping[str, Any]) -> PriceRow:
    return PriceRow(
        index=index,
        **dict(zip(TEXT_DIMENSIONS, body["patterns"], strict=True)),
        outcome=tuple(body["outcome"]),
        time_band=body.get("time_band"),
        context=_context(body.get("context")),
        price_pico=dict(body["price_pico"]),
        coefficient_micro=dict(body.get("coefficient_micro", {})),
        units={unit: dict(values) for unit, values in body.get("units", {}).items()},
        minimum_charge_pico=body.get("minimum_charge_pico", 0),
        periods=tuple(body.get("periods", ())),
        unmetered=body.get("unmetered", False),
        output_context=_context(body.get("output_context")),
        declared=tuple(body.get("declared", ())),
        increments={meter: (minimum, step) for meter, (minimum, step) in body.get("increments", {}).items()},
    )


def _plan_body_version(plan: Plan) -> int:
    if (
        plan.proration != Proration()
        or plan.cycle.length
        or plan.cycle.kind == "day"
        or plan.caps_other_units
        or any(bucket.every for bucket in plan.buckets)
        or any(window.kind == "from_first_use" or window.every == "day" for window in plan.windows)
        or any(window.alerts_micro for window in plan.windows)
        or any(bucket.carry_max_micro is not None or bucket.carry_min_micro for bucket in plan.buckets)
        or plan.cancellation != NO_REFUND
        or plan.overage.mode == "owe"
    ):
        return _FIFTH_VERSION
    if plan.withdrawn_from_us is not None:
        return _FOURTH_VERSION
    newer = (
        plan.windows
        or plan.members is not None
        or any(bucket.unit != STD_TOKEN for bucket in plan.buckets)
        or plan.overage.mode == "auto_pack"
        or plan.overage.cap_pico
        or plan.overage.consent_required
    )
    return _THIRD_VERSION if newer else _FIRST_VERSION


def _overage_body(overage: Overage) -> EntryBody:
    body: EntryBody = {
        "mode": overage.mode,
        "block_micro": overage.block_micro,
        "price_pico": overage.price_pico,
        "max_packs": overage.max_packs,
    }
    if overage.cap_pico:
        body["cap_pico"] = overage.cap_pico
    if overage.consent_required:
        body["consent"] = "required"
    if overage.max_owed_micro:
        body["max_owed_micro"] = overage.max_owed_micro
    return body


def _overage(body: Mapping[str, Any]) -> Overage:
    return Overage(
        mode=body["mode"],
        block_micro=body["block_micro"],
        price_pico=body["price_pico"],
        max_packs=body["max_packs"],
        cap_pico=body.get("cap_pico", 0),
        consent_required=body.get("consent") == "required",
        max_owed_micro=body.get("max_owed_micro", 0),
    )


def _plan_extras(plan: Plan) -> EntryBody:
    """Return the keys of a plan's body that are written only if they differ from their defaults."""
    body: EntryBody = {}
    if plan.activation != "purchase":
        body |= {"activation": plan.activation, "activate_within_days": plan.activate_within_days}
    if plan.expiry_alert_days:
        body["expiry_alert_days"] = list(plan.expiry_alert_days)
    if plan.withdrawn_from_us is not None:
        body["withdrawn_from_us"] = plan.withdrawn_from_us
    if plan.proration != Proration():
        body["proration"] = {"fee": int(plan.proration.fee), "quota": int(plan.proration.quota)}
    if plan.cancellation != NO_REFUND:
        body["cancellation"] = plan.cancellation
    return body


def _carry_body(bucket: PlanBucket) -> EntryBody:
    """Return the limits of a carry-over, without those that are not set."""
    body: EntryBody = {} if bucket.carry_max_micro is None else {"carry_max_micro": bucket.carry_max_micro}
    return body | ({"carry_min_micro": bucket.carry_min_micro} if bucket.carry_min_micro else {})


def _window_body(window: Window) -> EntryBody:
    body: EntryBody = {
        "kind": window.kind,
        "hours": window.hours,
        "every": window.every,
        "cap_micro": window.cap_micro,
    }
    if window.unit != STD_TOKEN:
        body["unit"] = window.unit
    if window.alerts_micro:
        body["alerts_micro"] = list(window.alerts_micro)
    return body


def _window(body: Mapping[str, Any]) -> Window:
    return Window(**{**body, "alerts_micro": tuple(body.get("alerts_micro", ()))})


def _cycle_body(cycle: Cycle) -> EntryBody:
    body: EntryBody = {"kind": cycle.kind, "timezone": cycle.timezone, "days": cycle.days}
    return body | ({"length": cycle.length} if cycle.length else {})


def _members_body(members: Members) -> EntryBody:
    body: EntryBody = {"seats": members.seats, "cap_micro": members.cap_micro}
    return body | ({"unit": members.unit} if members.unit != STD_TOKEN else {})


def _plan_body(plan: Plan) -> EntryBody:
    body = _head("plan", plan.name, plan.version, _plan_body_version(plan)) | {
        "title": dict(plan.title),
        "price_pico": plan.price_pico,
        "currency": plan.currency,
        "tax_rate_micro": plan.tax_rate_micro,
        "cycle": _cycle_body(plan.cycle),
        "buckets": [
            {
                "unit": bucket.unit,
                "amount_micro": bucket.amount_micro,
                "kind": bucket.kind,
                "priority": bucket.priority,
                "carry_over_cycles": bucket.carry_over_cycles,
                "scope": _scope_body(bucket.scope),
                "fee_share_micro": bucket.fee_share_micro,
                **({"every": bucket.every} if bucket.every else {}),
                **_carry_body(bucket),
            }
            for bucket in plan.buckets
        ],
        "windows": [_window_body(window) for window in plan.windows],
        "overage": _overage_body(plan.overage),
        "grace_hours": plan.grace_hours,
        "breakage": plan.breakage,
        "alerts_micro": list(plan.alerts_micro),
    }
    if plan.members is not None:
        body["members"] = _members_body(plan.members)
    return body | _plan_extras(plan)


def _plan(body: Mapping[str, Any]) -> Plan:
    buckets = ({**bucket, "scope": _scope(bucket["scope"])} for bucket in body["buckets"])
    return Plan(
        name=body["name"],
        version=body["version"],
        title=dict(body["title"]),
        price_pico=body["price_pico"],
        currency=body["currency"],
        tax_rate_micro=body["tax_rate_micro"],
        cycle=Cycle(**body["cycle"]),
        buckets=tuple(PlanBucket(**bucket) for bucket in buckets),
        windows=tuple(map(_window, body["windows"])),
        overage=_overage(body["overage"]),
        grace_hours=body["grace_hours"],
        breakage=body["breakage"],
        alerts_micro=tuple(body["alerts_micro"]),
        members=Members(**body["members"]) if "members" in body else None,
        activation=body.get("activation", "purchase"),
        activate_within_days=body.get("activate_within_days", 0),
        expiry_alert_days=tuple(body.get("expiry_alert_days", ())),
        withdrawn_from_us=body.get("withdrawn_from_us"),
        proration=Proration(**{key: bool(value) for key, value in body.get("proration", {}).items()}),
        cancellation=body.get("cancellation", NO_REFUND),
    )
