"""Routes of offline grants: a signed allowance, backed by a hold, for a device that is offline.

The device reconciles its usage when it is online again. Usage that happened is always recorded: within the allowance or
beyond it, before its end or after.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.decide.admission import refused_at_the_door
from billing.reservations.hold import OFFLINE_GRANT, hold_object
from billing.reservations.operations import Operation, reconcile
from billing.store.api.catalog_reads import account_terms
from schemas.json_text import dump_json
from schemas.refusals import Refusal
from schemas.times import SECOND_US, format_time_us
from schemas.units import format_micro
from schemas.usage import parse_usage
from tokenbill.api.catalogue_routes import Edition
from tokenbill.api.context import context_of
from tokenbill.api.holds.holding import holding_of, problem_of, reserving_caller
from tokenbill.api.holds.reservations import GRANTING, Key, Reservation, ReservationBody, make_hold, read_body
from tokenbill.api.holds.signing import sign, verify
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.bodies import described, strict_schema, write_strictly
from tokenbill.api.http.problems import Problem, responses
from tokenbill.usage_settings import notes_unknown_usage

router = APIRouter(prefix="/v1/offline-grants", tags=["offline grants"])

MAX_GRANT_SECONDS = 30 * 86_400
"""Maximum validity, below the age at which an event of an unnumbered source is rejected (35 days)."""
MAX_RECONCILED_EVENTS = 1_000
_KEY_SETTING = "offline_grant_key"
GrantId = Annotated[str, Path(description="id of the grant", max_length=256)]


class OfflineGrantBody(ReservationBody):
    """A request for an offline grant: as for a reservation, with a validity of up to thirty days."""

    validity_seconds: int = Field(
        default=86_400, ge=1, le=MAX_GRANT_SECONDS, strict=True, description="validity of the allowance in seconds"
    )


class OfflineGrant(Reservation):
    """An offline grant: its hold and the signed allowance."""

    token: str = Field(description="signed allowance, JWS compact form, HS256; the device sends it back to reconcile")


class ReconciliationBody(BaseModel):
    """The usage of a device while it was offline."""

    token: str = Field(max_length=8_192, description="allowance as it was granted")
    events: list[dict[str, Any]] = Field(
        min_length=1,
        max_length=MAX_RECONCILED_EVENTS,
        description="usage events in order: CloudEvents with ids of the device",
    )


class Reconciliation(BaseModel):
    """The result of a reconciliation."""

    grant: str = Field(description="id of the grant")
    recorded: int = Field(description="number of events that Kafka has acknowledged; repeated ones are billed once")


async def _signing_key(request: Request) -> bytes:
    key: bytes | None = getattr(request.app.state, "offline_grant_key", None)
    if key is None:
        key = request.app.state.offline_grant_key = (
            await holding_of(request).queue.book.setting(_KEY_SETTING)
        ).encode()
    return key


@router.post(
    "",
    status_code=201,
    response_model=OfflineGrant,
    responses=responses(
        *GRANTING,
        "unknown_account", "account_closed", "other_account", "idempotency_key_reused", "unsupported_media_type",
        "too_large",
    ),
    openapi_extra=described(strict_schema(OfflineGrantBody)),
)  # fmt: skip
async def grant_offline(request: Request, key: Key = None) -> Response:
    """Hold quota for a device, and sign an allowance with its limits and its end."""
    caller = reserving_caller(request)
    body, given = await read_body(request, OfflineGrantBody)
    hold, now_us = await make_hold(request, caller, body, given, OFFLINE_GRANT, "off", key)
    shown = hold_object(hold, now_us)
    claims = {
        "iss": "urn:tokenbill",
        "jti": hold.reservation_id,
        "sub": hold.account,
        "usage": shown["usage"],
        "standard_tokens": format_micro(hold.terms.standard_micro),
        "standard_micro": hold.terms.standard_micro,
        "expires": format_time_us(hold.expires_us),
        "exp": hold.expires_us // SECOND_US,
    }
    token = sign(claims, await _signing_key(request))
    return json_answer({**shown, "token": token}, 201, {"location": f"/v1/reservations/{hold.reservation_id}"})


@router.post(
    "/{grant}/reconcile",
    response_model=Reconciliation,
    responses=responses(
        "invalid_token", "invalid_event", "invalid_json", "usage_mismatch", "unknown_meter", "overflow",
        "other_account", "invalid_data", "reservation_expired", "reservation_closed", "kafka_down",
        "time_in_future", "time_too_old", "no_price_book", "no_price", "unsupported_media_type", "too_large",
    ),
    openapi_extra=described(strict_schema(ReconciliationBody)),
)  # fmt: skip
async def reconcile_grant(request: Request, grant: GrantId) -> Response:
    """Record the usage of an offline device and end the hold: the last event names the hold, and its commit closes it.

    If one event cannot be read, none is accepted. Usage beyond the allowance is recorded. Usage under a grant that
    ended is recorded as well; the answer is then the problem `reservation_expired` or `reservation_closed`, with
    `recorded`.
    """
    caller = reserving_caller(request)
    body, _ = await read_body(request, ReconciliationBody)
    claims = verify(body.token, await _signing_key(request))
    if claims is None or claims["jti"] != grant:
        raise Problem("invalid_token", "token: expected the allowance that was signed for this grant.")
    account = str(claims["sub"])
    caller.check_account(account)
    shared = context_of(request)
    edition = await shared.catalogue.current()
    terms = (await account_terms(shared.database, [account])).get(account)
    book, now_us = None if terms is None else terms.price_book, time.time_ns() // 1000
    events = [_usage_of(account, book, now_us, number, event, edition) for number, event in enumerate(body.events)]
    events[-1] = dict(events[-1], data=dict(events[-1]["data"], reservation=grant))
    holding = holding_of(request)
    found = await holding.queue.run(Operation(account, (grant,), lambda context: reconcile(context, grant)))
    await holding.send([(account, dump_json(event).decode()) for event in events])
    # A hold that ended long ago is deleted; then only the signed claims identify the account.
    ended = Refusal("reservation_expired", f"grant {grant!r} expired at {claims['expires']}")
    ended_now = ended if isinstance(found, Refusal) else found[1]
    if ended_now is not None:
        raise problem_of(ended_now, recorded=len(events))
    return json_answer({"grant": grant, "recorded": len(events)})


def _usage_of(
    account: str, price_book: str | None, now_us: int, number: int, event: dict[str, Any], edition: Edition
) -> dict[str, Any]:
    """Return an event unchanged, after checking that it is usage of the account that the engine would rate.

    Raises:
        Problem: the reason of its rejection, or ``invalid_event``.
    """
    declared, noting = edition.declared_meters, notes_unknown_usage()
    read = parse_usage(write_strictly(event), declared_meters=declared, note_unknown=noting)
    if isinstance(read, Refusal):
        raise Problem(read.code, f"events[{number}]: {read.detail}.")
    if read.account != account:
        raise Problem("invalid_event", f"events[{number}]: subject is {read.account!r}: expected {account!r}.")
    rejected = refused_at_the_door(read, price_book, now_us, edition.usage_rules)
    if rejected is not None:
        raise Problem(rejected.code, f"events[{number}]: {rejected.detail}.")
    return event
