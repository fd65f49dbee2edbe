"""``tokenbill conflict``: lists, shows and resolves usage that was sent again with other content.

The rules are in `billing.conflicts`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from billing.catalog import Catalog
from billing.conflicts import (
    CONFLICT_SOURCE,
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
from billing.record_keys import RecordKeys
from billing.store import conflict_records as stored
from billing.store.database import Database
from billing.store.published_catalog import read_catalog
from billing.store.record_key_rows import read_record_keys
from schemas.cloudevents import write_structured
from schemas.commands import CorrectUsage, parse_command
from schemas.fields import MAX_TEXT_BYTES
from schemas.refusals import Refusal
from schemas.usage import UsageEvent, parse_usage
from tokenbill.command_database import explained, opened
from tokenbill.commands.kept_records import (
    PLACE,
    KindOfKept,
    content_line,
    data_dir_option,
    list_options,
    show_options,
    system_user,
    write_field,
    write_key_and_headers,
    write_record,
)
from tokenbill.commands.process import servers
from tokenbill.commands.table import write_rows
from tokenbill.user_errors import UserError

_KIND = KindOfKept("tokenbill conflict list --all", "No conflict is at")
_COLUMNS = ("place", "time", "account", "source", "id", "state", "resolved_by", "reason")


@click.group(short_help="List, show and resolve usage sent again with other content.")
def conflict() -> None:
    """List, show and resolve usage that was sent again with other content.

    What was rated first stands. Each later event with the same account, source and id but other content is a duplicate;
    it is not billed, and it is kept permanently with its bytes. Its place in Kafka identifies it.

    \b
    Examples:
      tokenbill conflict list
      tokenbill conflict show usage.events/3/1042
      tokenbill conflict resolve usage.events/3/1042 --outcome keep --reason "the worker counted a retry"
    """


@conflict.command("list")
@click.option("--account", help="Only usage of this account.")
@click.option("--source", help="Only usage of this source.")
@list_options("Only conflicts not resolved, or all.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def list_(
    account: str | None,
    source: str | None,
    only_open: bool,
    from_us: int | None,
    to_us: int | None,
    written_as: str,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """List conflicts, oldest first.

    \b
    The column state is one of:
      open        not resolved
      kept        resolved: what was rated first stands
      correcting  a correction was sent, and is not decided yet or was refused
      corrected   the correction was accepted

    \b
    Example:
      tokenbill conflict list --account acct-000123 --format csv
    """
    wanted = stored.WantedConflicts(account, source, from_us, to_us, only_open)
    with opened(data_dir) as database:
        rows = map(conflict_object, stored.listed_conflicts(database, wanted))
        write_rows(rows, _COLUMNS, "json" if as_json else written_as, sys.stdout)


@conflict.command()
@show_options
def show(place: tuple[str, ...], as_json: bool, only_bytes: bool, data_dir: Path | None) -> None:
    """Show one conflict: what was rated first, what was sent again, and the fields in which they differ.

    What was rated first is found by replaying the partition, which takes some seconds and reaches back as far as
    Kafka's usage topics do.

    \b
    Examples:
      tokenbill conflict show usage.events/3/1042
      tokenbill conflict show usage.events/3/1042 --bytes > event.json
    """
    at = _KIND.place("/".join(place))
    kafka, url = servers(data_dir)
    with explained(), closing(Database(url, pool_size=1)) as database:
        with database.transaction() as connection:
            found = stored.shown_conflict(connection, at)
        if found is None:
            raise _KIND.unknown(at)
        about, content = found

        def document() -> dict[str, Any]:
            second = _second(about, content, read_catalog(database)[1])
            return _document(about, content, second, _first(kafka, url, about))

        write_record(content.value, document, _print, only_bytes=only_bytes, as_json=as_json)


@conflict.command(epilog="Exit codes: 0 resolved, 2 an error; the message names it.")
@click.argument("place", metavar=PLACE)
@click.option(
    "--outcome",
    type=click.Choice((KEEP_FIRST, CORRECT_COUNTS)),
    required=True,
    help="keep: what was rated first stands. correct: its counts are replaced by those that were sent again.",
)
@click.option("--reason", required=True, help="Why; it is recorded, and a correction carries it.")
@click.option("--by", default=system_user, help="Name to record as who decided [default: the system user].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@data_dir_option
def resolve(place: str, outcome: str, reason: str, by: str, as_json: bool, data_dir: Path | None) -> None:
    """Resolve one conflict; who decided and why is recorded.

    With --outcome correct, the command usage.corrected.v1 is sent. It replaces only the counts: time, model and all
    other fields stay as they were rated. The account is decided again and the difference is posted. Its outcome is on
    account.events; until it is accepted, the conflict is in the state correcting and may be resolved again.

    \b
    Examples:
      tokenbill conflict resolve usage.events/3/1042 --outcome keep --reason "the worker counted a retry"
      tokenbill conflict resolve usage.events/3/1042 --outcome correct --reason "measured again" --by wang
    """
    at = _KIND.place(place)
    _check_text("--reason", reason)
    _check_text("--by", by)
    kafka, url = servers(data_dir)
    with explained(), closing(Database(url, pool_size=1)) as database:
        catalog, keys = read_catalog(database)[1], read_record_keys(database)
        with database.transaction() as connection:
            resolution = stored.ConflictResolution(connection)
            found = resolution.at(at)
            if found is None:
                raise _KIND.unknown(at)
            about, content = found
            if about.state in (KEPT_FIRST, CORRECTED):
                raise UserError(
                    f"{at} was resolved before ({about.state}) by {about.resolved_by}; nothing was changed",
                    "",
                    f"Correct the usage by a command: {CorrectUsage.TYPE} or usage.voided.v1.",
                )
            if outcome == CORRECT_COUNTS:
                second = _second(about, content, catalog)
                _send_correction(kafka, url, keys, about, content, second, reason)
            resolution.note(about, outcome, reason, by)
    if as_json:
        click.echo(json.dumps({"place": str(at), "outcome": outcome, "resolved_by": by, "reason": reason}))
    else:
        click.echo(f"{at}: {'kept as it was rated first' if outcome == KEEP_FIRST else 'correction sent'}")


def _second(about: ListedConflict, content: ConflictContent, catalog: Catalog) -> UsageEvent:
    event = parse_usage(
        content.value,
        _headers(content),
        declared_meters=catalog.declared_meters(),
        declared_attributes=catalog.declared_attributes(),
        note_unknown=True,
    )
    if isinstance(event, Refusal):
        raise UserError(
            f"{about.place} cannot be read any more", event.detail, "Does the price book declare its meters?"
        )
    return event


def _headers(content: ConflictContent) -> list[tuple[str, bytes]]:
    return [(name, value) for name, value in content.headers if value is not None]


def _first(kafka: str, url: str, about: ListedConflict) -> dict[str, Any]:
    from tokenbill.replays.rated_usage import rated_usage

    return rated_usage(kafka, url, about.account, about.source, about.id)


def _document(
    about: ListedConflict, content: ConflictContent, second: UsageEvent, first: dict[str, Any]
) -> dict[str, Any]:
    again = usage_object(second)
    known = "problem" not in first
    return (
        conflict_object(about)
        | content_objects(content)
        | {
            "first": first if known else None,
            "second": again,
            "differs": differences(first["usage"], again) if known else None,
            "first_unknown": None if known else first,
        }
    )


def _print(document: Mapping[str, Any]) -> None:
    for name in (
        "place",
        "time",
        "account",
        "source",
        "id",
        "sequence",
        "state",
        "resolved_by",
        "reason",
        "resolved_at",
    ):
        write_field(name, document[name])
    write_key_and_headers(document)
    first, second = document["first"], document["second"]
    if first is None:
        click.echo(f"\nwhat was rated first is not known: {document['first_unknown']['detail']}\n")
    else:
        click.echo(f"\nrated first at {first['time']}, offset {first['offset']}")
        for made in first["corrections"]:
            click.echo(f"then {made['type']}: {made['reason']}")
        click.echo("")
    for name in dict.fromkeys([*second, *(document["differs"] or ())]):
        value = second.get(name)
        if name in ("account", "source", "id", "sequence"):
            continue
        if first is not None and name in document["differs"]:
            click.echo(f"{name:16} first {_text(first['usage'].get(name))}\n{'':16} again {_text(value)}")
        elif value is not None:
            click.echo(f"{name:16} {_text(value)}")
    click.echo(f"\n{content_line(document['value'])}")


def _text(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _send_correction(
    kafka: str,
    url: str,
    record_keys: RecordKeys,
    about: ListedConflict,
    content: ConflictContent,
    second: UsageEvent,
    reason: str,
) -> None:
    from streams.send.send_commands import send_commands
    from streams.stream_errors import DeliveryFailed

    first = _first(kafka, url, about)
    if "problem" in first:
        raise UserError(
            f"What was rated first is not known, so {about.place} cannot be corrected; nothing was sent",
            str(first["detail"]),
            "Settle it by a balance adjustment (balance.adjusted.v1) and resolve it with --outcome keep.",
        )
    if dict(second.counts) == first["usage"]["usage"]:
        raise UserError(
            f"{about.place} has the counts that were rated first; nothing was sent",
            f"it differs in {', '.join(differences(first['usage'], usage_object(second)))}, and a correction replaces "
            "only counts",
            "Resolve it with --outcome keep; or void the usage (usage.voided.v1) and send it under another id.",
        )
    data = correction_data(about, content, second, reason)
    record = write_structured(
        CorrectUsage.TYPE, CONFLICT_SOURCE, str(about.place), time.time_ns() // 1000, about.account, data
    )
    command = parse_command(record)
    if isinstance(command, Refusal):
        raise UserError("The correction would be refused; nothing was sent", command.detail, "Correct the option.")
    try:
        send_commands(kafka, [json.loads(record)], record_keys=record_keys)
    except DeliveryFailed as error:
        raise UserError("Kafka did not take the correction", str(error), "Resolve the conflict again.") from error


def _check_text(option: str, text: str) -> None:
    if not text or len(text.encode()) > MAX_TEXT_BYTES or any(ord(one) < 32 for one in text):
        raise UserError(
            f"{option} is {text[:80]!r}", "", f"Give 1 to {MAX_TEXT_BYTES} bytes of text without control characters."
        )
