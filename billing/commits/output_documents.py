"""JSON documents of rated events and accounts: the one place that defines the field names of the outputs.

Owns: the rated line (the line of ``tokenbill rate``, docs/reference/command-line.md, plus the payment), the account
object of ``simulate`` and ``package.balance``, and the CloudEvents envelope of outputs. The compiled core writes the
same bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.account_event import AccountEvent
from billing.burning.deduct import Burned, Deduction
from billing.catalog.model import STD_TOKEN
from billing.commits.commit_record import NO_DIGEST
from billing.commits.outbox_frames import SEQUENCE_MARK
from billing.pricing.rate import Rated, rated_as_json
from schemas.json_text import dump_json
from schemas.times import format_time_us
from schemas.units import format_micro, format_pico
from schemas.usage import UsageEvent

RATED_PER_RECORD = 1_000
"""Maximum number of rated lines in one ``usage.rated`` record (docs/reference/topics.md)."""


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


def paid_line(event: UsageEvent, rated: Rated, offset: int, burned: Burned) -> dict[str, Any]:
    """Return the ``usage.rated`` line of one priced and paid event."""
    return rated_as_json(event, rated) | {
        "offset": offset,
        "burned": [_burned_object(deduction) for deduction in burned.deductions],
        "charged": format_pico(burned.charged_pico),
        "absorbed": format_micro(burned.absorbed_micro),
    }


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


def bucket_object(bucket: Bucket, reserved_micro: int = 0) -> dict[str, str | None]:
    """Return one bucket of the account object.

    Holds are not part of a commit, so only callers that read holds (``report balance``, the HTTP API) pass
    ``reserved_micro``.
    """
    return {
        "grant_id": bucket.grant_id,
        "plan": bucket.plan,
        "unit": bucket.unit,
        "amount": format_micro(bucket.amount_micro),
        "remaining": format_micro(bucket.remaining_micro),
        "reserved": format_micro(reserved_micro),
        "valid_from": format_time_us(bucket.valid_from_us),
        "valid_until": None if bucket.valid_until_us >= NO_END_US else format_time_us(bucket.valid_until_us),
        "status": bucket.status,
    }


def account_object(account: Account, reserved_micro: Mapping[str, int] = NOTHING_RESERVED) -> dict[str, Any]:
    """Return the account object of ``simulate``. Buckets are sorted by id; ``reserved_micro`` is by bucket id."""
    return {
        "currency": account.currency,
        "wallet": format_pico(account.wallet_pico),
        "absorbed": format_micro(account.absorbed_micro),
        "absorbed_amount": format_pico(account.absorbed_pico),
        "buckets": [
            bucket_object(bucket, reserved_micro.get(bucket.grant_id, 0))
            for bucket in sorted(account.buckets, key=lambda b: b.grant_id)
        ],
    }


def balance_object(account: Account, reserved_micro: Mapping[str, int] = NOTHING_RESERVED) -> dict[str, Any]:
    """Return the data of a ``package.balance`` event."""
    return {"account": account.account} | account_object(account, reserved_micro)


_FORMAT_OF_SUFFIX = {"_micro": format_micro, "_pico": format_pico, "_us": format_time_us}


def account_event_data(event: AccountEvent) -> dict[str, Any]:
    """Return the data of an ``account.events`` record.

    Scaled integers become strings, and their names lose the unit suffix.
    """
    data: dict[str, Any] = {}
    for name, value in event.data.items():
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
            b',"sequence":"',
            SEQUENCE_MARK,
            b'","previousdigest":"%b"' % stamp.previous_digest.hex().encode(),
            b',"history":"%d"' % stamp.history if stamp.history else b"",
            b',"datacontenttype":"application/json","data":',
            data,
            b"}",
        )
    )


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
