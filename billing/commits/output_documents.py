"""JSON documents of rated events and accounts: the one place that defines the field names of the outputs.

Owns: the rated line (the line of ``tokenbill rate``, docs/reference/command-line.md, plus the payment), the account
object of ``simulate`` and ``package.balance``, and the CloudEvents envelope of outputs. The compiled core writes the
same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.account_event import AccountEvent
from billing.accounts.extras import Extras
from billing.accounts.movements import Movement
from billing.burning.deduct import Burned, Deduction
from billing.burning.window_status import WindowStatus
from billing.catalog.model import STD_TOKEN
from billing.commits.commit_record import NO_DIGEST
from billing.commits.outbox_frames import SEQUENCE_MARK, FrameHeaders
from billing.pricing.rate import Rated, rated_as_json
from schemas.json_text import dump_json
from schemas.times import format_time_us
from schemas.units import format_micro, format_pico
from schemas.usage import DIMENSIONS, UsageEvent

RATED_PER_RECORD = 1_000
"""Maximum number of rated lines in one ``usage.rated`` record (docs/reference/topics.md)."""


EVENT_CONTENT_TYPE = b"application/cloudevents+json"
"""Header by which CloudEvents libraries recognise an event in structured mode."""
NOTHING_RESERVED: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Stamp:
    """The commit that writes an output: part of the identity of each output event.

    ``previous_digest`` is the digest of the commit before, and ``history`` that of the partition's state.
    """

    partition: int
    commit_no: int
    log_time_us: int
    previous_digest: bytes = NO_DIGEST
    history: int = 0


def described_combination(values: Sequence[str]) -> dict[str, Any]:
    """Return what a rated line says of the event's combination: the model, the dimensions that differ from their
    default, and the attributes that a book declares. ``values`` are in the order of :data:`schemas.usage.DIMENSIONS`,
    followed by names and values of attributes."""
    fixed, pairs = values[: len(DIMENSIONS)], values[len(DIMENSIONS) :]
    said: dict[str, Any] = {
        name: value for (name, default), value in zip(DIMENSIONS, fixed, strict=True) if value != default
    }
    return said | ({"attributes": dict(zip(pairs[::2], pairs[1::2], strict=True))} if pairs else {})


def paid_line(event: UsageEvent, rated: Rated, offset: int, burned: Burned) -> dict[str, Any]:
    """Return the ``usage.rated`` line of one priced and paid event."""
    tags = {"request_id": event.request_id, "member": event.member}
    return rated_as_json(event, rated) | {
        "offset": offset,
        "time": format_time_us(event.time_us),
        **described_combination(
            [*(getattr(event, name) for name, _ in DIMENSIONS), *(text for pair in event.attributes for text in pair)]
        ),
        **{name: text for name, text in tags.items() if text is not None},
        "burned": [_burned_object(deduction) for deduction in burned.deductions],
        "charged": format_pico(burned.charged_pico),
        "absorbed": format_micro(burned.absorbed_micro),
        **_absorbed_unit(burned),
        **({"owed": format_micro(burned.owed_micro)} if burned.owed_micro else {}),
    }


def _absorbed_unit(burned: Burned) -> dict[str, Any]:
    if not burned.absorbed_unit:
        return {}
    return {"absorbed_unit": {"unit": burned.absorbed_unit, "amount": format_micro(burned.absorbed_unit_micro)}}


def _burned_object(deduction: Deduction) -> dict[str, str]:
    """Return the quota burned from one bucket: ``standard_tokens``, or ``amount`` and ``unit`` for another unit."""
    if deduction.unit == STD_TOKEN:
        return {"grant_id": deduction.grant_id, "standard_tokens": format_micro(deduction.taken_micro)}
    return {
        "grant_id": deduction.grant_id,
        "standard_tokens": "0",
        "amount": format_micro(deduction.taken_micro),
        "unit": deduction.unit,
    }


def bucket_object(bucket: Bucket, reserved_micro: int | None = 0) -> dict[str, str | None]:
    """Return one bucket of the account object.

    Holds are not part of a commit, so only callers that read holds (``report balance``, the HTTP API) pass
    ``reserved_micro``. With None, as in ``package.balance``, the bucket does not say what is reserved.
    """
    reserved = {} if reserved_micro is None else {"reserved": format_micro(reserved_micro)}
    return {
        "grant_id": bucket.grant_id,
        "plan": bucket.plan,
        "unit": bucket.unit,
        "amount": format_micro(bucket.amount_micro),
        "remaining": format_micro(bucket.remaining_micro),
        **reserved,
        "valid_from": format_time_us(bucket.valid_from_us),
        "valid_until": None if bucket.valid_until_us >= NO_END_US else format_time_us(bucket.valid_until_us),
        "status": bucket.status,
    }


def account_object(account: Account, reserved_micro: Mapping[str, int] | None = NOTHING_RESERVED) -> dict[str, Any]:
    """Return the account object of ``simulate``. Buckets are sorted by id.

    ``reserved_micro`` is by bucket id; with None, no bucket says what is reserved.
    """
    return {
        "currency": account.currency,
        "wallet": format_pico(account.wallet_pico),
        "absorbed": format_micro(account.absorbed_micro),
        "absorbed_amount": format_pico(account.absorbed_pico),
        "buckets": [
            bucket_object(bucket, None if reserved_micro is None else reserved_micro.get(bucket.grant_id, 0))
            for bucket in sorted(account.buckets, key=lambda b: b.grant_id)
        ],
    }


def extras_object(extras: Extras) -> dict[str, Any]:
    """Return what a balance says of extras: gift money, subscriptions, open bills, debts."""
    return {
        "gift": format_pico(extras.gift_pico),
        "subscriptions": [
            {
                "subscription_id": one.subscription_id,
                "plan": one.plan,
                "plan_version": one.plan_version,
                "pay_from": one.pay_from,
                "status": one.status,
                "cycle": one.cycle,
                "granted": one.granted,
                "last_cycle": one.last_cycle or None,
                "next_plan": one.next_plan or None,
                "next_plan_version": one.next_plan_version or None,
            }
            for one in extras.subscriptions
        ],
        "open_bills": [
            {
                "bill_id": bill.bill_id,
                "amount": format_pico(bill.amount_pico),
                "paid": format_pico(bill.paid_pico),
                "begin": format_time_us(bill.from_us),
                "end": format_time_us(bill.until_us),
                "due": format_time_us(bill.due_us),
            }
            for bill in extras.bills
            if bill.open_pico
        ],
        **(
            {"absorbed_units": {unit: format_micro(micro) for unit, micro in sorted(extras.absorbed_units.items())}}
            if extras.absorbed_units
            else {}
        ),
        **debts_object(extras),
    }


def debts_object(extras: Extras) -> dict[str, Any]:
    """Return what an account object says of debts: standard tokens owed, by plan; nothing if none are owed."""
    return (
        {"owed": {plan: format_micro(micro) for plan, micro in extras.owed_micro.items()}} if extras.owed_micro else {}
    )


def balance_object(account: Account, reserved_micro: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return the data of a ``package.balance`` event: the account object, and what else an account has.

    Holds are not part of a commit; only the HTTP API, which reads them, passes ``reserved_micro``.
    """
    return {
        "account": account.account,
        **account_object(account, reserved_micro),
        "status": account.status,
        "price_book": account.price_book,
        "payment": account.payment,
        "credit_limit": format_pico(account.credit_limit_pico),
        **extras_object(account.extras),
    }


def window_object(status: WindowStatus) -> dict[str, Any]:
    """Return one window of a plan as the HTTP API shows it beside the balance."""
    window = status.window
    return {
        "plan": status.plan.name,
        "plan_version": status.plan.version,
        "kind": window.kind,
        **({"every": window.every} if window.kind == "fixed" else {"hours": window.hours}),
        "unit": window.unit,
        "cap": format_micro(window.cap_micro),
        "used": format_micro(status.used_micro),
        "left": format_micro(status.left_micro),
        "begins": None if status.begins_us is None else format_time_us(status.begins_us),
        "ends": None if status.ends_us is None else format_time_us(status.ends_us),
    }


_FORMAT_OF_SUFFIX = {"_micro": format_micro, "_pico": format_pico, "_us": format_time_us}


def account_event_data(event: AccountEvent) -> dict[str, Any]:
    """Return the data of an ``account.events`` record.

    Scaled integers become strings, and their names lose the unit suffix.
    """
    data = _on_the_wire(event.data)
    return data | {"movements": movement_objects(event.movements)} if event.movements else data


def movement_objects(movements: Iterable[Movement]) -> list[dict[str, Any]]:
    """Return movements as they are published."""
    return [_on_the_wire(movement) for movement in movements]


def _on_the_wire(fields: Mapping[str, str | int | None]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for name, value in fields.items():
        for suffix, write in _FORMAT_OF_SUFFIX.items():
            if name.endswith(suffix) and not isinstance(value, str):
                data[name.removesuffix(suffix)] = None if value is None else write(value)
                break
        else:
            data[name] = value
    return data


def output_event(type_name: str, stamp: Stamp, number: int, subject: str, data: bytes) -> bytes:
    """Return the CloudEvent of one output; its ``sequence`` is filled in when the output of the commit is packed.

    ``number`` is the index of the output among those of its topic in its commit, from 0. (source, id) is unique because
    a commit of a partition is written once in a history.
    """
    short_name = type_name.rsplit(".", 1)[0]
    history = f"h{stamp.history}-" if stamp.history else ""
    return b"".join(
        (
            b'{"specversion":"1.0","type":',
            dump_json(type_name),
            b',"source":"urn:tokenbill:partition:%d","id":"' % stamp.partition,
            f"{short_name}-{history}{stamp.commit_no}-{number}".encode(),
            b'","time":"',
            format_time_us(stamp.log_time_us).encode(),
            b'","subject":',
            dump_json(subject),
            b',"partition":"%d","commit":"%d","sequence":"' % (stamp.partition, stamp.commit_no),
            SEQUENCE_MARK,
            b'","previousdigest":"%b"' % stamp.previous_digest.hex().encode(),
            b',"history":"%d"' % stamp.history if stamp.history else b"",
            b',"datacontenttype":"application/json","data":',
            data,
            b"}",
        )
    )


def output_headers(type_name: str) -> FrameHeaders:
    """Return the headers of the record of an output event: CloudEvents in structured mode."""
    return ("content-type", EVENT_CONTENT_TYPE), ("ce_type", type_name.encode())


def rated_data(lines: Sequence[bytes]) -> bytes:
    """Return the data of one ``usage.rated`` record, built from serialized lines."""
    return b'{"events":[' + b",".join(lines) + b"]}"


def trial_balance_object(balances_pico: Mapping[tuple[str, str], int]) -> dict[str, str]:
    """Return the amount of each control account. With several currencies, ``:CURRENCY`` is appended to the names."""
    currencies = {currency for _, currency in balances_pico}
    return {
        (code if len(currencies) <= 1 else f"{code}:{currency}"): format_pico(amount_pico)
        for (code, currency), amount_pico in sorted(balances_pico.items())
    }
