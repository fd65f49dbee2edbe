"""The frame of commands on records that are kept for a person: suspense, conflicts, foreign records.

Each kind has a list, oldest first, and shows one record, which its place in Kafka identifies.
"""

from __future__ import annotations

import functools
import getpass
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from billing.suspense import RecordPlace, parse_place
from tokenbill.commands.table import FORMATS
from tokenbill.commands.times import TimeParameter, check_span
from tokenbill.user_errors import UserError

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
PLACE = "TOPIC/PARTITION/OFFSET"

data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use."
)
format_option = click.option(
    "--format", "written_as", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
)
bytes_option = click.option("--bytes", "only_bytes", is_flag=True, help="Print only the original bytes of the record.")


@dataclass(frozen=True, slots=True)
class KindOfKept:
    """A kind of kept records: the command that lists their places, and what is said where there is none."""

    list_command: str
    none_at: str

    def place(self, text: str) -> RecordPlace:
        """Return the place that an argument names.

        Raises:
            UserError: it is not the place of a record.
        """
        try:
            return parse_place(text)
        except ValueError as error:
            raise UserError(str(error), "", f"`{self.list_command}` shows the places.") from error

    def unknown(self, *places: RecordPlace) -> UserError:
        """Return the error of places at which no such record is."""
        named = ", ".join(map(str, places))
        return UserError(f"{self.none_at} {named}", "nothing was changed", f"`{self.list_command}` shows the places.")


def list_options(only_open: str) -> Decorator:
    """Add the filters of a list, its format and ``--data-dir``; an empty time range is refused.

    ``only_open`` is the help of ``--open/--all``.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def checked(*arguments: Any, from_us: int | None, to_us: int | None, **options: Any) -> Any:
            check_span(from_us, to_us)
            return command(*arguments, from_us=from_us, to_us=to_us, **options)

        for option in (
            data_dir_option,
            format_option,
            click.option(
                "--to",
                "to_us",
                type=TimeParameter(),
                help="Only records before this time, by Kafka's clock (RFC 3339).",
            ),
            click.option(
                "--from",
                "from_us",
                type=TimeParameter(),
                help="Only records from this time on, by Kafka's clock (RFC 3339).",
            ),
            click.option("--open/--all", "only_open", default=True, show_default=True, help=only_open),
        ):
            checked = option(checked)
        return checked

    return decorate


def show_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the place of one record, ``--json``, ``--bytes`` and ``--data-dir``."""
    for option in (
        data_dir_option,
        bytes_option,
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        click.argument("place", nargs=-1, required=True, metavar=PLACE),
    ):
        command = option(command)
    return command


def write_record(
    value: bytes | None,
    document: Callable[[], Mapping[str, Any]],
    write: Callable[[Mapping[str, Any]], None] | None = None,
    *,
    only_bytes: bool,
    as_json: bool = True,
) -> None:
    """Write one record: its original bytes, its document as JSON, or by ``write`` the document for a terminal."""
    if only_bytes:
        sys.stdout.buffer.write(value or b"")
        return
    made = document()
    if as_json or write is None:
        click.echo(json.dumps(made, ensure_ascii=False))
    else:
        write(made)


def write_field(name: str, content: object) -> None:
    """Write one field of a record for a terminal."""
    click.echo(f"{name:12} {'–' if content is None else content}")


def write_key_and_headers(document: Mapping[str, Any]) -> None:
    """Write key and headers of a record's document for a terminal."""
    write_field("key", content_line(document["key"]))
    for header in document["headers"]:
        write_field("header", f"{header['name']}: {content_line(header['content'])}")


def content_line(content: Mapping[str, str] | None) -> str:
    """Return a content object as one text for a terminal."""
    if content is None:
        return "– (null)"
    return content["text"] if "text" in content else f"base64: {content['base64']}"


def system_user() -> str:
    """Return the name of the system user, or the uid if the user has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
