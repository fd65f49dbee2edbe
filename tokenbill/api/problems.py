"""Every error of the API as problem details (RFC 9457): one list of codes, one shape, no traceback to a caller."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from billing.documents import dump_json
from billing.store.errors import DatabaseDown, NotPrepared

log = logging.getLogger("tokenbill.api")

MEDIA_TYPE = "application/problem+json"
URN = "urn:tokenbill:problem:"
RETRY_SECONDS = "1"


@dataclass(frozen=True, slots=True)
class Kind:
    """One code: the status it is answered with, and a title that never changes."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "invalid_request": Kind(400, "The request cannot be read"),
    "invalid_cursor": Kind(400, "The cursor was not made by this list"),
    "key_required": Kind(401, "A key is required"),
    "key_unknown": Kind(401, "The key is unknown, expired or revoked"),
    "role_not_enough": Kind(403, "The role of the key does not allow this"),
    "other_account": Kind(403, "The key is for another account"),
    "not_found": Kind(404, "There is nothing at this address"),
    "unknown_account": Kind(404, "The account was never opened"),
    "method_not_allowed": Kind(405, "The address does not know this method"),
    "too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body has a content type that is not read here"),
    "internal_error": Kind(500, "A defect of ours"),
    "database_down": Kind(503, "The database does not answer"),
    "starting": Kind(503, "The service is not ready"),
}
"""Every code that this package answers with; ``docs/http-api.md`` explains each."""


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:tokenbill:problem: and the code", pattern=f"^{URN}[a-z_]+$")
    title: str = Field(description="the code in words; the same for every occurrence")
    status: int = Field(description="the HTTP status", ge=400, le=599)
    code: str = Field(description="the code, for programs")
    detail: str = Field(description="what happened here: field, value, expectation")
    request_id: str = Field(description="the request, as in the header x-request-id and in the log")


class Problem(Exception):
    """An error that is answered to the caller. ``more`` are members beyond those of the standard."""

    def __init__(self, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.kind = KINDS[code]
        self.headers = dict(headers or {})
        self.more = more

    def answer(self, request_id: str) -> Response:
        """The response."""
        kind = self.kind
        body = {
            "type": URN + self.code,
            "title": kind.title,
            "status": kind.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            **self.more,
        }
        if kind.status == 401:
            self.headers.setdefault("www-authenticate", 'Bearer realm="tokenbill"')
        if kind.status == 503:
            self.headers.setdefault("retry-after", RETRY_SECONDS)
        return Response(dump_json(body), kind.status, self.headers, MEDIA_TYPE)


def of_failure(error: Exception) -> Problem:
    """What a caller is told of a failure that is not theirs."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, DatabaseDown):
        return Problem("database_down", "The database does not answer at this moment; try again.")
    if isinstance(error, NotPrepared):
        return Problem("starting", "The database is not prepared for this version; run `tokenbill prepare`.")
    log.exception("a request failed", exc_info=error)
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
    return Problem("invalid_request", f"{first['field']}: {first['message']}", errors=found)


def install(app: FastAPI) -> None:
    """Answer every exception of a handler as a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            problem = _of_validation(error)
        elif isinstance(error, HTTPException):
            problem = _of_status(error)
        else:
            problem = of_failure(error)
        return problem.answer(request.state.request_id)

    for kind in (Problem, HTTPException, RequestValidationError, DatabaseDown, NotPrepared):
        app.add_exception_handler(kind, answer)


def responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """What a route says in the OpenAPI document about the problems it answers with."""
    by_status: dict[int | str, list[str]] = {}
    for code in dict.fromkeys(("invalid_request", "key_required", "role_not_enough", "database_down", *codes)):
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {KINDS[code].title}" for code in found),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status, found in by_status.items()
    }
