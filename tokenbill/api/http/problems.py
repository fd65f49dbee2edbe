"""Problem details (RFC 9457), the one shape of every error response, by the codes of :mod:`schemas.refusal_codes`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from billing.errors import DatabaseDown, NotPrepared
from schemas.json_text import dump_json
from schemas.refusal_codes import Code, Use, codes_of

log = logging.getLogger("tokenbill.api")

MEDIA_TYPE = "application/problem+json"
URN = "urn:tokenbill:problem:"
RETRY_AFTER = "1"
KEY_PATTERN = "^[A-Za-z0-9_.:~-]{1,128}$"
"""An idempotency key."""
KEY_EXPECTED = "Send the header `Idempotency-Key: KEY`: 1 to 128 letters, digits, or any of _ . : ~ -"


_REQUEST, _COMMAND = codes_of(Use.REQUEST), codes_of(Use.COMMAND)


class ProblemBody(BaseModel):
    """A problem document (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:tokenbill:problem:` and the code", pattern=f"^{URN}[a-z_]+$")
    title: str = Field(description="title of the code, the same for every occurrence")
    status: int = Field(description="HTTP status", ge=400, le=599)
    code: str = Field(description="problem code")
    detail: str = Field(description="this occurrence: field, value and what was expected")
    request_id: str = Field(description="id of the request, as in the header x-request-id and in the log")


class Problem(Exception):
    """An error response. ``row`` defaults to that of the code for requests; ``more`` are members beyond RFC 9457."""

    def __init__(
        self,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        row: Code | None = None,
        **more: Any,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.row = row or code_row(code)
        self.headers = dict(headers or {})
        self.more = more

    def answer(self, request_id: str) -> Response:
        """Return the HTTP response."""
        row = self.row
        body = {
            "type": URN + self.code,
            "title": row.title,
            "status": row.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            **self.more,
        }
        if row.status == 401:
            self.headers.setdefault("www-authenticate", 'Bearer realm="tokenbill"')
        if row.status == 503:
            self.headers.setdefault("retry-after", RETRY_AFTER)
        return Response(dump_json(body), row.status, self.headers, MEDIA_TYPE)


def of_failure(error: Exception, request_id: str) -> Problem:
    """Return the problem that answers a failure. An unexpected failure is logged and becomes ``internal_error``."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DatabaseDown):
        return Problem("database_down", "The database does not answer at this moment; try again.")
    if isinstance(error, NotPrepared):
        return Problem("starting", "The database is not prepared for this version; run `tokenbill prepare`.")
    log.error("request %s failed", request_id, exc_info=error)
    return Problem("internal_error", "The failure is in the log under this request_id.")


def _of_status(error: HTTPException) -> Problem:
    codes = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_media_type"}
    code = codes.get(error.status_code, "invalid_request")
    return Problem(code, str(error.detail), error.headers)


def _of_validation(error: RequestValidationError) -> Problem:
    found = [
        {"field": ".".join(str(part) for part in one["loc"]), "message": str(one["msg"])} for one in error.errors()
    ]
    first = found[0]
    if first["field"] == "header.Idempotency-Key":
        code = "idempotency_key_required" if error.errors()[0]["type"] == "missing" else "invalid_request"
        return Problem(code, KEY_EXPECTED)
    return Problem("invalid_request", f"{first['field']}: {first['message']}", errors=found)


def install(app: FastAPI) -> None:
    """Register exception handlers that answer with problem documents."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            problem = _of_validation(error)
        elif isinstance(error, HTTPException):
            problem = _of_status(error)
            if error.status_code == 405:
                problem.headers = {"allow": ", ".join(_methods(app, request.url.path))}
        else:
            problem = of_failure(error, request.state.request_id)
        return problem.answer(request.state.request_id)

    for kind in (Problem, HTTPException, RequestValidationError, DatabaseDown, NotPrepared):
        app.add_exception_handler(kind, answer)


def code_row(code: str) -> Code:
    """Return the row of a code: as the answer to a request, or else to a command."""
    return _REQUEST[code] if code in _REQUEST else _COMMAND[code]


def command_row(code: str) -> Code:
    """Return the row of a code as the answer to a command; a reason without a row is answered with 409."""
    return _COMMAND.get(code, Code(code, 409, "A rule refused the command", "", Use.COMMAND))


def _methods(app: FastAPI, path: str) -> list[str]:
    """Return the methods of an address. Starlette by itself lists the methods of one route only."""
    found = set[str]()
    for template, operations in app.openapi()["paths"].items():
        if compile_path(template)[0].match(path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the problems of a route for its OpenAPI operation, by status; problems of all routes are included."""
    by_status: dict[int | str, list[str]] = {}
    for code in dict.fromkeys(("invalid_request", "key_required", "role_not_enough", "database_down", *codes)):
        by_status.setdefault(code_row(code).status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {code_row(code).title}" for code in found),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status, found in by_status.items()
    }
