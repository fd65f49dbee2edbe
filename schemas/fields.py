"""Field types of all input: their checks, their error messages, and their JSON Schema.

Each type is strict (no coercion), and its error states the expected form. :func:`explain` turns pydantic's first error
into one sentence with field, value and expectation.
"""

import json
import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.meters import MAX_COUNT
from schemas.times import parse_time_us
from schemas.units import PICO_DIGITS, InexactError, parse_scaled

MAX_TEXT_BYTES = 256
"""Longest identity or text field, in UTF-8 bytes."""
MAX_TIME_US = 253_402_300_800_000_000
"""End of the year 9999 UTC, in microseconds since 1970, excluded; times start at 0."""
_MAX_MONEY_PICO = 10**38 - 1  # the maximum of numeric(38,0)
_SHOWN = 80

SEQUENCE_PATTERN = "^[1-9][0-9]{0,18}$"
DIGEST_PATTERN = "^[0-9a-f]{64}$"
"""A SHA-256 digest, hexadecimal."""
TEXT_PATTERN = "^[^\\u0000-\\u001f]*$"
CURRENCY_PATTERN = "^[A-Z]{3}$"
DECIMAL_PATTERN = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?$"

_CONTROL = re.compile(r"[\x00-\x1f]")
_SEQUENCE = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class WireText(BaseModel):
    """A body read from the wire: immutable, and unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class JsonReal:
    """A JSON number with a fraction or exponent, kept as text for messages, because no field accepts one."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def show(value: object) -> str:
    """Format a received value for a message: JSON on one line, cut after 80 characters, always encodable."""
    if isinstance(value, JsonReal):
        text = value.text
    elif isinstance(value, dict):
        text = "an object"
    elif isinstance(value, list):
        text = "a list"
    else:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    if len(text) > _SHOWN:
        text = text[:_SHOWN] + "…"
    return text.encode("utf-8", "backslashreplace").decode()


def explain(error: ValidationError, model: type[BaseModel], prefix: str) -> str:
    """Describe pydantic's first error in one sentence: field, value, and expected form."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "count":
        return first["msg"]
    if first["type"] != "missing":
        return f"{prefix}{field} is {show(first['input'])}: {first['msg']}"
    for name, info in model.model_fields.items():
        if field in (name, info.alias) and info.description:
            return f"{prefix}{field} is missing: expected {info.description}"
    return f"{prefix}{field} is missing"


def _expected(what: str) -> PydanticCustomError:
    return PydanticCustomError("expected", "expected {what}", {"what": what})


def _check_text(value: object, minimum: int) -> str:
    if not isinstance(value, str) or len(value) < minimum:
        raise _expected_text(minimum)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise _expected("Unicode text (it holds half of a surrogate pair)") from None
    if size > MAX_TEXT_BYTES or _CONTROL.search(value):
        raise _expected_text(minimum)
    return value


def _expected_text(minimum: int) -> PydanticCustomError:
    return _expected(f"text of {minimum} to {MAX_TEXT_BYTES} UTF-8 bytes without control characters")


def check_name(value: object) -> str:
    """Return a valid identity or name: text that is not empty."""
    return _check_text(value, 1)


def check_text(value: object) -> str:
    """Return a valid text field, which may be empty."""
    return _check_text(value, 0)


def check_time_us(value: object) -> int:
    """Return an RFC 3339 time with offset as microseconds since 1970 UTC."""
    what = "an RFC 3339 time with offset between 1970 and 9999 such as 2026-11-22T01:15:03.412Z"
    if not isinstance(value, str):
        raise _expected(what)
    try:
        time_us = parse_time_us(value)
    except ValueError:
        raise _expected(what) from None
    if not 0 <= time_us < MAX_TIME_US:
        raise _expected(what)
    return time_us


def check_sequence(value: object) -> int:
    """Return a sequence number from a string of decimal digits, 1 to 2^63-1, without leading zeros."""
    if not isinstance(value, str) or _SEQUENCE.fullmatch(value) is None or int(value) > MAX_COUNT:
        raise _expected(f"a string of decimal digits from 1 to {MAX_COUNT} without leading zeros")
    return int(value)


def check_currency(value: object) -> str:
    """Return a valid currency code: three upper-case letters."""
    if not isinstance(value, str) or _CURRENCY.fullmatch(value) is None:
        raise _expected("a currency of three upper-case letters such as CNY")
    return value


def _check_scaled(value: object, minimum: int | None) -> int:
    what = "a decimal string with at most 12 places such as 9.90"
    if minimum is not None:
        what += ", greater than 0" if minimum else ", 0 or greater"
    if not isinstance(value, str) or len(value) > 64:
        raise _expected(what)
    try:
        amount_pico = parse_scaled(value, PICO_DIGITS)
    except InexactError:
        raise _expected(what) from None
    if minimum is not None and amount_pico < minimum:
        raise _expected(what)
    if abs(amount_pico) > _MAX_MONEY_PICO:
        raise _expected("an amount below 1e26")
    return amount_pico


def check_amount_pico(value: object) -> int:
    """Return an amount of either sign in pico."""
    return _check_scaled(value, None)


def check_positive_pico(value: object) -> int:
    """Return an amount greater than 0 in pico."""
    return _check_scaled(value, 1)


def check_credit_pico(value: object) -> int:
    """Return an amount of 0 or more in pico."""
    return _check_scaled(value, 0)


def check_flag(value: object) -> bool:
    """Return a JSON boolean."""
    if not isinstance(value, bool):
        raise _expected("true or false")
    return value


def check_version(value: object) -> int:
    """Return a valid version: an integer from 1 to 2^31-1."""
    if type(value) is not int or not 1 <= value < 2**31:
        raise _expected("a version, an integer from 1")
    return value


def one_of(*choices: str) -> Any:
    """Return the validator of a field that accepts one of these words."""

    def check(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise _expected("one of " + ", ".join(choices))
        return value

    return PlainValidator(check)


_TEXT_SCHEMA = {"maxLength": MAX_TEXT_BYTES, "pattern": TEXT_PATTERN}

Name = Annotated[str, PlainValidator(check_name), WithJsonSchema({"type": "string", "minLength": 1, **_TEXT_SCHEMA})]
"""Text that must not be empty: identities and names."""
Text = Annotated[str, PlainValidator(check_text), WithJsonSchema({"type": ["string", "null"], **_TEXT_SCHEMA})]
"""Text with a default: null is treated as absent."""
TimeUs = Annotated[int, PlainValidator(check_time_us), WithJsonSchema({"type": "string", "format": "date-time"})]
SequenceNumber = Annotated[
    int,
    PlainValidator(check_sequence),
    WithJsonSchema({"type": ["string", "null"], "pattern": SEQUENCE_PATTERN}),
]
Currency = Annotated[
    str, PlainValidator(check_currency), WithJsonSchema({"type": "string", "pattern": CURRENCY_PATTERN})
]
MONEY_SCHEMA = {"type": "string", "pattern": DECIMAL_PATTERN}
AmountPico = Annotated[int, PlainValidator(check_amount_pico), WithJsonSchema(MONEY_SCHEMA)]
PositivePico = Annotated[int, PlainValidator(check_positive_pico), WithJsonSchema(MONEY_SCHEMA)]
CreditPico = Annotated[
    int, PlainValidator(check_credit_pico), WithJsonSchema({**MONEY_SCHEMA, "type": ["string", "null"]})
]
Flag = Annotated[bool, PlainValidator(check_flag), WithJsonSchema({"type": ["boolean", "null"]})]
VersionNumber = Annotated[
    int,
    PlainValidator(check_version),
    WithJsonSchema({"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1}),
]
