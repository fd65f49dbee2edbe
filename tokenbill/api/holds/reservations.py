"""Routes of reservations: hold quota for a request before it runs, then extend, settle or release the hold.

Each is one operation under the lock of its account. Settled usage is sent to Kafka like any other usage.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema

from billing.accounts.held import NOTHING
from billing.reservations.hold import HOLD_OPEN, RESERVATION, Hold, Terms, hold_object
from billing.reservations.operations import HoldContext, Operation, Settled, extend, find, release, reserve, settle
from schemas.fields import JsonReal, Name, Text, TimeUs, explain
from schemas.meters import Counts
from schemas.outputs import Decimal
from schemas.refusals import Refusal, Refused
from schemas.times import SECOND_US
from schemas.usage import COUNT_SCHEMA, OUTCOMES, UsageAttributes, plain_counts
from tokenbill.api.holds.holding import Holding, digest_of_body, holding_of, new_id, problem_of, reserving_caller
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller
from tokenbill.api.http.bodies import described, header_of, read_json, strict_schema, wire_names
from tokenbill.api.http.problems import KEY_EXPECTED, KEY_PATTERN, Problem, responses

PATH = "/v1/reservations"
router = APIRouter(prefix=PATH, tags=["reservations"])

MAX_HOLD_SECONDS = 86_400
DEFAULT_SECONDS = 300
_KEY = re.compile(KEY_PATTERN)
ParsedBody = dict[str, Any]
"""A request body as it was parsed."""
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="same key and same body: same answer", pattern=KEY_PATTERN),
]
ReservationId = Annotated[str, Path(description="id of the reservation", max_length=256)]
Usage = Annotated[
    dict[str, Any],
    Field(description="counts by meter, as in a usage event; the meters are disjoint"),
    WithJsonSchema({"type": "object", "additionalProperties": COUNT_SCHEMA}),
]
HoldSeconds = Annotated[
    int, Field(ge=1, le=MAX_HOLD_SECONDS, strict=True, description="validity of the hold in seconds")
]


class ReservationBody(BaseModel):
    """A request for a reservation. The dimensions are those of a usage event."""

    model_config = ConfigDict(frozen=True)

    account: Name = Field(description="account that will pay")
    model: Name = Field(description="model that will serve the request")
    hardware_tier: Text = Field(default="unknown", description="as in a usage event")
    energy_source: Text = Field(default="unknown", description="as in a usage event")
    site: Text = Field(default="unknown", description="as in a usage event")
    channel: Text = Field(default="cloud", description="as in a usage event")
    service_tier: Text = Field(default="standard", description="as in a usage event")
    attributes: UsageAttributes = Field(default_factory=dict, description="as in a usage event")
    member: Text | None = Field(default=None, description="member of the account who uses it")
    request_id: Text | None = Field(default=None, description="id of the request, for later look-up")
    usage: Usage
    validity_seconds: HoldSeconds = DEFAULT_SECONDS
    accept_partial: bool = Field(
        default=False, strict=True, description="hold less if the balance is too small, by lower generated counts"
    )


class ExtensionBody(BaseModel):
    """A request to extend a reservation by more usage, more time, or both."""

    usage: Usage = Field(default_factory=dict)
    validity_seconds: HoldSeconds | None = Field(default=None, description="seconds from now; never shortens the hold")


class SettlementBody(BaseModel):
    """A request to settle usage that happened."""

    usage: Usage
    final: bool = Field(default=True, strict=True, description="true: release the rest of the hold")
    outcome: str = Field(default="completed", pattern=f"^({'|'.join(OUTCOMES)})$", description="as in a usage event")
    time: TimeUs | None = Field(default=None, description="time when the usage completed; default: now")


class HeldBucket(BaseModel):
    """The quantity that is held of one bucket."""

    grant_id: str = Field(description="bucket id")
    reserved: Decimal = Field(description="held quantity in the unit of the bucket")


class HeldParts(BaseModel):
    """The money and quota that a hold keeps at this moment."""

    wallet: Decimal = Field(description="money held of the wallet")
    buckets: list[HeldBucket] = Field(description="quota held, by bucket id")


class Reservation(BaseModel):
    """A reservation."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="id to send as `data.reservation` of the usage event")
    account: str = Field(description="account id")
    state: str = Field(description="`open`, `expired`, `closed` (its usage was burned) or `released`")
    usage: dict[str, int] = Field(description="greatest counts that the reservation covers")
    partial: bool = Field(description="true if less was granted than requested")
    amount: Decimal = Field(description="price of these counts")
    standard_tokens: Decimal = Field(description="standard tokens of these counts")
    reserved: HeldParts
    created: str = Field(description="time of creation")
    expires: str = Field(description="time of expiry")


class SentEvent(BaseModel):
    """The usage event of a settlement, with its place in Kafka."""

    source: str = Field(description="source of the event")
    id: str = Field(description="id of the event")
    partition: int = Field(description="Kafka partition of the event")
    offset: int | None = Field(
        description="Kafka offset of the event; null if it was decided before this request, and not sent again"
    )


class Settlement(BaseModel):
    """A recorded settlement."""

    reservation: Reservation
    event: SentEvent


async def read_body(request: Request, model: type[BaseModel]) -> tuple[Any, ParsedBody]:
    """Return the body as a model, and as it was parsed.

    Raises:
        Problem: ``invalid_request``, ``invalid_data``, ``unsupported_media_type``.
    """
    body = await read_json(request, wire_names(model))
    try:
        return model.model_validate(body), body
    except ValidationError as error:
        # JSON Schema accepts 5.0 as an integer and a time in the year 1056; neither can be stored.
        first = error.errors(include_url=False)[0]
        held = not isinstance(first["input"], JsonReal) and first["loc"] != ("time",)
        raise Problem("invalid_request" if held else "invalid_data", f"{explain(error, model, '')}.") from None


def counts_of(usage: dict[str, Any], *, may_be_empty: bool = False) -> Counts:
    """Return the counts of a body in canonical order.

    Raises:
        Problem: ``invalid_data``, ``nothing_asked``, ``usage_mismatch``, ``overflow``.
    """
    try:
        counts = plain_counts(usage, "usage")
    except Refused as problem:
        code = "invalid_data" if problem.refusal.code == "invalid_event" else problem.refusal.code
        raise Problem(code, f"{problem}.") from None
    if not counts and not may_be_empty:
        raise Problem("nothing_asked", "usage counts nothing: expected at least one meter with a count above 0.")
    return counts


def terms_of(body: ReservationBody) -> Terms:
    """Return the terms of a hold with the dimensions of a body."""
    names = ("model", "hardware_tier", "energy_source", "site", "channel", "service_tier", "member", "request_id")
    given = {name: value for name in names if (value := getattr(body, name)) is not None}
    return Terms({**given, "outcome": "completed"}, attributes=body.attributes)


async def make_hold(
    request: Request, caller: Caller, body: ReservationBody, given: ParsedBody, kind: str, prefix: str, key: str | None
) -> tuple[Hold, int]:
    """Make the hold that a body requests. Return it with the time of the decision (microseconds UTC)."""
    digest = digest_of_body(given) if key else ""  # without a key the request cannot be repeated
    caller.check_account(body.account)
    counts = counts_of(body.usage)
    hold_id = new_id(prefix, caller, key)
    asked = Hold(hold_id, body.account, kind, HOLD_OPEN, NOTHING, terms_of(body), 0, 0)
    validity_us = body.validity_seconds * SECOND_US

    def decide(context: HoldContext) -> tuple[Hold | Refusal, int]:
        return reserve(context, asked, counts, validity_us, digest, body.accept_partial), context.now_us

    decided, now_us = await holding_of(request).queue.run(
        Operation(body.account, (hold_id,), decide, fresh=key is None)
    )
    if isinstance(decided, Refusal):
        raise problem_of(decided)
    return decided, now_us


def key_of(request: Request) -> str | None:
    """Return the idempotency key; None if none was sent.

    Raises:
        Problem: ``invalid_request``.
    """
    key = header_of(request, b"idempotency-key")
    if key is not None and not _KEY.fullmatch(key):
        raise Problem("invalid_request", KEY_EXPECTED)
    return key


async def on_hold(request: Request, hold_id: str, wanted: tuple[str, ...], decide: Any) -> Any:
    """Decide an operation on a hold whose account the caller may use. Return the result and the time of the decision.

    Raises:
        Problem: ``unknown_reservation``, ``other_account``, or the refusal.
    """
    caller = reserving_caller(request)
    holding: Holding = holding_of(request)
    account = await holding.queue.book.find_account(hold_id)
    if account is None:
        raise Problem("unknown_reservation", f"There is no reservation {hold_id[:80]!r}.")
    caller.check_account(account)
    decided, now_us = await holding.queue.run(
        Operation(account, wanted, lambda context: (decide(context), context.now_us))
    )
    if isinstance(decided, Refusal):
        raise problem_of(decided)
    return decided, now_us


GRANTING = (
    "insufficient_balance",
    "package_exhausted",
    "no_price",
    "no_price_book",
    "overflow",
    "usage_mismatch",
    "nothing_asked",
    "invalid_data",
)
_ON_ONE = ("unknown_reservation", "other_account")


@router.post(
    "",
    status_code=201,
    response_model=Reservation,
    responses=responses(
        *GRANTING, "unknown_account", "account_closed", "other_account", "idempotency_key_reused",
        "unsupported_media_type", "too_large",
    ),
    openapi_extra=described(strict_schema(ReservationBody)),
)  # fmt: skip
async def reserve_quota(request: Request, key: Key = None) -> Response:
    """Hold what the greatest usage of a request would cost. Send the id with the usage event: it closes the hold."""
    key = key_of(request)  # read again: this route bypasses FastAPI
    caller = reserving_caller(request)
    body, given = await read_body(request, ReservationBody)
    hold, now_us = await make_hold(request, caller, body, given, RESERVATION, "rsv", key)
    return json_answer(hold_object(hold, now_us), 201, {"location": f"{PATH}/{hold.reservation_id}"})


@router.get("/{reservation}", response_model=Reservation, responses=responses(*_ON_ONE))
async def show_reservation(request: Request, reservation: ReservationId) -> Response:
    """Return a reservation. A reservation that ended is kept for a day."""
    hold, now_us = await on_hold(request, reservation, (reservation,), lambda context: find(context, reservation))
    return json_answer(hold_object(hold, now_us))


@router.post(
    "/{reservation}/extend",
    response_model=Reservation,
    responses=responses(
        *_ON_ONE, *GRANTING, "account_closed", "reservation_expired", "reservation_closed", "idempotency_key_reused",
        "too_many_steps",        "unsupported_media_type", "too_large",
    ),
    openapi_extra=described(strict_schema(ExtensionBody)),
)  # fmt: skip
async def extend_reservation(request: Request, reservation: ReservationId, key: Key = None) -> Response:
    """Hold more usage, or hold it longer. If the extension is refused, the hold stays as it was."""
    reserving_caller(request)
    body, given = await read_body(request, ExtensionBody)
    digest = digest_of_body(given)
    more = counts_of(body.usage, may_be_empty=True)
    if not more and body.validity_seconds is None:
        raise Problem("nothing_asked", "Expected usage, validity_seconds, or both.")
    validity_us = None if body.validity_seconds is None else body.validity_seconds * SECOND_US
    step = f"extend {key}" if key else None
    hold, now_us = await on_hold(
        request,
        reservation,
        (reservation,),
        lambda context: extend(context, reservation, more, validity_us, step, digest),
    )
    return json_answer(hold_object(hold, now_us))


@router.post("/{reservation}/release", response_model=Reservation, responses=responses(*_ON_ONE))
async def release_reservation(request: Request, reservation: ReservationId) -> Response:
    """Release everything that is held. A reservation that ended does not change."""
    hold, now_us = await on_hold(request, reservation, (reservation,), lambda context: release(context, reservation))
    return json_answer(hold_object(hold, now_us))


@router.post(
    "/{reservation}/settle",
    response_model=Settlement,
    responses=responses(
        *_ON_ONE, "reservation_expired", "reservation_closed", "idempotency_key_reused", "idempotency_key_required",
        "usage_mismatch", "unknown_meter", "nothing_asked", "invalid_data", "overflow", "time_in_future",
        "time_too_old", "no_price_book", "no_price", "kafka_down", "unsupported_media_type", "too_large",
    ),
    openapi_extra=described(strict_schema(SettlementBody)),
)  # fmt: skip
async def settle_reservation(request: Request, reservation: ReservationId, key: Key = None) -> Response:
    """Record usage that happened: all of it when a request ends or is cut off, or a part of it (`final` false).

    Usage under a reservation that ended is recorded as well. The answer is then the problem `reservation_expired` or
    `reservation_closed`, with `recorded` true. Usage that the pipeline would reject for its time, a meter or its price
    is refused; then nothing is recorded, and the reservation stays as it was.
    """
    reserving_caller(request)
    body, given = await read_body(request, SettlementBody)
    digest = digest_of_body(given)
    used = counts_of(body.usage)
    step = key or "final"
    part = f"{reservation}/{step}"

    def decide(context: HoldContext) -> Settled | Refusal:
        if key is None and not body.final:
            return Refusal("idempotency_key_required", "a settlement that is not final may be one of several: name it")
        return settle(
            context, reservation, used, step, digest, final=body.final, outcome=body.outcome, time_us=body.time
        )

    settled, now_us = await on_hold(request, reservation, (reservation, part), decide)
    account = settled.hold.account
    holding = holding_of(request)
    offset = None if settled.decided else (await holding.send([(account, settled.event)]))[0]
    sent = holding.sent(part, account, offset)
    if settled.problem is not None:
        raise problem_of(settled.problem, recorded=True, event=sent)
    return json_answer({"reservation": hold_object(settled.hold, now_us), "event": sent})
