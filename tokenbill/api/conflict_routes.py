"""Routes of conflicts: usage that was sent again with other content is listed, shown and resolved."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from pydantic_core import PydanticCustomError

from billing.conflicts import (
    CONFLICT_SOURCE,
    CONFLICT_STATES,
    CORRECT_COUNTS,
    CORRECTED,
    KEEP_FIRST,
    KEPT_FIRST,
    ConflictContent,
    ListedConflict,
    conflict_object,
    content_objects,
    correction_data,
    differences,
    usage_object,
)
from billing.store.api.conflict_reads import list_conflicts, read_conflict, resolving
from billing.store.conflict_records import WantedConflicts
from billing.suspense import RecordPlace
from schemas.cloudevents import write_structured
from schemas.commands import CorrectUsage, parse_command
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN, check_name, show
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC
from schemas.usage import UsageEvent, parse_usage
from streams.send.sender import Outgoing, own_record
from streams.stream_errors import DeliveryFailed
from tokenbill.api.context import ApiContext, Shared
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.auth import Caller, Reader, needs
from tokenbill.api.http.bodies import described, read_json, strict_schema, wire_names
from tokenbill.api.http.pages import Cursor, Limit, read_row_key
from tokenbill.api.http.problems import Problem, responses
from tokenbill.api.kept_record_answers import (
    KeptContent,
    KeptRow,
    OfAccount,
    Offset,
    Partition,
    Topic,
    known_at,
    page_answer,
    record_at,
)
from tokenbill.api.replaying import replay

router = APIRouter(prefix="/v1/conflicts", tags=["conflicts"])
resolutions = APIRouter(prefix="/v1/conflicts", tags=["conflict resolutions"])

_UNKNOWN = "unknown_conflict"
Corrector = Annotated[Caller, Depends(needs("correct"))]


class ConflictRow(KeptRow):
    """Usage that was sent again with other content, without its bytes."""

    account: str = Field(description="account of the event")
    source: str = Field(description="source of the event")
    id: str = Field(description="id of the event")
    sequence: int | None = Field(description="sequence number of the event, if it has one")
    state: str = Field(
        description="open; kept: what was rated first stands; correcting: a correction was sent; corrected",
        pattern=f"^({'|'.join(CONFLICT_STATES)})$",
    )
    reason: str | None = Field(description="why it was resolved so")


class ConflictPage(BaseModel):
    """A page of conflicts, sorted by partition and by order of decision."""

    items: list[ConflictRow] = Field(description="conflicts of this page")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last page")


class RatedFirst(BaseModel):
    """The usage that was rated under the identity."""

    usage: dict[str, Any] = Field(description="the usage event as it was sent, with disjoint counts")
    offset: int = Field(description="offset of its record")
    time: str = Field(description="log time at which it was decided")
    corrections: list[dict[str, Any]] = Field(description="voids and corrections of it since")


class FirstUnknown(BaseModel):
    """The reason why what was rated first is not known."""

    problem: str = Field(description="`history_not_kept`, `history_too_long`, `kafka_down` or `database_down`")
    detail: str = Field(description="explanation")


class ConflictEvent(ConflictRow, KeptContent):
    """A conflict with both contents."""

    first: RatedFirst | None = Field(description="what was rated first; null if it is not known")
    second: dict[str, Any] = Field(description="the usage event that was sent again, with disjoint counts")
    differs: list[str] | None = Field(description="fields in which they differ; null if the first is not known")
    first_unknown: FirstUnknown | None = Field(description="why the first is not known; null if it is")


class ResolutionBody(BaseModel):
    """A resolution of a conflict."""

    outcome: str = Field(
        description="keep: what was rated first stands; correct: its counts are replaced by those sent again",
        pattern=f"^({KEEP_FIRST}|{CORRECT_COUNTS})$",
    )
    reason: str = Field(description="why", min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN)


@router.get("", response_model=ConflictPage, responses=responses("invalid_cursor", "other_account"))
async def conflicts(
    shared: Shared,
    caller: Reader,
    account: OfAccount = None,
    resolved: Annotated[bool, Query(description="also resolved conflicts")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """List usage that was sent again with other content. A key that is bound to one account sees only its conflicts."""
    if account is not None:
        caller.check_account(account)
    wanted = WantedConflicts(account or caller.account, only_open=not resolved)
    rows = await list_conflicts(shared.database, wanted, read_row_key(cursor), limit + 1)
    return page_answer(rows, limit, conflict_object)


@router.get(
    "/{topic}/{partition}/{offset}",
    response_model=ConflictEvent,
    responses=responses("unknown_conflict", "other_account", "history_too_long"),
)
async def conflict(shared: Shared, caller: Reader, topic: Topic, partition: Partition, offset: Offset) -> Response:
    """Return one conflict: what was rated first, what was sent again, and the fields in which they differ.

    What was rated first is found by replaying the partition, which takes some seconds.
    """
    place = RecordPlace(topic, partition, offset)
    about, content = await record_at(shared.database, read_conflict, place, _UNKNOWN)
    caller.check_account(about.account)
    second = usage_object(await _second(shared, about, content))
    first = await replay(shared, "rated_usage", about.account, about.source, about.id)
    known = "problem" not in first
    compared = {
        "first": first if known else None,
        "second": second,
        "differs": differences(first["usage"], second) if known else None,
        "first_unknown": None if known else first,
    }
    return json_answer(conflict_object(about) | content_objects(content) | compared)


@resolutions.post(
    "/{topic}/{partition}/{offset}/resolution",
    response_model=ConflictRow,
    openapi_extra=described(strict_schema(ResolutionBody)),
    responses=responses(
        *("unknown_conflict", "conflict_resolved", "nothing_to_correct", "invalid_data", "other_account", "too_large"),
        *("unsupported_media_type", "history_not_kept", "history_too_long", "kafka_down"),
    ),
)
async def resolve(
    request: Request, shared: Shared, caller: Corrector, topic: Topic, partition: Partition, offset: Offset
) -> Response:
    """Resolve a conflict. The outcome `correct` sends `usage.corrected.v1`, which replaces only the counts.

    Until the correction is accepted, the state is `correcting`, and the conflict may be resolved again.
    """
    place = RecordPlace(topic, partition, offset)
    outcome, reason = _decision(await read_json(request, wire_names(ResolutionBody)))
    about, content = await record_at(shared.database, read_conflict, place, _UNKNOWN)
    caller.check_account(about.account)
    _check_unresolved(about)
    record = await _correction(shared, about, content, reason) if outcome == CORRECT_COUNTS else None
    async with shared.sending, resolving(shared.database, place) as turn:
        about, _ = known_at(turn.found, place, _UNKNOWN)
        _check_unresolved(about)
        if record is not None:
            [sent] = await shared.sender.send([record])
            if isinstance(sent, DeliveryFailed):
                raise Problem("kafka_down", f"{sent}. Resolve the conflict again.")
        await turn.note(about, outcome, reason, caller.key_id)
    about, _ = await record_at(shared.database, read_conflict, place, _UNKNOWN)
    return json_answer(conflict_object(about))


def _check_unresolved(about: ListedConflict) -> None:
    if about.state in (KEPT_FIRST, CORRECTED):
        raise Problem("conflict_resolved", f"{about.place} was resolved before ({about.state}) by {about.resolved_by}.")


def _decision(body: dict[str, Any]) -> tuple[str, str]:
    outcome, reason = body.get("outcome"), body.get("reason")
    if outcome not in (KEEP_FIRST, CORRECT_COUNTS):
        raise Problem("invalid_data", f"outcome is {outcome!r}: expected {KEEP_FIRST!r} or {CORRECT_COUNTS!r}.")
    try:
        return outcome, check_name(reason)
    except PydanticCustomError as error:
        raise Problem("invalid_data", f"reason is {show(reason)}: {error.message()}.") from None


async def _second(shared: ApiContext, about: ListedConflict, content: ConflictContent) -> UsageEvent:
    headers = [(name, value) for name, value in content.headers if value is not None]
    edition = await shared.catalogue.current()
    event = parse_usage(
        content.value,
        headers,
        declared_meters=edition.declared_meters,
        declared_attributes=edition.declared_attributes,
        note_unknown=True,
    )
    if isinstance(event, Refusal):
        raise LookupError(f"the event at {about.place} was read when it was decided, and is not now: {event.detail}")
    return event


async def _correction(shared: ApiContext, about: ListedConflict, content: ConflictContent, reason: str) -> Outgoing:
    """Return the correction to send.

    Raises:
        Problem: ``nothing_to_correct``, or the reason why what was rated first is not known.
    """
    second = await _second(shared, about, content)
    first = await replay(shared, "rated_usage", about.account, about.source, about.id)
    if "problem" in first:
        raise Problem(first["problem"], first["detail"])
    if dict(second.counts) == first["usage"]["usage"]:
        differs = ", ".join(differences(first["usage"], usage_object(second)))
        raise Problem(
            "nothing_to_correct", f"The counts are those that were rated first; {differs} cannot be corrected."
        )
    data = correction_data(about, content, second, reason)
    now_us = time.time_ns() // 1000
    record = write_structured(CorrectUsage.TYPE, CONFLICT_SOURCE, str(about.place), now_us, about.account, data)
    command = parse_command(record)
    if isinstance(command, Refusal):
        raise Problem("invalid_data", f"{command.detail}.")
    to = partition_of(about.account, shared.partitions)
    return own_record(await shared.record_keys.now(), COMMAND_TOPIC, to, about.account, record)
