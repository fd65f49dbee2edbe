"""Reads the body of a request as strictly as an event is read, and says in OpenAPI what it may be. Never guesses."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from schemas.cloudevents import JsonProblem, read_object
from schemas.fields import show
from schemas.json_text import dump_json
from tokenbill.api.http.problems import Problem

JSON = "application/json"

Schema = dict[str, Any]


def media_type(request: Request) -> str:
    """The content type of the body, without its parameters, in lower case."""
    return (header_of(request, b"content-type") or "").partition(";")[0].strip().lower()


def header_of(request: Request, name: bytes) -> str | None:
    """A header of the request, without making a mapping of all of them; ``name`` in lower case."""
    for given, value in request.scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


async def whole_body(request: Request) -> bytes:
    """The body. One that came in one piece, as most do, is taken as it is.

    Raises:
        ClientDisconnect: nobody waits for an answer any more.
    """
    message = await request.receive()
    parts = [message.get("body", b"")]
    while message["type"] == "http.request" and message.get("more_body", False):
        message = await request.receive()
        parts.append(message.get("body", b""))
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return parts[0] if len(parts) == 1 else b"".join(parts)


def expect_media_type(request: Request, *expected: str) -> str:
    """The content type of the body.

    Raises:
        Problem: ``unsupported_media_type``.
    """
    given = media_type(request)
    if given not in expected:
        raise Problem("unsupported_media_type", f"content-type is {show(given)}: expected {' or '.join(expected)}.")
    return given


async def read_json(request: Request, fields: frozenset[str]) -> dict[str, Any]:
    """The JSON object in the body, whose fields are among ``fields``; a null field is as if absent.

    Raises:
        Problem: ``unsupported_media_type``, ``invalid_request``.
    """
    expect_media_type(request, JSON)
    try:
        body = read_object(await whole_body(request), "the body")
    except JsonProblem as problem:
        raise Problem("invalid_request", f"{problem}.") from None
    check_fields(body, fields, "")
    return {name: value for name, value in body.items() if value is not None}


def check_fields(body: dict[str, Any], fields: frozenset[str], prefix: str) -> None:
    """Refuse a field that nobody would read: it is misspelled, or the caller expects what does not happen."""
    for name in body:
        if name not in fields:
            raise Problem("invalid_request", f"{prefix}{show(name)} is unknown: expected {', '.join(sorted(fields))}.")


def write_strictly(value: object) -> bytes:
    """A value that was read, as canonical JSON.

    Raises:
        Problem: it holds a number with a fraction, or text that is not Unicode.
    """
    try:
        return dump_json(value)
    except TypeError:
        raise Problem(
            "invalid_data", "A number has a fraction or an exponent: amounts are decimal strings, counts integers."
        ) from None
    except UnicodeEncodeError:
        raise Problem("invalid_data", "A text holds half of a surrogate pair.") from None


@cache
def wire_names(model: type[BaseModel]) -> frozenset[str]:
    """The names of a model's fields as they are written."""
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def strict_schema(model: type[BaseModel]) -> Schema:
    """The JSON Schema of a model whose unknown fields are refused."""
    return model.model_json_schema(by_alias=True, mode="validation") | {"additionalProperties": False}


def described(schema: Schema, *media_types: str) -> dict[str, Any]:
    """What a route that reads its body itself adds to its OpenAPI operation."""
    content = {name: {"schema": schema} for name in media_types or (JSON,)}
    return {"requestBody": {"required": True, "content": content}}
