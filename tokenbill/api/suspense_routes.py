"""Rejected usage events. Reads only: an event is sent again by ``tokenbill suspense resubmit``, or to ``/v1/usage``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.store.api.suspense_reads import list_suspense, read_suspense
from billing.store.suspense_records import Wanted
from billing.suspense import STATES, Listed, RecordPlace, held_object, listed_object
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN
from schemas.refusal_codes import REASONS
from tokenbill.api.context import Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.pages import Cursor, Limit, page, read_cursor
from tokenbill.api.http.problems import Problem, responses

router = APIRouter(prefix="/v1/suspense", tags=["suspense"])

Reader = Annotated[Caller, Depends(needs("read"))]
Topic = Annotated[str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="its topic")]
Partition = Annotated[int, Path(ge=0, lt=2**31, description="its partition")]
Offset = Annotated[int, Path(ge=0, lt=2**63, description="its offset")]


class SuspenseRow(BaseModel):
    """A rejected event without its bytes."""

    place: str = Field(description="where it stood in Kafka, TOPIC/PARTITION/OFFSET: its id")
    topic: str = Field(description="its topic")
    partition: int = Field(description="its partition")
    offset: int = Field(description="its offset")
    time: str = Field(description="Kafka's time of it")
    reason: str = Field(description="why it was rejected, a code", pattern=f"^({'|'.join(REASONS)})$")
    detail: str = Field(description="why, for a person")
    source: str | None = Field(description="its source, where it could be read")
    id: str | None = Field(description="its id, where it could be read")
    account: str | None = Field(description="its account, where it could be read")
    bytes: int = Field(description="how large its value is")
    state: str = Field(
        description="open; resubmitted: not decided yet; rated: now or before; rejected_again: a new row replaces it",
        pattern=f"^({'|'.join(STATES)})$",
    )
    sent_to: str | None = Field(description="the place to which it was sent again")
    resolved_by: str | None = Field(description="who sent it again")
    resolved_at: str | None = Field(description="when")


class SuspensePage(BaseModel):
    """A page of rejected events, by partition and in the order of rejection."""

    items: list[SuspenseRow] = Field(description="the events")
    next_cursor: str | None = Field(description="`cursor` of the next page; null: this was the last")


class Content(BaseModel):
    """Bytes: as text where they are printable text, else as base64."""

    text: str = Field(default="", description="as text")
    base64: str = Field(default="", description="as base64")


class SuspenseHeader(BaseModel):
    """A header of the record."""

    name: str = Field(description="its name")
    content: Content | None = Field(description="its content; null: none")


class Advice(BaseModel):
    """What to do about the reason."""

    zh: str = Field(description="in Chinese")
    en: str = Field(description="in English")


class SuspenseEvent(SuspenseRow):
    """A rejected event with everything that is kept of it."""

    sequence: int | None = Field(description="its number, where it could be read")
    key: Content | None = Field(description="the record's key; null: none")
    headers: list[SuspenseHeader] = Field(description="the record's headers")
    value: Content | None = Field(description="the record's bytes as they came; null: none")
    advice: Advice = Field(description="what to do about it")


def _name(row: Listed) -> str:
    return "/".join(map(str, row.key))


def _after(cursor: str | None) -> tuple[int, int, int]:
    last = read_cursor(cursor)
    if not last:
        return (-1, 0, 0)
    row = re.fullmatch(r"(\d{1,9})/(\d{1,18})/(\d{1,9})", last, re.ASCII)
    if row is None:
        raise Problem("invalid_cursor", f"cursor is {cursor!r}: expected `next_cursor` of the page before.")
    return (int(row[1]), int(row[2]), int(row[3]))


@router.get("", response_model=SuspensePage, responses=responses("invalid_cursor", "other_account"))
async def suspense(
    shared: Shared,
    caller: Reader,
    reason: Annotated[
        str | None, Query(pattern=f"^({'|'.join(REASONS)})$", description="only with this reason")
    ] = None,
    account: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="only of this account"),
    ] = None,
    resolved: Annotated[bool, Query(description="also what was sent again")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Rejected usage events. A key for one account sees those that name it."""
    if account is not None:
        caller.check_account(account)
    wanted = Wanted(reason, account or caller.account, only_open=not resolved)
    rows = await list_suspense(shared.database, wanted, _after(cursor), limit + 1)
    found, more = page(rows, limit, _name)
    return json_answer({"items": [listed_object(row) for row in found], "next_cursor": more})


@router.get(
    "/{topic}/{partition}/{offset}",
    response_model=SuspenseEvent,
    responses=responses("unknown_suspense", "other_account"),
)
async def suspended(shared: Shared, caller: Reader, topic: Topic, partition: Partition, offset: Offset) -> Any:
    """One rejected event with its bytes, and what to do about it."""
    place = RecordPlace(topic, partition, offset)
    found = await read_suspense(shared.database, place) if "\0" not in topic else None
    if found is None:
        raise Problem("unknown_suspense", f"No event was rejected at {place}.")
    about, held = found
    if caller.account is not None:
        caller.check_account(about.account or "")
    return json_answer(listed_object(about) | held_object(held))
