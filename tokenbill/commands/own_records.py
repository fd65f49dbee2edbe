"""``tokenbill key`` manages the record keys; ``tokenbill foreign`` shows records that no partition forwarded."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import click

from billing.store import record_key_rows as stored
from billing.store.foreign_records import ListedForeign, foreign_at, list_foreign
from billing.suspense import content_object
from schemas.times import format_time_us
from tokenbill.command_database import opened
from tokenbill.commands.kept_records import (
    PLACE,
    KindOfKept,
    bytes_option,
    data_dir_option,
    format_option,
    write_record,
)
from tokenbill.commands.table import write_rows

_KIND = KindOfKept("tokenbill foreign list", "There is no foreign record at")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
DEFAULT_KEEP_HOURS = 168
"""Kafka's default retention of the forward topics: after it, nothing signed by a former key can still be on its way."""


@click.group()
def key() -> None:
    """List and rotate the record keys, which show which records are the product's own.

    Workers, the API and the scheduler mark with them what they forward and send. The secrets are never printed.

    \b
    Example:
      tokenbill key list
    """


@key.command("list")
@_JSON
@data_dir_option
def list_keys_(as_json: bool, data_dir: Path | None) -> None:
    """List the record keys, without their secrets. The last one signs.

    \b
    Example:
      tokenbill key list
    """
    with opened(data_dir) as database:
        found = [_key_object(one) for one in stored.list_record_keys(database)]
    if as_json:
        click.echo(json.dumps(found))
        return
    write_rows(found, ("number", "created", "state", "verifies_until"), "table", sys.stdout)


@key.command()
@click.option(
    "--keep-hours",
    type=click.IntRange(min=1),
    default=DEFAULT_KEEP_HOURS,
    show_default=True,
    help="Hours for which the former key verifies records that are on their way.",
)
@_JSON
@data_dir_option
def rotate(keep_hours: int, as_json: bool, data_dir: Path | None) -> None:
    """Make a new record key. It signs from now on; every process uses it within half a minute.

    The former key verifies for --keep-hours more, measured by Kafka's clock: records that it signed must be in the log
    by then. Give fewer hours if it became known to others, and only if the relay publishes without delay.

    \b
    Example:
      tokenbill key rotate --keep-hours 24
    """
    with opened(data_dir) as database:
        made = stored.rotate_record_key(database, keep_hours * 3_600)
    if as_json:
        click.echo(json.dumps(_key_object(made)))
        return
    click.echo(f"key {made.number} signs from now on; key {made.number - 1} verifies for {keep_hours} hours more")


def _key_object(one: stored.ListedKey) -> dict[str, Any]:
    signs = one.until_us is None
    return {
        "number": one.number,
        "created": one.created_at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "state": "signs" if signs else "verifies",
        "verifies_until": None if one.until_us is None else format_time_us(one.until_us),
    }


@click.group()
def foreign() -> None:
    """Show foreign records: records on an internal topic that no partition forwarded.

    They have no effect. Each is kept permanently with its bytes; its place in Kafka identifies it.

    \b
    Example:
      tokenbill foreign list
    """


@foreign.command("list")
@format_option
@data_dir_option
def list_foreign_(written_as: str, data_dir: Path | None) -> None:
    """List foreign records, oldest first.

    \b
    Example:
      tokenbill foreign list --format json
    """
    columns = ("place", "time", "carries", "bytes")
    with opened(data_dir) as database:
        write_rows(map(_foreign_object, list_foreign(database)), columns, written_as, sys.stdout)


@foreign.command()
@click.argument("place", metavar=PLACE)
@bytes_option
@data_dir_option
def show(place: str, only_bytes: bool, data_dir: Path | None) -> None:
    """Show one foreign record as a JSON document: where it was, what it carries, headers and bytes.

    \b
    Example:
      tokenbill foreign show usage.forwarded/3/1042
    """
    at = _KIND.place(place)
    with opened(data_dir) as database:
        found = foreign_at(database, at)
    if found is None:
        raise _KIND.unknown(at)
    about, content = found

    def document() -> Mapping[str, Any]:
        return _foreign_object(about) | {
            "key": content_object(content.key),
            "headers": _headers(content.headers),
            "value": content_object(content.value),
        }

    write_record(content.value, document, only_bytes=only_bytes)


def _foreign_object(one: ListedForeign) -> dict[str, Any]:
    return {"place": str(one.place), "time": format_time_us(one.log_time_us), "carries": one.fault, "bytes": one.size}


def _headers(headers: Sequence[tuple[str, bytes | None]]) -> list[dict[str, Any]]:
    return [{"name": name, "content": content_object(content)} for name, content in headers]
