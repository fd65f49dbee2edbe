"""JSON responses. A document is rendered once, as outputs are, and not validated again."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi.responses import Response
from pydantic_core import to_json


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON document."""
    return Response(to_json(body), status, dict(headers or {}), "application/json")


def quoted(part: str) -> str:
    """Return a text, percent-encoded as one segment of a path."""
    return quote(part, safe="")
