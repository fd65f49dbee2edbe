"""The frame of routes on records that are kept for a person: places in paths, shared fields, pages, and one record."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from fastapi import Path, Query
from fastapi.responses import Response
from pydantic import BaseModel, Field

from billing.store.api.pool import ApiDatabase
from billing.suspense import RecordPlace
from schemas.fields import MAX_TEXT_BYTES, TEXT_PATTERN
from tokenbill.api.http.answers import json_answer
from tokenbill.api.http.pages import page, write_row_key
from tokenbill.api.http.problems import Problem

KeptRecord = TypeVar("KeptRecord")
Topic = Annotated[
    str, Path(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="topic of the record")
]
Partition = Annotated[int, Path(ge=0, lt=2**31, description="partition of the record")]
Offset = Annotated[int, Path(ge=0, lt=2**63, description="offset of the record")]
OfAccount = Annotated[
    str | None,
    Query(min_length=1, max_length=MAX_TEXT_BYTES, pattern=TEXT_PATTERN, description="records of this account"),
]


class KeptRow(BaseModel):
    """A record that is kept for a person, without its bytes."""

    place: str = Field(description="id of the record: its place in Kafka, TOPIC/PARTITION/OFFSET")
    topic: str = Field(description="topic of the record")
    partition: int = Field(description="partition of the record")
    offset: int = Field(description="offset of the record")
    time: str = Field(description="Kafka timestamp of the record")
    bytes: int = Field(description="size of the record's value in bytes")
    resolved_by: str | None = Field(description="person or key that resolved it")
    resolved_at: str | None = Field(description="time of the resolution")


class Content(BaseModel):
    """Bytes, as text if they are printable text, otherwise as base64."""

    text: str = Field(default="", description="as text")
    base64: str = Field(default="", description="as base64")


class RecordHeader(BaseModel):
    """A header of a record."""

    name: str = Field(description="header name")
    content: Content | None = Field(description="header value; null if there is none")


class KeptContent(BaseModel):
    """Key, headers and value of a record."""

    key: Content | None = Field(description="key of the record; null if there is none")
    headers: list[RecordHeader] = Field(description="headers of the record")
    value: Content | None = Field(description="value of the record as received; null if there is none")


class _Keyed(Protocol):
    @property
    def key(self) -> tuple[int, int, int]: ...


KeyedRow = TypeVar("KeyedRow", bound=_Keyed)


def page_answer(rows: Sequence[KeyedRow], limit: int, document: Callable[[KeyedRow], Mapping[str, Any]]) -> Response:
    """Return a page of records, of which one more than ``limit`` were read."""
    found, more = page(rows, limit, lambda row: write_row_key(row.key))
    return json_answer({"items": [document(row) for row in found], "next_cursor": more})


async def record_at(
    database: ApiDatabase,
    read: Callable[[ApiDatabase, RecordPlace], Awaitable[KeptRecord | None]],
    place: RecordPlace,
    unknown: str,
) -> KeptRecord:
    """Return the record at a place.

    Raises:
        Problem: ``unknown``, the code of this kind of records.
    """
    # PostgreSQL has no text with a zero character, and Kafka no such topic.
    found = await read(database, place) if "\0" not in place.topic else None
    return known_at(found, place, unknown)


def known_at(found: KeptRecord | None, place: RecordPlace, unknown: str) -> KeptRecord:
    """Return what was found at a place.

    Raises:
        Problem: nothing was; ``unknown`` is the code of this kind of records.
    """
    if found is None:
        raise Problem(unknown, f"{_NONE_AT[unknown]} {place}.")
    return found


_NONE_AT = {"unknown_suspense": "No event was rejected at", "unknown_conflict": "No conflict is at"}
