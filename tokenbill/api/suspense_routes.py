"""Routes that read rejected usage events.

An event is sent again with ``tokenbill suspense resubmit``, or to ``/v1/usage``.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.store.api.suspense_reads import list_suspense, read_suspense
from billing.store.suspense_records import Wanted
from billing.suspense import STATES, RecordPlace, held_object, listed_object
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN
from schemas.refusal_codes import REASONS
from tokenbill.api.context import Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Reader
from tokenbill.api.http.pages import Cursor, Limit, page, read_row_key, write_row_key
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/v1/suspense", tags=["suspense"])

Topic = Annotated[
    str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="topic of the record")
]
Partition = Annotated[int, Path(ge=0, lt=2**31, description="partition of the rejected record")]
Offset = Annotated[int, Path(ge=0, lt=2**63, description="offset of the rejected record")]


class SuspenseRow(BaseModel):
    """A rejected event without its bytes."""

    place: str = Field(description="id of the rejected event: its place in Kafka, TOPIC/PARTITION/OFFSET")
    topic: str = Field(description="topic of the record")
    partition: int = Field(description="partition of the record")
    offset: int = Field(description="offset of the record")
    time: str = Field(description="Kafka timestamp of the record")
    reason: str = Field(description="reason code of the rejection", pattern=f"^({'|'.join(REASONS)})$")
    detail: str = Field(description="explanation of the reason")
    source: str | None = Field(description="source of the event, if readable")
    id: str | None = Field(description="id of the event, if readable")
    account: str | None = Field(description="account of the event, if readable")
    bytes: int = Field(description="size of the record's value in bytes")
    state: str = Field(
        description="open; resubmitted: not decided yet; rated: now or before; rejected_again: a new row replaces it",
        pattern=f"^({'|'.join(STATES)})$",
    )
    sent_to: str | None = Field(description="place in Kafka of the resubmitted record")
    resolved_by: str | None = Field(description="person who resubmitted the event")
    resolved_at: str | None = Field(description="time of the resubmission")


class SuspensePage(BaseModel):
    """A page of rejected events, sorted by partition and by order of rejection."""

    items: list[SuspenseRow] = Field(description="events of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class Content(BaseModel):
    """Bytes, as text if they are printable text, otherwise as base64."""

    text: str = Field(default="", description="as text")
    base64: str = Field(default="", description="as base64")


class SuspenseHeader(BaseModel):
    """A header of the rejected record."""

    name: str = Field(description="header name")
    content: Content | None = Field(description="header value; null if there is none")


class AdviceBody(BaseModel):
    """The recommended action for a rejection reason."""

    zh: str = Field(description="in Chinese")
    en: str = Field(description="in English")


class SuspenseEvent(SuspenseRow):
    """A rejected event with its bytes, headers and advice."""

    sequence: int | None = Field(description="sequence number of the event, if readable")
    key: Content | None = Field(description="key of the record; null if there is none")
    headers: list[SuspenseHeader] = Field(description="headers of the record")
    value: Content | None = Field(description="value of the record as received; null if there is none")
    advice: AdviceBody = Field(description="recommended action")


@router.get("", response_model=SuspensePage, responses=responses("invalid_cursor", "other_account"))
async def suspense(
    shared: Shared,
    caller: Reader,
    reason: Annotated[
        str | None, Query(pattern=f"^({'|'.join(REASONS)})$", description="events with this reason")
    ] = None,
    account: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="events of this account"),
    ] = None,
    resolved: Annotated[bool, Query(description="also resubmitted events")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """List rejected usage events. A key that is bound to one account sees only the events that name it."""
    if account is not None:
        caller.check_account(account)
    wanted = Wanted(reason, account or caller.account, only_open=not resolved)
    rows = await list_suspense(shared.database, wanted, read_row_key(cursor), limit + 1)
    found, more = page(rows, limit, lambda row: write_row_key(row.key))
    return json_answer({"items": [listed_object(row) for row in found], "next_cursor": more})


@router.get(
    "/{topic}/{partition}/{offset}",
    response_model=SuspenseEvent,
    responses=responses("unknown_suspense", "other_account"),
)
async def suspended(shared: Shared, caller: Reader, topic: Topic, partition: Partition, offset: Offset) -> Any:
    """Return one rejected event with its bytes and advice."""
    place = RecordPlace(topic, partition, offset)
    found = await read_suspense(shared.database, place) if "\0" not in topic else None
    if found is None:
        raise Problem("unknown_suspense", f"No event was rejected at {place}.")
    about, held = found
    if caller.account is not None:
        caller.check_account(about.account or "")
    return json_answer(listed_object(about) | held_object(held))
