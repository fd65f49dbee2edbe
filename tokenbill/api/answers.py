"""Documents as answers: rendered once as the outputs are, and not validated again."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from fastapi.responses import Response
from pydantic_core import to_json


class _Json(Response):
    """A JSON document whose headers are known to be complete: Starlette looks for each before it adds it."""

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """The headers given, in lower case, and those of the body."""
        given = [] if headers is None else [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        length = b"%d" % len(self.body)
        self.raw_headers = [*given, (b"content-length", length), (b"content-type", b"application/json")]


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON document; names of headers are in lower case."""
    return _Json(to_json(body), status, headers)


def quoted(part: str) -> str:
    """A text as one part of a path."""
    return quote(part, safe="")
