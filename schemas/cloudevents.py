"""The CloudEvents 1.0 envelope on Kafka: strict reading and deterministic writing, independent of the event type.

The mode follows the Kafka binding. A record is structured (the value is the whole event as JSON) if its
``content-type`` begins with ``application/cloudevents``, or if it has neither ``content-type`` nor ``ce_*`` headers, as
a plain producer writes it. All other records are binary: attributes are ``ce_*`` headers, the value is ``data`` as
JSON.

Checks run in this order, and the first that fails decides: JSON of a structured value; the attributes specversion,
type, source, id, time, subject, sequence; an accepted type; JSON of a binary value; ``data`` is an object.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PlainValidator, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from schemas.fields import JsonReal, Name, SequenceNumber, TimeUs, WireText, explain, show
from schemas.record_sizes import LARGEST_INPUT
from schemas.refusals import Refusal, record_refusal
from schemas.times import format_time_us
from schemas.topics import RECORD_SIZE_HEADER
from schemas.upcast import current_type, upcast

STRUCTURED_CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
MAX_DEPTH = 64
"""Deepest nesting of objects and lists that is accepted; a fixed limit, so that every reader decides the same."""
_MAX_INTEGER_CHARACTERS = 40
_HUGE = 1 << 128  # replaces every longer integer: it exceeds all limits and is cheap to make

Headers = Sequence[tuple[str, bytes]]


def _check_specversion(value: object) -> str:
    if value != "1.0" or not isinstance(value, str):
        raise PydanticCustomError("expected", 'expected "1.0"')
    return value


class Attributes(WireText):
    """The context attributes that are read; extension attributes are ignored."""

    specversion: Annotated[str, PlainValidator(_check_specversion), WithJsonSchema({"const": "1.0"})] = Field(
        description='the CloudEvents version "1.0"'
    )
    type: Name = Field(description="the event type with its version, such as token.usage.v1")
    source: Name = Field(description="the producer of the event; source and id identify the event")
    id: Name = Field(description="the id of the event, unique within its source")
    time: TimeUs = Field(description="the time of the event, RFC 3339 with offset")
    subject: Name = Field(description="the account")
    sequence: SequenceNumber | None = Field(
        default=None, description="number of the event, decimal digits; counts from 1 within its source without gaps"
    )


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event after upcasting: its attributes and its ``data`` object. ``time_us`` is in microseconds UTC."""

    type: str
    source: str
    id: str
    time_us: int
    subject: str
    sequence: int | None
    data: dict[str, Any]

    def refuse(self, code: str, detail: str) -> Refusal:
        """Return a refusal of this event, with its identity."""
        return record_refusal(code, detail, self.source, self.id, self.sequence, self.subject)


class JsonProblem(ValueError):
    """A JSON text cannot be accepted; the message is for a person."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JsonProblem(f"duplicate key {show(key)} in an object")
            seen.add(key)
    return result


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_CHARACTERS:
        return -_HUGE if text.startswith("-") else _HUGE
    return int(text)


def _constant(text: str) -> Any:
    raise JsonProblem(f"{text} is not a JSON number")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=JsonReal, parse_constant=_constant
)


def _depth_exceeds(value: object, limit: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    if children is None:
        return False
    return limit == 0 or any(_depth_exceeds(child, limit - 1) for child in children)


def read_object(value: bytes | None, what: str) -> dict[str, Any]:
    """Read a JSON object strictly: UTF-8, no duplicate keys, no NaN or Infinity, at most ``MAX_DEPTH`` levels.

    Raises:
        JsonProblem: the value violates one of these; ``what`` names the expected object in the message.
    """
    if value is None:
        raise JsonProblem(f"the record has no value: expected {what} as a JSON object")
    try:
        text = value.decode()
        document = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise JsonProblem(f"byte {error.start} of the value is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise JsonProblem(f"not JSON: {error.msg} (line {error.lineno} column {error.colno})") from None
    except RecursionError:
        raise JsonProblem(f"nested deeper than {MAX_DEPTH}") from None
    if not isinstance(document, dict):
        raise JsonProblem(f"the value is {show(document)}: expected {what} as a JSON object")
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth_exceeds(document, MAX_DEPTH):
        raise JsonProblem(f"nested deeper than {MAX_DEPTH}")
    return document


def _header_attributes(headers: Headers) -> dict[str, str] | Refusal:
    """Return the ``ce_*`` headers as attributes without their prefix; names are compared in lower case."""
    attributes: dict[str, str] = {}
    for key, content in headers:
        name = key.lower()
        if not name.startswith("ce_") or content is None:
            continue
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return record_refusal("invalid_event", f"header {show(key)} is not UTF-8 text")
        if attributes.setdefault(name[3:], text) != text:
            return record_refusal("invalid_event", f"header {show(key)} is given twice with different values")
    return attributes


def _is_structured(headers: Headers) -> bool:
    content_type: bytes | None = None
    has_attributes = False
    for key, content in headers:
        name = key.lower()
        if name == "content-type" and content_type is None:
            content_type = content
        has_attributes = has_attributes or name.startswith("ce_")
    if content_type is None:
        return not has_attributes
    return content_type.strip().lower().startswith(b"application/cloudevents")


def _withheld_size(headers: Headers) -> int | None:
    """Return the size of the record that this one stands for, or None if it stands for none."""
    for name, content in headers:
        if name == RECORD_SIZE_HEADER and content is not None and content.isdigit() and len(content) < 20:
            return int(content)
    return None


def read_envelope(
    value: bytes | None, headers: Headers = (), *, types: Collection[str] | None = None
) -> Envelope | Refusal:
    """Read a record of either mode and upcast it to the current version of its type.

    Args:
        value: the record's value; None (a tombstone) is ``invalid_json``, or ``invalid_event`` where the record stands
            for one that is too large to be read (:data:`schemas.topics.RECORD_SIZE_HEADER`).
        headers: the record's headers; a header without value is as if absent.
        types: the accepted types, after upcasting; None accepts any.

    Returns:
        The envelope, or a refusal (``invalid_json``, ``invalid_event``) with the identity fields that could be read.
    """
    if value is None and (size := _withheld_size(headers)) is not None:
        detail = f"the record has {size} bytes, at most {LARGEST_INPUT} are read; its bytes are only in the log"
        return record_refusal("invalid_event", detail)
    structured = _is_structured(headers)
    raw: dict[str, Any]
    if structured:
        try:
            raw = read_object(value, "a CloudEvent")
        except JsonProblem as problem:
            return record_refusal("invalid_json", str(problem))
    else:
        found = _header_attributes(headers)
        if isinstance(found, Refusal):
            return found
        raw = dict(found)
    prefix = "" if structured else "ce_"
    given = {name: raw[name] for name in Attributes.model_fields if raw.get(name) is not None}
    try:
        attributes = Attributes.model_validate(given)
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False)}
        right = {name: text for name, text in given.items() if name not in wrong}
        sequence = int(right["sequence"]) if "sequence" in right else None
        detail = explain(error, Attributes, prefix)
        source, id, account = (right.get(name) for name in ("source", "id", "subject"))
        return record_refusal("invalid_event", detail, source, id, sequence, account)

    def reject(reason: str, detail: str) -> Refusal:
        return record_refusal(reason, detail, attributes.source, attributes.id, attributes.sequence, attributes.subject)

    event_type = current_type(attributes.type)
    if types is not None and event_type not in types:
        expected = " or ".join(sorted(types))
        return reject("invalid_event", f"{prefix}type is {show(attributes.type)}: expected {expected}")
    if structured:
        data = raw.get("data")
    else:
        try:
            data = read_object(value, "the event's data")
        except JsonProblem as problem:
            return reject("invalid_json", str(problem))
    if not isinstance(data, dict):
        what = "missing" if data is None else show(data)
        return reject("invalid_event", f"data is {what}: expected a JSON object")
    event_type, data = upcast(attributes.type, data)
    return Envelope(
        event_type, attributes.source, attributes.id, attributes.time, attributes.subject, attributes.sequence, data
    )


def _compact(body: object) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def write_structured(
    type: str,
    source: str,
    id: str,
    time_us: int,
    subject: str,
    data: dict[str, Any],
    sequence: int | None = None,
    **extensions: str,
) -> bytes:
    """Write an event as compact JSON; the same arguments give the same bytes.

    Key order: specversion, type, source, id, time, subject, sequence (if given), extensions by name, data.
    ``datacontenttype`` is omitted, because JSON is the default of the format.
    """
    event: dict[str, Any] = {
        "specversion": "1.0",
        "type": type,
        "source": source,
        "id": id,
        "time": format_time_us(time_us),
        "subject": subject,
    }
    if sequence is not None:
        event["sequence"] = str(sequence)
    event.update(sorted(extensions.items()))
    event["data"] = data
    return _compact(event)


def write_binary(
    type: str,
    source: str,
    id: str,
    time_us: int,
    subject: str,
    data: dict[str, Any],
    sequence: int | None = None,
    **extensions: str,
) -> tuple[bytes, list[tuple[str, bytes]]]:
    """Write an event in binary mode: the value (``data`` as compact JSON) and the headers, in a fixed order."""
    attributes = {
        "specversion": "1.0",
        "type": type,
        "source": source,
        "id": id,
        "time": format_time_us(time_us),
        "subject": subject,
    }
    if sequence is not None:
        attributes["sequence"] = str(sequence)
    attributes.update(sorted(extensions.items()))
    headers = [("content-type", b"application/json")]
    headers += [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    return _compact(data), headers
