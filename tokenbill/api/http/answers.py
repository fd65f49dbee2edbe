"""Documents as answers: rendered once as the outputs are, and not validated again."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi.responses import Response
from pydantic_core import to_json


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document."""
    return Response(to_json(body), status, dict(headers or {}), "application/json")


def quoted(part: str) -> str:
    """A text as one part of a path."""
    return quote(part, safe="")
