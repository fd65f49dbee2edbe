"""Routes that read rejected usage events.

An event is sent again with ``tokenbill suspense resubmit``, or to ``/v1/usage``.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.store.api.suspense_reads import list_suspense, read_suspense
from billing.store.suspense_records import Wanted
from billing.suspense import STATES, RecordPlace, held_object, listed_object
from schemas.refusal_codes import REASONS
from tokenbill.api.context import Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Reader
from tokenbill.api.http.pages import Cursor, Limit, read_row_key
from tokenbill.api.http.problems import responses
from tokenbill.api.kept_record_answers import (
    KeptContent,
    KeptRow,
    OfAccount,
    Offset,
    Partition,
    Topic,
    page_answer,
    record_at,
)

router = APIRouter(prefix="/v1/suspense", tags=["suspense"])


class SuspenseRow(KeptRow):
    """A rejected event without its bytes."""

    reason: str = Field(description="reason code of the rejection", pattern=f"^({'|'.join(REASONS)})$")
    detail: str = Field(description="explanation of the reason")
    source: str | None = Field(description="source of the event, if readable")
    id: str | None = Field(description="id of the event, if readable")
    account: str | None = Field(description="account of the event, if readable")
    state: str = Field(
        description="open; resubmitted: not decided yet; rated: now or before; rejected_again: a new row replaces it",
        pattern=f"^({'|'.join(STATES)})$",
    )
    sent_to: str | None = Field(description="place in Kafka of the resubmitted record")


class SuspensePage(BaseModel):
    """A page of rejected events, sorted by partition and by order of rejection."""

    items: list[SuspenseRow] = Field(description="events of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class AdviceBody(BaseModel):
    """The recommended action for a rejection reason."""

    zh: str = Field(description="in Chinese")
    en: str = Field(description="in English")


class SuspenseEvent(SuspenseRow, KeptContent):
    """A rejected event with its bytes, headers and advice."""

    sequence: int | None = Field(description="sequence number of the event, if readable")
    advice: AdviceBody = Field(description="recommended action")


@router.get("", response_model=SuspensePage, responses=responses("invalid_cursor", "other_account"))
async def suspense(
    shared: Shared,
    caller: Reader,
    reason: Annotated[
        str | None, Query(pattern=f"^({'|'.join(REASONS)})$", description="events with this reason")
    ] = None,
    account: OfAccount = None,
    resolved: Annotated[bool, Query(description="also resubmitted events")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """List rejected usage events. A key that is bound to one account sees only the events that name it."""
    if account is not None:
        caller.check_account(account)
    wanted = Wanted(reason, account or caller.account, only_open=not resolved)
    rows = await list_suspense(shared.database, wanted, read_row_key(cursor), limit + 1)
    return page_answer(rows, limit, listed_object)


@router.get(
    "/{topic}/{partition}/{offset}",
    response_model=SuspenseEvent,
    responses=responses("unknown_suspense", "other_account"),
)
async def suspended(shared: Shared, caller: Reader, topic: Topic, partition: Partition, offset: Offset) -> Any:
    """Return one rejected event with its bytes and advice."""
    place = RecordPlace(topic, partition, offset)
    about, held = await record_at(shared.database, read_suspense, place, "unknown_suspense")
    if caller.account is not None:
        caller.check_account(about.account or "")
    return json_answer(listed_object(about) | held_object(held))
