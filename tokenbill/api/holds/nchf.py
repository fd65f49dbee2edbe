"""Nchf_ConvergedCharging of 3GPP TS 32.291, with which an existing telecom gateway reserves and reports tokens.

    POST /nchf-convergedcharging/v3/chargingdata                     201, Location
    POST /nchf-convergedcharging/v3/chargingdata/{ref}/update        200
    POST /nchf-convergedcharging/v3/chargingdata/{ref}/release       204

Owns the JSON of the specification and the mapping of rating groups to usage. The rules are in
:mod:`billing.reservations.charging`.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from billing.reservations.charging import (
    NOTIFY,
    QUOTA_US,
    GroupGrant,
    GroupUsage,
    Invocation,
    Invoked,
    NotCarriedOut,
    abort,
    invoke,
    keep_answer,
    keep_units,
    note_gateway,
    open_session,
    wanted_holds,
)
from billing.reservations.operations import HoldContext, Operation
from schemas.cloudevents import JsonProblem, read_object
from schemas.fields import TEXT_PATTERN, JsonReal, show
from schemas.refusals import Refusal
from schemas.schema_documents import Schema
from schemas.times import SECOND_US, format_time_us, parse_time_us
from tokenbill.api.holds.charging_units import (
    SPECIFIC,
    TIME,
    TOTAL,
    UNITS,
    AskedQuota,
    granted_units,
    read_container,
    read_requested,
    used_kind,
    whole_number,
)
from tokenbill.api.holds.holding import digest_of_body, holding_of, new_id, problem_of, reserving_caller
from tokenbill.api.holds.rating_groups import RatingGroup, rating_group_of
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.bodies import described, media_type, whole_body
from tokenbill.api.http.problems import Problem, responses

log = logging.getLogger("tokenbill.charging")

router = APIRouter(prefix="/nchf-convergedcharging/v3/chargingdata", tags=["converged charging"])
sessions = APIRouter(prefix="/v1/charging-sessions", tags=["converged charging"])

QUOTA_HOLDING_SECONDS = 60
"""Seconds after which a gateway gives back a quota that it has not used."""
_RESULTS = {
    "insufficient_balance": "QUOTA_LIMIT_REACHED",
    "package_exhausted": "QUOTA_LIMIT_REACHED",
    "too_many_groups": "QUOTA_LIMIT_REACHED",
    "account_closed": "END_USER_SERVICE_DENIED",
    "account_suspended": "END_USER_SERVICE_DENIED",
    "reservation_expired": "END_USER_SERVICE_DENIED",
    "reservation_closed": "END_USER_SERVICE_DENIED",
}
_NAI = re.compile(r"nai-([^@]+)(?:@.*)?")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9-]{1,40}", re.ASCII)
_GREATEST_GROUP = 2**32
_THRESHOLDS = {SPECIFIC: "unitQuotaThreshold", TIME: "timeQuotaThreshold"}
ChargingRef = Annotated[str, Path(description="ChargingDataRef of the session", max_length=256)]


class _Spec(BaseModel):
    """Base of the structures of the specification. Fields that are not read here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


_UNIT: Schema = {"description": "an integer of at least 0"}
_UNITS: Schema = {"type": "object", "properties": dict.fromkeys(UNITS, _UNIT)}
_GROUPS: Schema = {
    "type": ["array", "null"],
    "items": {
        "properties": {
            "ratingGroup": {"description": "an integer of 32 bits"},
            "requestedUnit": _UNITS | {"description": "quota that is asked for; empty: as much as is usual"},
            "usedUnitContainer": {
                "description": "units used since the last report",
                "items": _UNITS,
            },
            "uPFID": {"description": "the user plane function, returned as it came"},
        },
    },
}
"""Schema of ``multipleUnitUsage``. It constrains little, because a fault of one container must not refuse the others:
each group is answered by itself."""


class NfIdentification(_Spec):
    """Identification of the network function that sends the request."""

    nodeFunctionality: str = Field(min_length=1, max_length=64)


class ChargingDataRequest(_Spec):
    """The fields of a ChargingDataRequest that are read."""

    nfConsumerIdentification: NfIdentification
    invocationTimeStamp: str = Field(max_length=64, description="time of the request, RFC 3339")
    invocationSequenceNumber: int = Field(ge=0, lt=2**32, strict=True)
    retransmissionIndicator: bool | None = Field(default=None, strict=True)
    oneTimeEvent: bool | None = Field(default=None, strict=True)
    notifyUri: Annotated[Any, WithJsonSchema({"description": "where the gateway is notified"})] = None
    multipleUnitUsage: Annotated[list[Any] | None, WithJsonSchema(_GROUPS)] = None


ChargingBody = TypeVar("ChargingBody", bound=ChargingDataRequest)


class CreateRequest(ChargingDataRequest):
    """The request that begins a session. It identifies the subscriber who pays."""

    subscriberIdentifier: str = Field(min_length=1, max_length=256, pattern=TEXT_PATTERN)
    oneTimeEventType: str | None = Field(default=None, max_length=64)


class MultipleUnitInformation(BaseModel):
    """The result and quota of one rating group."""

    model_config = ConfigDict(extra="allow")

    ratingGroup: int | None = None
    resultCode: str


class ChargingDataResponse(BaseModel):
    """The answer to a request."""

    invocationTimeStamp: str
    invocationSequenceNumber: int
    multipleUnitInformation: list[MultipleUnitInformation]


def account_of(subscriber: str) -> str:
    """Return the account of a subscriber: the user of ``nai-user@realm``; any other identifier is the account's id."""
    found = _NAI.fullmatch(subscriber)
    return found[1] if found else subscriber


def _contradiction(detail: str) -> Problem:
    return Problem("invalid_charging_data", f"{detail}.", cause="MANDATORY_IE_INCORRECT")


@dataclass(frozen=True, slots=True)
class _Group:
    """One entry of ``multipleUnitUsage``: what identifies it in the answer, and its units."""

    named: dict[str, Any]
    meaning: RatingGroup
    asked: AskedQuota | None
    usage: GroupUsage


async def _read(request: Request, model: type[ChargingBody]) -> tuple[ChargingBody, Invocation]:
    """Return the request, and what distinguishes it from others.

    Fields that are not read here, such as a charging id or the name of the network function, are part of the digest:
    they distinguish sessions that one subscriber begins at the same time.
    """
    if media_type(request) != "application/json":
        raise Problem("unsupported_media_type", "content-type: expected application/json.")
    try:
        body = read_object(await whole_body(request), "the body")
    except JsonProblem as problem:
        raise Problem("invalid_request", f"{problem}.", cause="INVALID_MSG_FORMAT") from None
    try:
        read = model.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False)[0]
        where = ".".join(map(str, found["loc"])) or "the body"
        if found["type"] == "missing":
            raise Problem("invalid_request", f"{where}: {found['msg']}.", cause="MANDATORY_IE_MISSING") from None
        if isinstance(found["input"], JsonReal):  # JSON Schema accepts 5.0 as an integer, but it is not a count
            raise _contradiction(f"{where}: a number has a fraction or an exponent") from None
        raise Problem("invalid_request", f"{where}: {found['msg']}.", cause="MANDATORY_IE_INCORRECT") from None
    body.pop("retransmissionIndicator", None)
    whole = digest_of_body(body)
    body.pop("invocationTimeStamp", None)
    try:
        time_us = parse_time_us(read.invocationTimeStamp)
    except ValueError:
        time_us = 0  # nothing is priced by it
    invocation = Invocation(
        read.invocationSequenceNumber, whole, digest_of_body(body), time_us, bool(read.retransmissionIndicator)
    )
    return read, invocation


async def _read_groups(request: Request, read: ChargingDataRequest) -> list[_Group]:
    """Return the entries of ``multipleUnitUsage``. Entries of one rating group have holds and events of their own."""
    groups: list[_Group] = []
    seen: dict[str, int] = {}
    for entry in read.multipleUnitUsage or ():
        fields = entry if isinstance(entry, dict) else {"usedUnitContainer": [entry]}
        number = whole_number(fields.get("ratingGroup"))
        named: dict[str, Any] = {} if number is None else {"ratingGroup": number}
        if number is not None and 0 <= number < _GREATEST_GROUP:
            meaning = await rating_group_of(request, number)
        else:
            meaning = RatingGroup(model=f"rating-group-{'unknown' if number is None else number}")
        key = "unknown" if number is None else str(number)
        user_plane = fields.get("uPFID")
        if isinstance(user_plane, str) and user_plane:
            named["uPFID"] = user_plane
            plain = _PLAIN_KEY.fullmatch(user_plane)
            text = user_plane if plain else sha256(user_plane.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            key += f"@{text}"
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            key += f"#{seen[key]}"
        groups.append(_group(fields, named, meaning, number, key))
    return groups


def _group(fields: dict[str, Any], named: dict[str, Any], meaning: RatingGroup, number: int | None, key: str) -> _Group:
    containers = fields.get("usedUnitContainer")
    if containers is None:
        containers = []
    elif not isinstance(containers, list):
        containers = [containers]
    found = [read_container(container, meaning) for container in containers]
    asked = read_requested(fields.get("requestedUnit"), meaning, used_kind(containers))
    usage = GroupUsage(
        number,
        meaning.dimensions(),
        tuple(counts for counts, _ in found if counts),
        () if asked is None else asked.wanted,
        tuple(unread for _, unread in found if unread),
        key,
        meaning.attributes,
    )
    return _Group(named, meaning, asked, usage)


def _trigger(kind: str) -> dict[str, str]:
    return {"triggerType": kind, "triggerCategory": "IMMEDIATE_REPORT"}


def _information(group: _Group, grant: GroupGrant) -> dict[str, Any]:
    """Return the part of the answer for one entry."""
    if isinstance(grant.result, Refusal):
        code = _RESULTS.get(grant.result.code, "RATING_FAILED")
        shown = {**group.named, "resultCode": code}
        return shown | ({"triggers": [_trigger("QUOTA_EXHAUSTED")]} if code == "QUOTA_LIMIT_REACHED" else {})
    shown = {**group.named, "resultCode": "SUCCESS"}
    if grant.result is None or group.asked is None:
        return shown
    granted = granted_units(group.asked, grant.result.terms.counts, group.meaning)
    if not any(granted.values()):  # less than a second
        return shown | {"resultCode": "QUOTA_LIMIT_REACHED", "triggers": [_trigger("QUOTA_EXHAUSTED")]}
    kind = TOTAL if TOTAL in granted else next(iter(granted))
    whole = granted[TOTAL] if kind == TOTAL else sum(granted.values())
    shown |= {
        "grantedUnit": granted,
        "triggers": [_trigger(kind) for kind in ("QUOTA_THRESHOLD", "QUOTA_EXHAUSTED", "VALIDITY_TIME", "QHT")],
        "validityTime": QUOTA_US // SECOND_US,
        "quotaHoldingTime": QUOTA_HOLDING_SECONDS,
        _THRESHOLDS.get(kind, "volumeQuotaThreshold"): whole // 4,
    }
    if grant.result.terms.partial:
        shown["finalUnitIndication"] = {"finalUnitAction": "TERMINATE"}
    return shown


async def _invoke(
    request: Request, session: str, account: str, read: ChargingDataRequest, invocation: Invocation, *, begins: bool,
    ends: bool, debits: bool = False, known: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Decide one invocation and send the usage that it reports. Return the body of the answer."""
    holding = holding_of(request)
    groups = await _read_groups(request, read)
    usages = [group.usage for group in groups]

    def decide(context: HoldContext) -> NotCarriedOut | tuple[tuple[str, ...], Any]:
        new = begins and session not in context.holds
        if new:
            began = open_session(context, session, account, invocation.sha256, invocation.number)
            if isinstance(began, Refusal):
                return NotCarriedOut(began, tuple(keep_units(context, session, account, usages, invocation)))
        decided = invoke(context, session, invocation, usages, final=ends, debit=debits)
        if isinstance(decided, NotCarriedOut):
            return decided
        if not isinstance(decided, Invoked):
            return decided.events, decided.answer
        answer = {
            "invocationTimeStamp": format_time_us(context.now_us),
            "invocationSequenceNumber": invocation.number,
            "multipleUnitInformation": [
                _information(group, grant) for group, grant in zip(groups, decided.grants, strict=True)
            ],
        }
        keep_answer(context, session, decided.step, invocation, answer)
        if not ends:
            uri = read.notifyUri if isinstance(read.notifyUri, str) else None
            numbers = [number for usage in usages if (number := usage.rating_group) is not None]
            note_gateway(context, session, uri, [number for number in numbers if 0 <= number < _GREATEST_GROUP])
        _note_kept(session, decided)
        return decided.events, answer

    wanted = tuple(dict.fromkeys((*wanted_holds(session, usages, invocation), *known)))
    decided = await holding.queue.run(Operation(account, wanted, decide))
    refusal = decided.refusal if isinstance(decided, NotCarriedOut) else None
    events, answer = (decided.events, {}) if isinstance(decided, NotCarriedOut) else decided
    await holding.send([(account, event) for event in events])
    if refusal is not None:
        if events:
            log.warning("session %s: %s; %d usage events of it are kept", session, refusal.detail, len(events))
        cause = {"unknown_account": "USER_UNKNOWN"}.get(refusal.code, "CHARGING_FAILED")
        raise problem_of(refusal, cause=cause)
    return dict(answer)


def _note_kept(session: str, decided: Invoked) -> None:
    for grant in decided.grants:
        if isinstance(grant.result, Refusal) and grant.result.code not in _RESULTS:
            detail = grant.result.detail
            log.warning("session %s, rating group %s: %s", session, grant.rating_group, show(detail))


async def _of_session(request: Request, session: str, *, ends: bool) -> dict[str, Any]:
    caller = reserving_caller(request)
    read, invocation = await _read(request, ChargingDataRequest)
    found = await holding_of(request).queue.book.find_session(session)
    if found is None:
        raise Problem("unknown_session", f"There is no charging session {session[:80]!r}.", cause="CHARGING_FAILED")
    account, known = found
    caller.check_account(account)
    return await _invoke(request, session, account, read, invocation, begins=False, ends=ends, known=tuple(known))


def _schema(model: type[BaseModel]) -> Schema:
    """Return the JSON Schema of a request with its definitions inlined, because OpenAPI keeps definitions elsewhere."""
    whole = model.model_json_schema()
    parts = whole.pop("$defs", {})

    def put_in(schema: Any) -> Any:
        if isinstance(schema, dict):
            found = schema.get("$ref")
            if found is not None:
                return put_in(parts[found.rpartition("/")[2]])
            return {name: put_in(value) for name, value in schema.items()}
        return [put_in(value) for value in schema] if isinstance(schema, list) else schema

    placed: Schema = put_in(whole)
    return placed


_PROBLEMS = (
    "invalid_charging_data",
    "other_account",
    "idempotency_key_reused",
    "answer_not_kept",
    "too_many_steps",
    "kafka_down",
    "unsupported_media_type",
    "too_large",
)


@router.post(
    "",
    status_code=201,
    response_model=ChargingDataResponse,
    responses=responses("unknown_account", *_PROBLEMS),
    openapi_extra=described(_schema(CreateRequest)),
)
async def create_session(request: Request) -> Response:
    """Begin a session: grant the first quota of each rating group.

    A one-time event ends with its answer: the requested units are granted whole and debited at once, or not at all.
    """
    caller = reserving_caller(request)
    read, invocation = await _read(request, CreateRequest)
    account = account_of(read.subscriberIdentifier)
    caller.check_account(account)
    # A request repeated with retransmissionIndicator finds the session that the first one made.
    session = new_id("chg", caller, invocation.sha256)
    once = bool(read.oneTimeEvent)
    debits = once and read.oneTimeEventType != "PEC"  # a post-event charge only reports used units
    body = await _invoke(request, session, account, read, invocation, begins=True, ends=once, debits=debits)
    url = request.url
    return json_answer(body, 201, {"location": f"{url.scheme}://{url.netloc}{url.path}/{session}"})


@router.post(
    "/{charging_data_ref}/update",
    response_model=ChargingDataResponse,
    responses=responses("unknown_session", *_PROBLEMS),
    openapi_extra=described(_schema(ChargingDataRequest)),
)
async def update_session(request: Request, charging_data_ref: ChargingRef) -> Response:
    """Report used units and request more. Requesting more in a rating group gives back the rest of its quota."""
    return json_answer(await _of_session(request, charging_data_ref, ends=False))


@router.post(
    "/{charging_data_ref}/release",
    status_code=204,
    response_class=Response,
    responses=responses("unknown_session", *_PROBLEMS),
    openapi_extra=described(_schema(ChargingDataRequest)),
)
async def release_session(request: Request, charging_data_ref: ChargingRef) -> Response:
    """Report the last units. Every quota of the session is given back."""
    await _of_session(request, charging_data_ref, ends=True)
    return Response(status_code=204)


class AbortedSession(BaseModel):
    """A session that was aborted."""

    session: str = Field(description="ChargingDataRef of the session")
    notified: bool = Field(description="true if its gateway named an address, which is notified")


@sessions.post(
    "/{charging_data_ref}/abort", response_model=AbortedSession, responses=responses("unknown_session", "other_account")
)
async def abort_session(request: Request, charging_data_ref: ChargingRef) -> Response:
    """End a session and notify its gateway (ABORT_CHARGING). What it still reports is recorded."""
    caller = reserving_caller(request)
    book = holding_of(request).queue.book
    found = await book.find_session(charging_data_ref)
    if found is None:
        raise Problem("unknown_session", f"There is no charging session {charging_data_ref[:80]!r}.")
    account, known = found
    caller.check_account(account)
    await book.file_abort(charging_data_ref)
    wanted = tuple(dict.fromkeys((charging_data_ref, *known)))
    decided = await holding_of(request).queue.run(
        Operation(account, wanted, lambda context: abort(context, charging_data_ref))
    )
    if isinstance(decided, Refusal):
        raise problem_of(decided)
    return json_answer({"session": charging_data_ref, "notified": NOTIFY in decided.steps})
