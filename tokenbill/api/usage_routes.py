"""Takes usage over HTTP and hands it to Kafka as it came. Usage that happened is never refused for what the account is:
it is recorded, and the answer warns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.accounts.account import CLOSED
from billing.store.api.catalog_reads import account_states
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.schema_documents import event_schema
from schemas.topics import USAGE_TOPIC
from schemas.usage import USAGE_TYPE, UsageData, UsageEvent, parse_usage
from streams.send.emitter import DeliveryFailed
from streams.send.sender import Outgoing
from tokenbill.api.context import Context, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.bodies import JSON, Schema
from tokenbill.api.http.event_bodies import BATCH, MAX_EVENTS, STRUCTURED, Given, read_events
from tokenbill.api.http.problems import URN, Problem, code_row, responses

router = APIRouter(prefix="/v1", tags=["usage"])

Sender = Annotated[Caller, Depends(needs("ingest"))]
_FIELD = re.compile(r"[a-z_]+(?:\.[a-z_0-9]+)*(?= is )")


class Warning(BaseModel):
    """What will keep a recorded event from being billed, unless it changes before the event is decided."""

    code: str = Field(description="unknown_account or account_closed")
    detail: str = Field(description="in words")


class Refused(BaseModel):
    """Why an event was not taken."""

    type: str = Field(description="urn:tokenbill:problem: and the code")
    title: str = Field(description="the code in words")
    status: int = Field(description="the HTTP status that it would be answered with alone")
    code: str = Field(description="the code, for programs")
    detail: str = Field(description="field, value and expectation")
    field: str | None = Field(description="the field, where one is to blame")


class Taken(BaseModel):
    """What became of one event."""

    index: int = Field(description="its place in the request, from 0", ge=0)
    accepted: bool = Field(description="whether Kafka has it")
    source: str | None = Field(description="its source, if it could be read")
    id: str | None = Field(description="its id, if it could be read")
    account: str | None = Field(description="its account, if it could be read")
    partition: int | None = Field(description="where Kafka has it")
    offset: int | None = Field(description="where Kafka has it")
    warning: Warning | None = Field(description="it is recorded, but may not be billed")
    problem: Refused | None = Field(description="why it was not taken")


class TakenBody(BaseModel):
    """What became of each event of a request, in its order."""

    accepted: int = Field(description="how many Kafka has", ge=0)
    refused: int = Field(description="how many were not taken", ge=0)
    results: list[Taken] = Field(description="one for each event")


@dataclass(slots=True)
class _Element:
    """An event on its way. ``failure`` or ``sent`` says what became of it."""

    event: UsageEvent | Refusal
    outgoing: Outgoing | None = None
    sent: int | None = None
    failure: Refusal | None = None


def _content() -> dict[str, Any]:
    event = event_schema(USAGE_TYPE, UsageData)
    del event["$schema"], event["$id"]
    return {
        STRUCTURED: {"schema": event},
        BATCH: {"schema": {"type": "array", "items": event, "maxItems": MAX_EVENTS}},
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
    _header("source", "what produced the event"),
    _header("id", "its id within the source"),
    _header("time", "when it happened, RFC 3339"),
    _header("subject", "the account"),
    _header("sequence", "its number within the source"),
]


@router.post(
    "/usage",
    status_code=202,
    response_model=TakenBody,
    response_description="Kafka has every event: each will be rated once, or kept with a reason",
    openapi_extra={"requestBody": {"required": True, "content": _content()}, "parameters": _HEADERS},
    responses={
        207: {"model": TakenBody, "description": "A batch of which some events were not taken: look at each"},
        **responses(
            *("invalid_json", "invalid_event", "usage_mismatch", "unknown_meter", "overflow", "other_account"),
            *("too_many_events", "nothing_taken", "too_large", "unsupported_media_type", "kafka_down"),
        ),
    },
)
async def usage(request: Request, shared: Shared, caller: Sender) -> Response:
    """Send usage: a CloudEvent (structured or binary), or a batch of at most 1,000.

    Sending an event again, as it was, is safe: it is billed once.
    """
    batch, given = await read_events(request)
    declared = (await shared.catalogue.current()).declared_meters
    elements = [_judge(one, caller, shared.partitions, declared) for one in given]
    states = await account_states(shared.database, [one.event.account for one in elements if one.event.account])
    await _send(shared, elements)
    if not batch and elements[0].failure is not None:
        raise Problem(elements[0].failure.code, f"{elements[0].failure.detail}.")
    if elements and all(one.failure is not None and one.failure.code == "kafka_down" for one in elements):
        raise Problem("kafka_down", "Kafka took none of the events; send them again as they are.")
    results = [_result(at, one, states) for at, one in enumerate(elements)]
    refused = sum(1 for one in elements if one.failure is not None)
    if elements and refused == len(elements):
        raise Problem("nothing_taken", "Each event has a problem of its own, in `results`.", results=results)
    body = {"accepted": len(elements) - refused, "refused": refused, "results": results}
    return json_answer(body, 207 if refused else 202)


def _judge(given: Given, caller: Caller, partitions: int, declared: frozenset[str]) -> _Element:
    """An event, ready to be sent or with the reason why not: the same reader as the pipeline's."""
    event = parse_usage(given.value, given.headers, declared_meters=declared)
    if isinstance(event, Refusal):
        return _Element(event, failure=event)
    if caller.account not in (None, event.account):
        return _Element(event, failure=Refusal("other_account", f"The key is for account {caller.account!r} only"))
    partition = partition_of(event.account, partitions)
    return _Element(event, Outgoing(USAGE_TOPIC, partition, event.account.encode(), given.value, given.headers))


async def _send(shared: Context, elements: list[_Element]) -> None:
    going = [one for one in elements if one.outgoing is not None]
    sent = await shared.sender.send([one.outgoing for one in going if one.outgoing is not None])
    for element, result in zip(going, sent, strict=True):
        if isinstance(result, DeliveryFailed):
            element.failure = Refusal("kafka_down", f"{result}. It may have been written: send it again as it is")
        else:
            element.sent = result


def _result(at: int, element: _Element, states: dict[str, str]) -> dict[str, Any]:
    event, sent = element.event, element.sent
    return {
        "index": at,
        "accepted": sent is not None,
        "source": event.source,
        "id": event.id,
        "account": event.account,
        "partition": element.outgoing.partition if element.outgoing is not None and sent is not None else None,
        "offset": sent,
        "warning": _warning(str(event.account), states) if sent is not None else None,
        "problem": None if element.failure is None else _problem(element.failure),
    }


def _warning(account: str, states: dict[str, str]) -> dict[str, str] | None:
    state = states.get(account)
    if state is None:
        detail = f"account {account!r} was never opened: the event is kept apart until it is, and sent again"
        return {"code": "unknown_account", "detail": detail}
    if state == CLOSED:
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
