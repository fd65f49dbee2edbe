"""Strict reading of request bodies, as strict as for events, and their description in OpenAPI. Never guesses."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from schemas.cloudevents import JsonProblem, read_object
from schemas.fields import show
from schemas.json_text import dump_json
from schemas.schema_documents import Schema
from tokenbill.api.http.problems import Problem

JSON = "application/json"


def media_type(request: Request) -> str:
    """Return the content type of the body without its parameters, in lower case."""
    return (header_of(request, b"content-type") or "").partition(";")[0].strip().lower()


def header_of(request: Request, name: bytes) -> str | None:
    """Return a header of the request without building a mapping of all headers. ``name`` is in lower case."""
    for given, value in request.scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


async def whole_body(request: Request) -> bytes:
    """Return the body. A body that arrives in one piece, as most do, is not copied.

    Raises:
        ClientDisconnect: the client has closed the connection.
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
    """Return the content type of the body, which must be one of ``expected``.

    Raises:
        Problem: ``unsupported_media_type``.
    """
    given = media_type(request)
    if given not in expected:
        raise Problem("unsupported_media_type", f"content-type is {show(given)}: expected {' or '.join(expected)}.")
    return given


async def read_json(request: Request, fields: frozenset[str]) -> dict[str, Any]:
    """Return the JSON object in the body. Its fields must be among ``fields``; a null field counts as absent.

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
    """Refuse unknown fields: each is either misspelled or requests something that is not done.

    Raises:
        Problem: ``invalid_request``.
    """
    for name in body:
        if name not in fields:
            raise Problem("invalid_request", f"{prefix}{show(name)} is unknown: expected {', '.join(sorted(fields))}.")


def write_strictly(value: object) -> bytes:
    """Return a parsed value as canonical JSON.

    Raises:
        Problem: ``invalid_data``: a number has a fraction or an exponent, or a text is not valid Unicode.
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
    """Return the names of a model's fields as they are written in JSON."""
    return frozenset(info.alias or name for name, info in model.model_fields.items())


def strict_schema(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a model, with unknown fields forbidden."""
    return model.model_json_schema(by_alias=True, mode="validation") | {"additionalProperties": False}


def described(schema: Schema, *media_types: str) -> dict[str, Any]:
    """Return the additions to the OpenAPI operation of a route that reads its body itself."""
    content = {name: {"schema": schema} for name in media_types or (JSON,)}
    return {"requestBody": {"required": True, "content": content}}
