"""CloudEvents of HTTP requests, as the HTTP binding defines them: structured, batch or binary. Does not validate."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from fastapi import Request

from schemas.fields import show
from tokenbill.api.http.bodies import JSON, expect_media_type
from tokenbill.api.http.problems import Problem

STRUCTURED = "application/cloudevents+json"
BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"
MAX_EVENTS = 1_000
MAX_EVENT_BYTES = 512 << 10
"""Upper limit of an event, below what Kafka takes as one record with its headers."""
_BLANK = " \t\r\n"
_STRUCTURED_HEADERS = (("content-type", STRUCTURED.encode()),)


@dataclass(frozen=True, slots=True)
class RawEvent:
    """One event as received: the bytes and headers that are sent to Kafka unchanged."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]


async def read_events(request: Request) -> tuple[bool, list[RawEvent]]:
    """Return True if the request is a batch, and its events.

    Raises:
        Problem: ``unsupported_media_type``, ``invalid_json``, ``too_large``, ``too_many_events``.
    """
    kind = expect_media_type(request, STRUCTURED, BATCH_MEDIA_TYPE, JSON)
    body = await request.body()
    if kind == STRUCTURED:
        return False, [_sized(0, RawEvent(body, _STRUCTURED_HEADERS))]
    if kind == BATCH_MEDIA_TYPE:
        return True, _elements(body)
    return False, [_sized(0, RawEvent(body, (("content-type", JSON.encode()), *_attributes(request.headers.raw))))]


def _attributes(headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[str, bytes]]:
    """Yield the ``ce-*`` headers as the Kafka binding spells them, with percent-encoded text decoded to UTF-8."""
    for name, value in headers:
        if name.startswith(b"ce-"):
            yield "ce_" + name[3:].decode("latin-1"), unquote(value.decode("latin-1"), errors="replace").encode()


def _elements(body: bytes) -> list[RawEvent]:
    """Return the elements of a JSON array, each with its original bytes."""
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise Problem("invalid_json", f"Byte {error.start} of the batch is not UTF-8.") from None
    decoder = json.JSONDecoder()
    at = _after_blanks(text, 0)
    if text[at : at + 1] != "[":
        raise Problem("invalid_json", f"The batch is {show(text[at : at + 40])}: expected a JSON array of CloudEvents.")
    at = _after_blanks(text, at + 1)
    found: list[RawEvent] = []
    while text[at : at + 1] != "]" or found:
        begin = at
        try:
            _, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise Problem("invalid_json", f"Element {len(found)} of the batch is not JSON: {error}.") from None
        found.append(_sized(len(found), RawEvent(text[begin:at].encode(), _STRUCTURED_HEADERS)))
        at = _after_blanks(text, at)
        if text[at : at + 1] == "]":
            break
        if text[at : at + 1] != ",":
            raise Problem("invalid_json", f"After element {len(found) - 1} of the batch: expected , or ].")
        at = _after_blanks(text, at + 1)
    if _after_blanks(text, at + 1) != len(text):
        raise Problem("invalid_json", "Something follows the batch.")
    if len(found) > MAX_EVENTS:
        raise Problem("too_many_events", f"The batch has {len(found)} events: send at most {MAX_EVENTS} at once.")
    return found


def _after_blanks(text: str, at: int) -> int:
    while at < len(text) and text[at] in _BLANK:
        at += 1
    return at


def _sized(at: int, event: RawEvent) -> RawEvent:
    if len(event.value) > MAX_EVENT_BYTES:
        raise Problem("too_large", f"Event {at} has {len(event.value)} bytes: at most {MAX_EVENT_BYTES} are taken.")
    return event
