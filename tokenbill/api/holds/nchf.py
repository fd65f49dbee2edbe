"""Nchf_ConvergedCharging of 3GPP TS 32.291, with which an existing telecom gateway reserves and reports tokens.

    POST /nchf-convergedcharging/v3/chargingdata                     201, Location
    POST /nchf-convergedcharging/v3/chargingdata/{ref}/update        200
    POST /nchf-convergedcharging/v3/chargingdata/{ref}/release       204

Owns the JSON of the specification and the mapping of rating groups to usage. The rules are in
:mod:`billing.reservations.charging`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from billing.reservations.charging import (
    QUOTA_US,
    Answered,
    GroupGrant,
    GroupUsage,
    invoke,
    keep_answer,
    open_session,
    wanted_holds,
)
from billing.reservations.operations import HoldContext, Operation
from schemas.cloudevents import JsonProblem, read_object
from schemas.fields import TEXT_PATTERN, JsonReal
from schemas.meters import MAX_COUNT, Counts, canonical_counts
from schemas.refusals import Refusal
from schemas.schema_documents import Schema
from schemas.times import SECOND_US, format_time_us, parse_time_us
from tokenbill.api.holds.holding import digest_of_body, holding_of, new_id, problem_of, reserving_caller
from tokenbill.api.holds.rating_groups import RatingGroup, rating_group_of
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.bodies import described, media_type, whole_body
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/nchf-convergedcharging/v3/chargingdata", tags=["converged charging"])

QUOTA_HOLDING_SECONDS = 60
"""Seconds after which a gateway gives back a quota that it has not used."""
_RESULTS = {
    "insufficient_balance": "QUOTA_LIMIT_REACHED",
    "package_exhausted": "QUOTA_LIMIT_REACHED",
    "account_closed": "END_USER_SERVICE_DENIED",
    "reservation_expired": "END_USER_SERVICE_DENIED",
    "reservation_closed": "END_USER_SERVICE_DENIED",
}
_NAI = re.compile(r"nai-([^@]+)(?:@.*)?")
DEFAULT_UNITS = 4_096
"""Units granted for an empty ``requestedUnit``. The specification leaves this amount to the charging function."""
ChargingRef = Annotated[str, Path(description="ChargingDataRef of the session", max_length=256)]


class _Spec(BaseModel):
    """Base of the structures of the specification. Fields that are not read here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


UnitCount = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]


class UnitCounts(_Spec):
    """RequestedUnit, and the counts of a UsedUnitContainer."""

    serviceSpecificUnits: UnitCount | None = None
    totalVolume: UnitCount | None = None
    uplinkVolume: UnitCount | None = None
    downlinkVolume: UnitCount | None = None
    time: UnitCount | None = None

    def given(self) -> dict[str, int]:
        """Return the units that count: the service-specific ones, else both directions, else the total.

        No unit is counted twice.

        Raises:
            Problem: ``invalid_charging_data``: only a time is given, and tokens are not counted by time.
        """
        if self.serviceSpecificUnits is not None:
            return {"serviceSpecificUnits": self.serviceSpecificUnits}
        directions = {"uplinkVolume": self.uplinkVolume, "downlinkVolume": self.downlinkVolume}
        found = {name: units for name, units in directions.items() if units is not None}
        if not found and self.totalVolume is not None:
            found = {"totalVolume": self.totalVolume}
        if not found and self.time is not None:
            raise _contradiction("time: no rating group counts seconds; give serviceSpecificUnits or a volume")
        return found


class UsedUnitContainer(UnitCounts):
    """Units used since the last report."""

    localSequenceNumber: int = Field(ge=0, strict=True)


class MultipleUnitUsage(_Spec):
    """Reported usage and requested quota of one rating group."""

    ratingGroup: int = Field(ge=0, lt=2**32, strict=True)
    requestedUnit: UnitCounts | None = None
    usedUnitContainer: list[UsedUnitContainer] = Field(default_factory=list, max_length=100)


class NfIdentification(_Spec):
    """Identification of the network function that sends the request."""

    nodeFunctionality: str = Field(min_length=1, max_length=64)


class ChargingDataRequest(_Spec):
    """The fields of a ChargingDataRequest that are read."""

    nfConsumerIdentification: NfIdentification
    invocationTimeStamp: str = Field(max_length=64, json_schema_extra={"format": "date-time"})
    invocationSequenceNumber: int = Field(ge=0, lt=2**32, strict=True)
    retransmissionIndicator: bool = Field(default=False, strict=True)
    oneTimeEvent: bool = Field(default=False, strict=True)
    multipleUnitUsage: list[MultipleUnitUsage] = Field(default_factory=list, max_length=100)


ChargingBody = TypeVar("ChargingBody", bound=ChargingDataRequest)


class CreateRequest(ChargingDataRequest):
    """The request that begins a session. It identifies the subscriber who pays."""

    subscriberIdentifier: str = Field(min_length=1, max_length=256, pattern=TEXT_PATTERN)
    oneTimeEventType: str | None = Field(default=None, max_length=64)


class MultipleUnitInformation(BaseModel):
    """The result and quota of one rating group."""

    model_config = ConfigDict(extra="allow")

    ratingGroup: int
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


async def _read(request: Request, model: type[ChargingBody]) -> tuple[ChargingBody, str]:
    """Return the request and a digest of all its fields except ``retransmissionIndicator``.

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
    try:
        parse_time_us(read.invocationTimeStamp)
    except ValueError as error:
        raise _contradiction(f"invocationTimeStamp: {error}") from None
    groups = [usage.ratingGroup for usage in read.multipleUnitUsage]
    if len(set(groups)) != len(groups):
        raise _contradiction("multipleUnitUsage: a rating group is there twice")
    body.pop("retransmissionIndicator", None)
    return read, digest_of_body(body)


def _usage_of(usage: MultipleUnitUsage, group: RatingGroup) -> GroupUsage:
    used: dict[str, int] = {}
    for container in usage.usedUnitContainer:
        for unit, count in container.given().items():
            meter = group.meter_of(unit)
            used[meter] = used.get(meter, 0) + count
    wanted: Counts | None = None
    if usage.requestedUnit is not None:
        asked = usage.requestedUnit.given() or {"serviceSpecificUnits": DEFAULT_UNITS}
        wanted = canonical_counts({group.meter_of(unit): count for unit, count in asked.items()})
    if any(count > MAX_COUNT for count in used.values()):
        raise Problem(
            "invalid_request", f"rating group {usage.ratingGroup}: the used units add up to more than 2^63-1."
        )
    return GroupUsage(usage.ratingGroup, group.dimensions(), canonical_counts(used) or None, wanted)


def _information(usage: MultipleUnitUsage, group: RatingGroup, grant: GroupGrant) -> dict[str, Any]:
    """Return the part of the answer for one rating group."""
    shown: dict[str, Any] = {"ratingGroup": grant.rating_group}
    if isinstance(grant.result, Refusal):
        return {**shown, "resultCode": _RESULTS.get(grant.result.code, "RATING_FAILED")}
    shown["resultCode"] = "SUCCESS"
    if grant.result is None or usage.requestedUnit is None:
        return shown
    counts = dict(grant.result.terms.counts)
    asked = usage.requestedUnit.given() or {"serviceSpecificUnits": DEFAULT_UNITS}
    granted = {unit: counts.get(group.meter_of(unit), 0) for unit in asked}
    shown["grantedUnit"] = granted
    shown["validityTime"] = QUOTA_US // SECOND_US
    shown["quotaHoldingTime"] = QUOTA_HOLDING_SECONDS
    threshold = "unitQuotaThreshold" if "serviceSpecificUnits" in granted else "volumeQuotaThreshold"
    shown[threshold] = sum(granted.values()) // 4
    if grant.result.terms.partial:
        shown["finalUnitIndication"] = {"finalUnitAction": "TERMINATE"}
    return shown


async def _invoke(
    request: Request, session: str, account: str, read: ChargingDataRequest, digest: str, *, begins: bool, ends: bool,
    debits: bool = False, known: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Decide one invocation and send the usage that it reports. Return the body of the answer."""
    holding = holding_of(request)
    number = read.invocationSequenceNumber
    groups = {usage.ratingGroup: await rating_group_of(request, usage.ratingGroup) for usage in read.multipleUnitUsage}
    usages = [_usage_of(usage, groups[usage.ratingGroup]) for usage in read.multipleUnitUsage]

    def decide(context: HoldContext) -> Answered | Refusal:
        new = begins and session not in context.holds
        if new:
            began = open_session(context, session, account, digest)
            if isinstance(began, Refusal):
                return began
        decided = invoke(context, session, number, digest, usages, final=ends, debit=debits)
        if isinstance(decided, Refusal) and new:
            context.forget(session)  # nothing is left of a session whose first request is refused
        if isinstance(decided, (Answered, Refusal)):
            return decided
        grants, events = decided
        answer = {
            "invocationTimeStamp": format_time_us(context.now_us),
            "invocationSequenceNumber": number,
            "multipleUnitInformation": [
                _information(usage, groups[usage.ratingGroup], grant)
                for usage, grant in zip(read.multipleUnitUsage, grants, strict=True)
            ],
        }
        keep_answer(context, session, number, digest, answer)
        return Answered(tuple(events), answer)

    wanted = tuple(dict.fromkeys((*wanted_holds(session, usages, number), *known)))
    decided = await holding.queue.run(Operation(account, wanted, decide))
    if isinstance(decided, Refusal):
        cause = {"unknown_account": "USER_UNKNOWN"}.get(decided.code, "CHARGING_FAILED")
        raise problem_of(decided, cause=cause)
    await holding.send([(account, event) for event in decided.events])
    return dict(decided.answer)


async def _of_session(request: Request, session: str, *, ends: bool) -> dict[str, Any]:
    caller = reserving_caller(request)
    read, digest = await _read(request, ChargingDataRequest)
    found = await holding_of(request).queue.book.find_session(session)
    if found is None:
        raise Problem("unknown_session", f"There is no charging session {session[:80]!r}.", cause="CHARGING_FAILED")
    account, known = found
    caller.check_account(account)
    return await _invoke(request, session, account, read, digest, begins=False, ends=ends, known=tuple(known))


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
    "unknown_meter",
    "no_price_book",
    "no_price",
    "overflow",
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
    read, digest = await _read(request, CreateRequest)
    account = account_of(read.subscriberIdentifier)
    caller.check_account(account)
    # A request repeated with retransmissionIndicator finds the session that the first one made.
    session = new_id("chg", caller, digest)
    once = read.oneTimeEvent
    debits = once and read.oneTimeEventType != "PEC"  # a post-event charge only reports used units
    body = await _invoke(request, session, account, read, digest, begins=True, ends=once, debits=debits)
    return json_answer(body, 201, {"location": f"{request.url.path}/{session}"})


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
