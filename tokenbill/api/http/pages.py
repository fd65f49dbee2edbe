"""Pagination by an opaque cursor that encodes the last row seen, so that rows added meanwhile shift no page."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from schemas.fields import MAX_TEXT_BYTES
from tokenbill.api.http.problems import Problem

MAX_PAGE_ROWS = 1_000
PageRow = TypeVar("PageRow")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_ROWS, description="maximum number of rows in a page")]
Cursor = Annotated[
    str | None,
    Query(max_length=4 * MAX_TEXT_BYTES, description="`next_cursor` of the previous page; empty: the first page"),
]


def write_cursor(last: str) -> str:
    """Return the cursor of the page that follows a row."""
    return base64.urlsafe_b64encode(b"a" + last.encode()).decode().rstrip("=")


def page(items: Sequence[PageRow], limit: int, name_of: Callable[[PageRow], str]) -> tuple[list[PageRow], str | None]:
    """Return the first ``limit`` items, and the cursor of the next page or None.

    The caller fetches ``limit + 1`` items: one too many shows that there is a next page.
    """
    kept = list(items[:limit])
    return kept, write_cursor(name_of(kept[-1])) if len(items) > limit else None


def write_row_key(key: tuple[int, int, int]) -> str:
    """Return the text of the key (partition, commit, row) of a row that a commit wrote, for :func:`page`."""
    return "/".join(map(str, key))


def read_row_key(cursor: str | None) -> tuple[int, int, int]:
    """Return the key of the last row of the previous page; before the first page, one that is below all.

    Raises:
        Problem: ``invalid_cursor``.
    """
    last = read_cursor(cursor)
    if not last:
        return (-1, 0, 0)
    row = re.fullmatch(r"(\d{1,9})/(\d{1,18})/(\d{1,9})", last, re.ASCII)
    if row is None:
        raise Problem("invalid_cursor", f"cursor is {cursor!r}: expected `next_cursor` of the page before.")
    return (int(row[1]), int(row[2]), int(row[3]))


def read_cursor(cursor: str | None) -> str:
    """Return the last row of the previous page; empty before the first page.

    Raises:
        Problem: ``invalid_cursor``.
    """
    if cursor is None:
        return ""
    try:
        given = cursor.encode("ascii")
        text = base64.b64decode(given + b"=" * (-len(given) % 4), b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError, ValueError):
        text = ""
    if not text.startswith("a") or len(text) < 2 or "\0" in text:
        raise Problem("invalid_cursor", f"cursor is {cursor!r}: expected `next_cursor` of the page before.")
    return text[1:]
