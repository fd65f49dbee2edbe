"""Route that takes usage events and sends them to Kafka unchanged.

What the engine would reject for the event itself is refused, by the engine's rules (:mod:`billing.decide.admission`).
Usage that happened is never refused because of the state of its account: it is recorded, and the answer carries a
warning.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.accounts.account import ACCOUNT_CLOSED
from billing.decide.admission import refused_at_the_door
from billing.store.api.catalog_reads import AccountTerms, account_terms
from billing.store.api.decided_usage import (
    DECIDED_CONFLICT,
    DECIDED_DUPLICATE,
    DECIDED_RATED,
    DECIDED_REJECTED,
    DecidedUsage,
    decided_usage,
)
from billing.suspense import RecordPlace
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.schema_documents import Schema, event_schema
from schemas.topics import USAGE_TOPIC
from schemas.usage import USAGE_TYPE, UsageData, UsageEvent, parse_usage
from streams.send.sender import Outgoing
from streams.stream_errors import DeliveryFailed
from tokenbill.api.catalogue_routes import Edition
from tokenbill.api.context import ApiContext, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.bodies import JSON
from tokenbill.api.http.event_bodies import BATCH_MEDIA_TYPE, MAX_EVENTS, STRUCTURED, RawEvent, read_events
from tokenbill.api.http.prefer import wait_seconds
from tokenbill.api.http.problems import URN, Problem, code_row, responses
from tokenbill.api.outcomes import FIRST_LOOK_SECONDS, MAX_PAUSE_SECONDS
from tokenbill.usage_settings import notes_unknown_usage

router = APIRouter(prefix="/v1", tags=["usage"])

Sender = Annotated[Caller, Depends(needs("ingest"))]
Wait = Annotated[
    str | None,
    Header(
        alias="Prefer", max_length=200, description="`wait=N`: seconds to wait for the decision of one event, 0 to 30"
    ),
]
_FIELD = re.compile(r"[a-z_]+(?:\.[a-z_0-9]+)*(?= is )")


class Warning(BaseModel):
    """The reason why a recorded event will not be billed, unless its account changes before the event is decided."""

    code: str = Field(description="`unknown_account` or `account_closed`")
    detail: str = Field(description="explanation")


class EventProblem(BaseModel):
    """The problem of an event that was not accepted."""

    type: str = Field(description="`urn:tokenbill:problem:` and the code")
    title: str = Field(description="title of the code")
    status: int = Field(description="HTTP status of the answer if the event were sent alone")
    code: str = Field(description="problem code")
    detail: str = Field(description="field, value and what was expected")
    field: str | None = Field(description="field at fault, if any")


class Decision(BaseModel):
    """The decision of an event."""

    outcome: str = Field(
        description="`rated`; `duplicate`: rated before; `conflict`: rated before with other content; `rejected`",
        pattern=f"^({'|'.join((DECIDED_RATED, DECIDED_DUPLICATE, DECIDED_CONFLICT, DECIDED_REJECTED))})$",
    )
    reason: str | None = Field(description="reason of a rejection")
    detail: str | None = Field(description="explanation of a rejection")


class Taken(BaseModel):
    """The result of one event."""

    index: int = Field(description="position of the event in the request, from 0", ge=0)
    accepted: bool = Field(description="true if Kafka has acknowledged the event")
    source: str | None = Field(description="source of the event, if readable")
    id: str | None = Field(description="id of the event, if readable")
    account: str | None = Field(description="account of the event, if readable")
    partition: int | None = Field(description="Kafka partition of the event")
    offset: int | None = Field(description="Kafka offset of the event")
    warning: Warning | None = Field(description="set if the event is recorded but may not be billed")
    problem: EventProblem | None = Field(description="set if the event was not accepted")
    decision: Decision | None = Field(
        description="what became of a lone event, if the request waits (`Prefer: wait=N`) and it was decided in time"
    )


class TakenBody(BaseModel):
    """The results of the events of a request, in the order of the request."""

    accepted: int = Field(description="number of events that Kafka has acknowledged", ge=0)
    refused: int = Field(description="number of events that were not accepted", ge=0)
    results: list[Taken] = Field(description="one result for each event")


@dataclass(slots=True)
class _Element:
    """An event of a request. ``sent`` is its offset in Kafka, ``failure`` the code and detail of its problem."""

    event: UsageEvent | Refusal
    outgoing: Outgoing | None = None
    sent: int | None = None
    failure: Refusal | None = None
    decision: DecidedUsage | None = None


def _content() -> dict[str, Any]:
    event = event_schema(USAGE_TYPE, UsageData)
    del event["$schema"], event["$id"]
    return {
        STRUCTURED: {"schema": event},
        BATCH_MEDIA_TYPE: {"schema": {"type": "array", "items": event, "maxItems": MAX_EVENTS}},
        JSON: {"schema": UsageData.model_json_schema(by_alias=True)},
    }


def _header(name: str, description: str) -> Schema:
    return {
        "name": f"ce-{name}",
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": f"in binary mode: {description}",
    }


_HEADERS = [
    _header("specversion", "1.0"),
    _header("type", USAGE_TYPE),
    _header("source", "source of the event"),
    _header("id", "id of the event within its source"),
    _header("time", "time when the request completed, RFC 3339"),
    _header("subject", "account id"),
    _header("sequence", "sequence number within the source"),
]


@router.post(
    "/usage",
    status_code=202,
    response_model=TakenBody,
    response_description="Kafka has acknowledged every event: each is rated once, or kept in suspense with a reason",
    openapi_extra={"requestBody": {"required": True, "content": _content()}, "parameters": _HEADERS},
    responses={
        207: {"model": TakenBody, "description": "Some events of the batch were not accepted: see `results`"},
        **responses(
            *("invalid_json", "invalid_event", "usage_mismatch", "unknown_meter", "overflow", "other_account"),
            *("time_in_future", "time_too_old", "no_price_book", "no_price", "source_not_allowed"),
            *("too_many_events", "nothing_taken", "too_large", "unsupported_media_type", "kafka_down"),
        ),
    },
)
async def usage(request: Request, shared: Shared, caller: Sender, prefer: Wait = None) -> Response:
    """Send usage: one CloudEvent (structured or binary), or a batch of at most 1,000.

    An event may be sent again unchanged: it is billed once. For one event, `Prefer: wait=N` waits up to N seconds for
    its decision: `decision` in the result is then `rated`, `duplicate`, `conflict` or `rejected` with the reason.
    """
    batch, given = await read_events(request)
    edition = await shared.catalogue.current()
    elements = [_judge(one, caller, shared.partitions, edition) for one in given]
    terms = await account_terms(shared.database, [one.event.account for one in elements if one.event.account])
    _refuse_known(elements, terms, edition)
    await _send(shared, elements)
    if not batch and prefer is not None:
        await _wait(shared, elements[0], wait_seconds(prefer))
    if not batch and elements[0].failure is not None:
        raise Problem(elements[0].failure.code, f"{elements[0].failure.detail}.")
    if elements and all(one.failure is not None and one.failure.code == "kafka_down" for one in elements):
        raise Problem("kafka_down", "Kafka took none of the events; send them again as they are.")
    results = [_result(at, one, terms) for at, one in enumerate(elements)]
    refused = sum(1 for one in elements if one.failure is not None)
    if elements and refused == len(elements):
        raise Problem("nothing_taken", "Each event has a problem of its own, in `results`.", results=results)
    body = {"accepted": len(elements) - refused, "refused": refused, "results": results}
    return json_answer(body, 207 if refused else 202)


def _judge(given: RawEvent, caller: Caller, partitions: int, edition: Edition) -> _Element:
    """Validate an event with the pipeline's parser; return it ready to be sent, or with the reason of its refusal."""
    event = parse_usage(
        given.value,
        given.headers,
        declared_meters=edition.declared_meters,
        declared_attributes=edition.declared_attributes,
        note_unknown=notes_unknown_usage(),
    )
    if isinstance(event, Refusal):
        return _Element(event, failure=event)
    if caller.account not in (None, event.account):
        return _Element(event, failure=Refusal("other_account", f"The key is for account {caller.account!r} only"))
    barred = caller.barred_source(event.source)
    if barred is not None:
        return _Element(event, failure=Refusal("source_not_allowed", barred))
    partition = partition_of(event.account, partitions)
    return _Element(event, Outgoing(USAGE_TOPIC, partition, event.account.encode(), given.value, given.headers))


def _refuse_known(elements: list[_Element], terms: dict[str, AccountTerms], edition: Edition) -> None:
    """Refuse the events that the engine would reject for their time or price."""
    now_us = time.time_ns() // 1000
    for element in elements:
        event = element.event
        if element.failure is None and isinstance(event, UsageEvent):
            known = terms.get(event.account)
            book = None if known is None else known.price_book
            element.failure = refused_at_the_door(event, book, now_us, edition.usage_rules)
            if element.failure is not None:
                element.outgoing = None


async def _send(shared: ApiContext, elements: list[_Element]) -> None:
    going = [one for one in elements if one.outgoing is not None]
    sent = await shared.sender.send([one.outgoing for one in going if one.outgoing is not None])
    for element, result in zip(going, sent, strict=True):
        if isinstance(result, DeliveryFailed):
            element.failure = Refusal("kafka_down", f"{result}. It may have been written: send it again as it is")
        else:
            element.sent = result


async def _wait(shared: ApiContext, element: _Element, seconds: int) -> None:
    """Wait until the event of an element is decided, at most ``seconds``."""
    if element.sent is None or element.outgoing is None or isinstance(element.event, Refusal):
        return
    place = RecordPlace(USAGE_TOPIC, element.outgoing.partition, element.sent)
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + seconds, FIRST_LOOK_SECONDS
    while True:
        element.decision = await decided_usage(shared.database, place, element.event)
        left = deadline - loop.time()
        if element.decision is not None or left <= 0:
            return
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, MAX_PAUSE_SECONDS)


def _result(at: int, element: _Element, terms: dict[str, AccountTerms]) -> dict[str, Any]:
    event, sent = element.event, element.sent
    return {
        "index": at,
        "accepted": sent is not None,
        "source": event.source,
        "id": event.id,
        "account": event.account,
        "partition": element.outgoing.partition if element.outgoing is not None and sent is not None else None,
        "offset": sent,
        "warning": _warning(str(event.account), terms) if sent is not None else None,
        "problem": None if element.failure is None else _problem(element.failure),
        "decision": None if element.decision is None else asdict(element.decision),
    }


def _warning(account: str, terms: dict[str, AccountTerms]) -> dict[str, str] | None:
    known = terms.get(account)
    if known is None:
        detail = f"account {account!r} was never opened: the event is kept apart until it is, and sent again"
        return {"code": "unknown_account", "detail": detail}
    if known.status == ACCOUNT_CLOSED:
        return {"code": "account_closed", "detail": f"account {account!r} is closed: the event is kept, unbilled"}
    return None


def _problem(refusal: Refusal) -> dict[str, Any]:
    row, detail = code_row(refusal.code), f"{refusal.detail}."
    found = _FIELD.match(detail)
    return {
        "type": URN + row.code,
        "title": row.title,
        "status": row.status,
        "code": row.code,
        "detail": detail,
        "field": found[0] if found else None,
    }
