"""``tokenbill suspense``: lists, shows and resubmits rejected usage events. The rules are in `billing.suspense`."""

from __future__ import annotations

import getpass
import json
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from billing.store import suspense_records as stored
from billing.store.database import Database
from billing.store.published_catalog import read_catalog
from billing.suspense import (
    RecordPlace,
    ResubmittedRecord,
    as_it_was,
    held_object,
    listed_object,
    parse_place,
    repaired,
)
from schemas.refusal_codes import REASONS
from schemas.refusals import Refusal
from schemas.topics import USAGE_TOPIC
from tokenbill.command_database import explained, opened
from tokenbill.commands.process import servers
from tokenbill.commands.table import FORMATS, write_rows
from tokenbill.commands.times import TimeParameter
from tokenbill.user_errors import UserError

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
_REASON = click.option("--reason", type=click.Choice(REASONS), metavar="REASON", help="Only events with this reason.")
_ACCOUNT = click.option("--account", help="Only events that name this account.")
_COLUMNS = ("place", "time", "reason", "account", "source", "id", "state", "sent_to", "detail")


def system_user() -> str:
    """Return the name of the system user, or the uid if the user has no name, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


@click.group(short_help="List, show and resubmit rejected usage events.")
def suspense() -> None:
    """List, show and resubmit rejected usage events.

    Each rejected event is kept permanently with its bytes and the reason. Its place in Kafka identifies it.

    \b
    Examples:
      tokenbill suspense list --reason unknown_account
      tokenbill suspense show usage.events/3/1042
      tokenbill suspense resubmit --reason unknown_account --account acct-000123
    """


@suspense.command("list")
@_REASON
@_ACCOUNT
@click.option("--open/--all", "only_open", default=True, show_default=True, help="Only events not resubmitted, or all.")
@click.option(
    "--from", "from_us", type=TimeParameter(), help="Only records from this time on, by Kafka's clock (RFC 3339)."
)
@click.option("--to", "to_us", type=TimeParameter(), help="Only records before this time, by Kafka's clock (RFC 3339).")
@click.option(
    "--format", "written_as", type=click.Choice(FORMATS), default="table", show_default=True, help="Output format."
)
@_DATA_DIR
def list_(
    reason: str | None,
    account: str | None,
    only_open: bool,
    from_us: int | None,
    to_us: int | None,
    written_as: str,
    data_dir: Path | None,
) -> None:
    """List rejected events, oldest first.

    \b
    The column state is one of:
      open            not resubmitted
      resubmitted     sent again, not decided yet
      rated           rated after the resubmission, or rated before it
      rejected_again  rejected again; a new row replaces this one

    \b
    Example:
      tokenbill suspense list --reason no_price --from 2026-11-01T00:00:00+08:00 --format csv
    """
    wanted = stored.Wanted(reason, account, from_us, to_us, only_open)
    with opened(data_dir) as database:
        write_rows(map(listed_object, stored.listed(database, wanted)), _COLUMNS, written_as, sys.stdout)


@suspense.command()
@click.argument("place", nargs=-1, required=True, metavar="TOPIC/PARTITION/OFFSET")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--bytes", "only_bytes", is_flag=True, help="Print only the original bytes of the event.")
@_DATA_DIR
def show(place: tuple[str, ...], as_json: bool, only_bytes: bool, data_dir: Path | None) -> None:
    """Show one rejected event: its details, headers and bytes, and the recommended remedy.

    \b
    Examples:
      tokenbill suspense show usage.events/3/1042
      tokenbill suspense show usage.events/3/1042 --bytes > event.json
    """
    at = place_of("/".join(place))
    with opened(data_dir) as database:
        found = stored.shown(database, at)
    if found is None:
        raise _unknown([at])
    about, kept = found
    value = kept.held.value
    if only_bytes:
        sys.stdout.buffer.write(value or b"")
        return
    document = listed_object(about) | held_object(kept.held)
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for name, content in listed_object(about).items():
        if name not in ("topic", "partition", "offset"):
            click.echo(f"{name:12} {'–' if content is None else content}")
    click.echo(f"sequence     {kept.held.sequence or '–'}\nkey          {content_line(document['key'])}")
    for header in document["headers"]:
        click.echo(f"header       {header['name']}: {content_line(header['content'])}")
    click.echo(f"\n{document['advice']['zh']}\n{document['advice']['en']}\n\n{content_line(document['value'])}")


@suspense.command(epilog="Exit codes: 0 every event was sent (or none matched), 2 an error; the message names it.")
@click.argument("places", nargs=-1, metavar="[TOPIC/PARTITION/OFFSET]...")
@_REASON
@_ACCOUNT
@click.option("--with", "repair", type=click.File("rb"), help="File with the repaired event (JSON) to send instead.")
@click.option("--by", default=system_user, help="Name to record as the sender [default: the system user].")
@click.option("--again", is_flag=True, help="Also send events that were resubmitted before; only with given places.")
@_DATA_DIR
def resubmit(
    places: tuple[str, ...],
    reason: str | None,
    account: str | None,
    repair: Any,
    by: str,
    again: bool,
    data_dir: Path | None,
) -> None:
    """Send rejected events to usage.events again: with the same key, headers and bytes, or repaired (--with).

    An event's identity ensures that it is rated only once, however often it is sent. If this command is killed after
    sending and before recording it, the next run sends the events again; the second copies are duplicates. An event
    that is rejected again becomes a new row.

    \b
    Examples:
      tokenbill suspense resubmit usage.events/3/1042 --with event.json --by wang
      tokenbill suspense resubmit --reason unknown_account --account acct-000123
    """
    if bool(places) == (reason is not None or account is not None):
        raise UserError("Nothing says what to resubmit", "", "Name places, or else --reason and/or --account.")
    if repair is not None and len(places) != 1:
        raise UserError("--with repairs one event", f"{len(places)} places are named", "Name the place of that event.")
    if again and not places:
        raise UserError("--again is for named places", "", "Name the places; `tokenbill suspense list --all` has them.")
    kafka, url = servers(data_dir)
    wanted = list(dict.fromkeys(map(place_of, places)))
    with explained(), closing(Database(url, pool_size=1)) as database:
        if wanted:
            _resubmit_places(database, kafka, wanted, repair.read() if repair else None, by, again)
        else:
            _resubmit_all(database, kafka, stored.Wanted(reason, account), by)


def _resubmit_places(
    database: Database, kafka: str, wanted: list[RecordPlace], repair: bytes | None, by: str, again: bool
) -> None:
    declared = read_catalog(database)[1].declared_meters()
    with database.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        partitions = resubmission.partitions()
        found = list(resubmission.places(wanted))
        known = {kept.held.place for kept in found}
        if len(known) < len(wanted):
            raise _unknown([place for place in wanted if place not in known])
        done = [str(kept.held.place) for kept in found if kept.resolved]
        if done and not again:
            raise UserError(f"{', '.join(done)}: sent again before; nothing was sent", "", "Send once more: --again")
        if repair is None:
            outgoing = [as_it_was(kept.held, partitions) for kept in found]
        else:
            made = repaired(found[0].held, repair, partitions, declared)
            if isinstance(made, Refusal):
                raise UserError("The repaired event would be rejected", f"{made.code}: {made.detail}", "Correct it.")
            outgoing = [made]
        sent, failed = _send(resubmission, kafka, found, outgoing, repair, by)
    for kept, sent_to in sent:
        click.echo(f"{kept.held.place} -> {sent_to}")
    _raise_failed(len(sent), failed)


def _resubmit_all(database: Database, kafka: str, wanted: stored.Wanted, by: str) -> None:
    total, after = 0, (-1, 0, 0)
    commits: dict[int, int] | None = None
    while True:
        with database.transaction() as connection:
            resubmission = stored.ResubmissionTransaction(connection)
            # An event rejected again meanwhile is a new row beyond these commits; the next run may send it.
            commits = resubmission.commits() if commits is None else commits
            found = resubmission.page(wanted, commits, after)
            outgoing = [as_it_was(kept.held, len(commits)) for kept in found]
            sent, failed = _send(resubmission, kafka, found, outgoing, None, by)
        total += len(sent)
        _raise_failed(total, failed)
        if not found:
            break
        after = found[-1].key
        click.echo(f"{total:,} resubmitted", err=True)
    click.echo(f"{total} resubmitted")


def _send(
    resubmission: stored.ResubmissionTransaction,
    kafka: str,
    found: Sequence[stored.Kept],
    outgoing: Sequence[ResubmittedRecord],
    repair: bytes | None,
    by: str,
) -> tuple[list[tuple[stored.Kept, RecordPlace]], list[str]]:
    from streams.send.resubmit import send_again

    sent: list[tuple[stored.Kept, RecordPlace]] = []
    failed: list[str] = []
    for kept, record, offset in zip(found, outgoing, send_again(kafka, outgoing) if outgoing else (), strict=True):
        if isinstance(offset, int):
            sent.append((kept, RecordPlace(USAGE_TOPIC, record.partition, offset)))
        else:
            failed.append(f"{kept.held.place}: {offset}")
    resubmission.note([stored.Resolution(kept.key, sent_to, repair) for kept, sent_to in sent], by)
    return sent, failed


def _raise_failed(sent: int, failed: list[str]) -> None:
    if failed:
        raise UserError(
            f"{sent} resubmitted, {len(failed)} not acknowledged by Kafka",
            failed[0],
            "Is the stack up? Those stay open; resubmit again (what arrived nevertheless is a duplicate).",
        )


def place_of(text: str) -> RecordPlace:
    """Return the place that an argument names.

    Raises:
        UserError: it is not the place of a record.
    """
    try:
        return parse_place(text)
    except ValueError as error:
        raise UserError(
            str(error), "", "`tokenbill suspense list` and `tokenbill conflict list` show the places."
        ) from error


def _unknown(places: Sequence[RecordPlace]) -> UserError:
    return UserError(
        f"No event was rejected at {', '.join(map(str, places))}",
        "",
        "Nothing was sent. `tokenbill suspense list --all` shows the places.",
    )


def content_line(content: dict[str, str] | None) -> str:
    """Return a content object as one text for a terminal."""
    if content is None:
        return "– (null)"
    return content["text"] if "text" in content else f"base64: {content['base64']}"
