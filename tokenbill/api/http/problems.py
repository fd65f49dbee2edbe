"""Errors of the API as problem details (RFC 9457): one list of codes, one shape, no traceback in an answer."""

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
from starlette.routing import compile_path

from billing.errors import DatabaseDown, NotPrepared
from schemas.json_text import dump_json

log = logging.getLogger("tokenbill.api")

MEDIA_TYPE = "application/problem+json"
URN = "urn:tokenbill:problem:"
RETRY_SECONDS = "1"
KEY_EXPECTED = "Send the header `Idempotency-Key: KEY`: 1 to 128 letters, digits, or any of _ . : ~ -"


@dataclass(frozen=True, slots=True)
class Kind:
    """HTTP status and title of a problem code. The title of a code never changes."""

    status: int
    title: str


KINDS: dict[str, Kind] = {
    "invalid_request": Kind(400, "The request cannot be read"),
    "invalid_time": Kind(422, "The time cannot be asked for"),
    "history_not_kept": Kind(409, "The log no longer reaches back far enough"),
    "history_too_long": Kind(409, "Too much would have to be decided again"),
    "invalid_cursor": Kind(422, "The cursor was not made by this list"),
    "key_required": Kind(401, "A key is required"),
    "key_unknown": Kind(401, "The key is unknown, expired or revoked"),
    "role_not_enough": Kind(403, "The role of the key does not allow this"),
    "other_account": Kind(403, "The key is for another account"),
    "not_found": Kind(404, "There is nothing at this address"),
    "unknown_account": Kind(404, "The account was never opened"),
    "method_not_allowed": Kind(405, "The address does not know this method"),
    "idempotency_key_required": Kind(400, "A command needs an idempotency key"),
    "unknown_plan": Kind(404, "There is no such plan"),
    "unknown_price_book": Kind(404, "There is no such price book"),
    "unknown_command": Kind(404, "No command was ordered under this idempotency key"),
    "unknown_suspense": Kind(404, "No event was rejected at this place"),
    "too_large": Kind(413, "The body is too large"),
    "unsupported_media_type": Kind(415, "The body has a content type that is not read here"),
    "invalid_json": Kind(400, "The event is not JSON, or not as strict as an event must be"),
    "invalid_event": Kind(422, "A field of the event is missing or wrong"),
    "usage_mismatch": Kind(422, "The counts contradict each other"),
    "unknown_meter": Kind(422, "A meter is counted that nobody knows"),
    "overflow": Kind(422, "A number is larger than what can be held"),
    "too_many_events": Kind(422, "The batch has too many events"),
    "nothing_taken": Kind(422, "No event of the batch was taken"),
    "no_price_book": Kind(422, "No version of the price book is in force at that time"),
    "no_price": Kind(422, "No row of the price book prices this"),
    "account_closed": Kind(409, "The account is closed"),
    "insufficient_balance": Kind(402, "The wallet holds too little for the reservation"),
    "package_exhausted": Kind(402, "The packages hold too little for the reservation"),
    "nothing_asked": Kind(422, "The request asks for nothing"),
    "invalid_charging_data": Kind(422, "The charging data contradict themselves"),
    "unknown_reservation": Kind(404, "There is no such reservation"),
    "reservation_expired": Kind(410, "The reservation expired"),
    "reservation_closed": Kind(409, "The reservation was closed or released"),
    "unknown_session": Kind(404, "There is no such charging session"),
    "invalid_token": Kind(422, "The allowance was not signed here for this grant"),
    "invalid_data": Kind(422, "A value cannot be held exactly"),
    "invalid_command": Kind(422, "A field of the command is missing or wrong"),
    "idempotency_key_reused": Kind(422, "The idempotency key stands for another request"),
    "internal_error": Kind(500, "A defect of ours"),
    "database_down": Kind(503, "The database does not answer"),
    "kafka_down": Kind(503, "Kafka does not answer"),
    "starting": Kind(503, "The service is not ready"),
}
"""Codes of the problems that this package itself answers with; ``docs/http-api.md`` explains each."""

REFUSALS: dict[str, Kind] = {
    "unknown_account": KINDS["unknown_account"],
    "account_closed": KINDS["account_closed"],
    "account_exists": Kind(409, "The account was opened before"),
    "ambiguous_price_book": Kind(409, "No single price book fits the account"),
    "currency_mismatch": Kind(409, "The currencies differ"),
    "unknown_plan": KINDS["unknown_plan"],
    "invalid_starts_at": Kind(409, "The cycle would begin too far ahead"),
    "duplicate_grant_id": Kind(409, "The grant exists on this account"),
    "duplicate_payment_ref": Kind(409, "The payment was booked before on this account"),
    "too_many_buckets": Kind(409, "The account has as many buckets as it may have"),
    "insufficient_funds": Kind(409, "The wallet holds too little"),
    "overflow": KINDS["overflow"],
    "unknown_grant": Kind(404, "There is no such grant on this account"),
    "ambiguous_grant": Kind(409, "The grant has several buckets"),
    "bucket_ended": Kind(409, "The bucket has ended or is being refunded"),
    "insufficient_balance": Kind(409, "The balance is too small"),
    "invalid_amount": Kind(409, "The amount is not possible"),
    "nothing_to_refund": Kind(409, "Nothing of the grant is left"),
    "not_refundable": Kind(409, "The grant cannot be refunded"),
    "same_account": Kind(409, "An account cannot transfer to itself"),
    "same_person": Kind(409, "Who asks and who approves must differ"),
    "account_suspended": Kind(409, "A bill of the account is past due"),
    "not_postpaid": Kind(409, "The account is not postpaid"),
    "unknown_bill": Kind(404, "There is no such bill on this account"),
    "amount_exceeds_bill": Kind(409, "More than the bill"),
    "unknown_subscription": Kind(404, "There is no such subscription on this account"),
    "duplicate_subscription_id": Kind(409, "The account has a subscription of this id"),
    "subscription_ended": Kind(409, "The subscription has ended"),
    "subscription_suspended": Kind(409, "The subscription is suspended"),
    "subscription_not_suspended": Kind(409, "The subscription is not suspended"),
    "plan_withdrawn": Kind(409, "The plan is no longer sold"),
    "plan_not_renewable": Kind(409, "The plan begins with its first use"),
    "cycle_mismatch": Kind(409, "The plans have different cycles"),
    "cycle_without_end": Kind(409, "The running cycle has no end"),
    "unknown_usage": Kind(404, "No such usage was rated on this account"),
    "usage_voided": Kind(409, "The usage was voided before"),
    "correction_conflict": Kind(409, "What happened afterwards contradicts the correction"),
    "history_differs": Kind(409, "The account's history does not lead to its balances"),
    "history_not_kept": KINDS["history_not_kept"],
    "history_too_long": KINDS["history_too_long"],
    "history_unavailable": Kind(409, "The account's history cannot be read now"),
    "no_price_book": KINDS["no_price_book"],
    "no_price": KINDS["no_price"],
}
"""Reasons with which a rule refuses a command. A reason missing here is answered with 409 and the same shape."""


class ProblemBody(BaseModel):
    """Problem details (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:tokenbill:problem:` and the code", pattern=f"^{URN}[a-z_]+$")
    title: str = Field(description="title of the code, the same for every occurrence")
    status: int = Field(description="HTTP status", ge=400, le=599)
    code: str = Field(description="problem code")
    detail: str = Field(description="this occurrence: field, value and what was expected")
    request_id: str = Field(description="id of the request, as in the header x-request-id and in the log")


class Problem(Exception):
    """An error that is answered to the caller as a problem document.

    ``kind`` defaults to the kind of the code. ``more`` holds members beyond those of RFC 9457.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        kind: Kind | None = None,
        **more: Any,
    ) -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail
        self.kind = kind or KINDS[code]
        self.headers = dict(headers or {})
        self.more = more

    def answer(self, request_id: str) -> Response:
        """Return the HTTP response."""
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


def kind_of(code: str) -> Kind:
    """Return the kind of a code, whether it is ours or a rule's."""
    return KINDS[code] if code in KINDS else REFUSALS[code]


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
        by_status.setdefault(kind_of(code).status, []).append(code)
    return {
        status: {
            "description": "; ".join(f"`{code}`: {kind_of(code).title}" for code in found),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}},
        }
        for status, found in by_status.items()
    }
