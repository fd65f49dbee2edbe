"""``tokenbill suspense``: lists, shows and resubmits rejected usage events. The rules are in `billing.suspense`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from billing.commits.input_batch import PlainRecord
from billing.record_keys import RecordKeys, resubmitted_headers
from billing.store import suspense_records as stored
from billing.store.database import Database
from billing.store.published_catalog import read_catalog
from billing.store.record_key_rows import read_record_keys
from billing.suspense import (
    RecordPlace,
    ResubmittedRecord,
    as_it_was,
    held_object,
    listed_object,
    repaired,
    resubmissions,
)
from schemas.refusal_codes import REASONS
from schemas.refusals import Refusal
from schemas.sources import is_own
from schemas.topics import USAGE_TOPIC
from tokenbill.command_database import explained, opened
from tokenbill.commands.kept_records import (
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
from tokenbill.usage_settings import notes_unknown_usage
from tokenbill.user_errors import UserError

_KIND = KindOfKept("tokenbill suspense list --all", "No event was rejected at")
_REASON = click.option("--reason", type=click.Choice(REASONS), metavar="REASON", help="Only events with this reason.")
_ACCOUNT = click.option("--account", help="Only events that name this account.")
_COLUMNS = ("place", "time", "reason", "account", "source", "id", "copies", "state", "sent_to", "detail")


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
@list_options("Only events not resubmitted, or all.")
def list_(
    reason: str | None,
    account: str | None,
    only_open: bool,
    from_us: int | None,
    to_us: int | None,
    written_as: str,
    data_dir: Path | None,
) -> None:
    """List rejected events, oldest first. Records of one event (account, source, id) stand together.

    \b
    The column copies is the number of listed records of the event. They are resubmitted as one.

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
        _check_named(database, account)
        rows = (listed_object(one) | {"copies": one.copies} for one in stored.listed(database, wanted))
        write_rows(rows, _COLUMNS, written_as, sys.stdout)


@suspense.command()
@show_options
def show(place: tuple[str, ...], as_json: bool, only_bytes: bool, data_dir: Path | None) -> None:
    """Show one rejected event: its details, headers and bytes, and the recommended remedy.

    \b
    Examples:
      tokenbill suspense show usage.events/3/1042
      tokenbill suspense show usage.events/3/1042 --bytes > event.json
    """
    at = _KIND.place("/".join(place))
    with opened(data_dir) as database:
        found = stored.shown(database, at)
    if found is None:
        raise _KIND.unknown(at)
    about, kept = found
    write_record(
        kept.held.value,
        lambda: listed_object(about) | held_object(kept.held),
        _print,
        only_bytes=only_bytes,
        as_json=as_json,
    )


_SHOWN_APART = ("topic", "partition", "offset", "key", "headers", "value", "advice")


def _print(document: Mapping[str, Any]) -> None:
    for name, content in document.items():
        if name not in _SHOWN_APART:
            write_field(name, content)
    write_key_and_headers(document)
    click.echo(f"\n{document['advice']['zh']}\n{document['advice']['en']}\n\n{content_line(document['value'])}")


@suspense.command(epilog="Exit codes: 0 every event was sent (or none matched), 2 an error; the message names it.")
@click.argument("places", nargs=-1, metavar="[TOPIC/PARTITION/OFFSET]...")
@_REASON
@_ACCOUNT
@click.option("--with", "repair", type=click.File("rb"), help="File with the repaired event (JSON) to send instead.")
@click.option("--by", default=system_user, help="Name to record as the sender [default: the system user].")
@click.option("--again", is_flag=True, help="Also send events that were resubmitted before; only with given places.")
@data_dir_option
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

    An event that was rejected several times (same account, source and id, same bytes) is sent once, and all its records
    are noted with that place. Records of the event with other bytes stay open; look at them and name the right one. An
    event that was resubmitted and not rejected again is not sent again. If this command is killed after sending and
    before recording it, the next run sends the events again; the second copies are duplicates. An event that is
    rejected again becomes a new row.

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
    wanted = list(dict.fromkeys(map(_KIND.place, places)))
    with explained(), closing(Database(url, pool_size=1)) as database:
        if wanted:
            _resubmit_places(database, kafka, wanted, repair.read() if repair else None, by, again)
        else:
            _check_named(database, account)
            _resubmit_all(database, kafka, stored.Wanted(reason, account), by)


def _check_named(database: Database, account: str | None) -> None:
    if account is not None and not stored.is_named(database, account):
        raise UserError(
            f"There is no account {account!r}",
            "no rejected event names it either",
            "Correct --account, or leave it out.",
        )


def _resubmit_places(
    database: Database, kafka: str, wanted: list[RecordPlace], repair: bytes | None, by: str, again: bool
) -> None:
    declared = read_catalog(database)[1].declared_meters()
    keys = read_record_keys(database)
    with database.transaction() as connection:
        resubmission = stored.ResubmissionTransaction(connection)
        partitions = resubmission.partitions()
        found = list(resubmission.places(wanted))
        known = {kept.held.place for kept in found}
        if len(known) < len(wanted):
            raise _KIND.unknown(*(place for place in wanted if place not in known))
        done = [str(kept.held.place) for kept in found if kept.resolved]
        if done and not again:
            raise UserError(f"{', '.join(done)}: sent again before; nothing was sent", "", "Send once more: --again")
        made: ResubmittedRecord | None = None
        if repair is not None:
            read = repaired(found[0].held, repair, partitions, declared, note_unknown=notes_unknown_usage())
            if isinstance(read, Refusal):
                raise UserError("The repaired event would be rejected", f"{read.code}: {read.detail}", "Correct it.")
            marked, faults = _marked(keys, found, [read])
            if faults:
                raise UserError(
                    f"{faults[0]}: the repaired event would be rejected too",
                    "",
                    "Find out who wrote it: nothing that the product sent is missing.",
                )
            made = marked[0]
        done_now = _send(resubmission, kafka, keys, found, partitions, made, by, again)
    for place, sent_to in done_now.resolved:
        click.echo(f"{place} -> {sent_to}")
    _tell(done_now)
    _raise_failed(done_now.sent, done_now.failed)
    left = [str(place) for place, _ in done_now.differing if place in wanted]
    if left:
        raise UserError(
            f"{', '.join(left)}: the event was sent with other bytes, and is left open",
            "",
            "Compare them with `tokenbill suspense show`; send it nevertheless: --again",
        )


def _resubmit_all(database: Database, kafka: str, wanted: stored.Wanted, by: str) -> None:
    total, copies, after = 0, 0, (-1, 0, 0)
    commits: dict[int, int] | None = None
    keys = read_record_keys(database)
    while True:
        with database.transaction() as connection:
            resubmission = stored.ResubmissionTransaction(connection)
            # An event rejected again meanwhile is a new row beyond these commits; the next run may send it.
            commits = resubmission.commits() if commits is None else commits
            found = resubmission.page(wanted, commits, after)
            done = _send(resubmission, kafka, keys, found, len(commits), None, by, again=False)
        total += done.sent
        copies += len(done.resolved) - done.sent
        _tell(done)
        _raise_failed(total, done.failed)
        if not found:
            break
        after = found[-1].key
        click.echo(f"{total:,} resubmitted", err=True)
    click.echo(f"{total} resubmitted" + (f", and {copies} more records of the same events" if copies else ""))


@dataclass(slots=True)
class _Done:
    """Result of one transaction of resubmissions."""

    sent: int = 0
    resolved: list[tuple[RecordPlace, RecordPlace]] = field(default_factory=list)
    """Each resolved record and the place where its event was sent, now or before."""
    differing: list[tuple[RecordPlace, RecordPlace | None]] = field(default_factory=list)
    """Each record left open, and the place of the other content of its event."""
    failed: list[str] = field(default_factory=list)


def _marked(
    keys: RecordKeys, found: Sequence[stored.Kept], outgoing: Sequence[ResubmittedRecord]
) -> tuple[list[ResubmittedRecord], list[str]]:
    """Return the records, those of the product itself with a new digest, and why others with such a source are not.

    The latter stay as they were, and are rejected again.
    """
    marked, faults = list(outgoing), list[str]()
    for at, (kept, record) in enumerate(zip(found, outgoing, strict=True)):
        held = kept.held
        if not is_own(held.source):
            continue
        headers_then: Any = held.headers
        was = PlainRecord(held.place.offset, kept.log_time_us // 1000, held.key, held.value, headers_then)
        headers = resubmitted_headers(keys, USAGE_TOPIC, was, record.key, record.value, record.headers)
        if isinstance(headers, str):
            faults.append(f"{held.place}: its source {held.source!r} is the product's own, and it has {headers}")
        else:
            marked[at] = replace(record, headers=headers)
    return marked, faults


def _send(
    resubmission: stored.ResubmissionTransaction,
    kafka: str,
    keys: RecordKeys,
    found: Sequence[stored.Kept],
    partitions: int,
    repair: ResubmittedRecord | None,
    by: str,
    again: bool,
) -> _Done:
    """Send each event of the records once, and note all records of the event with its place."""
    from streams.send.resubmit import send_again

    done = _Done()
    by_key = {kept.key: kept for kept in found}
    copies = resubmission.copies(found)
    planned = resubmissions([kept.key for kept in found], copies, again=again)
    going = [one for one in planned if one.send is not None]
    sending = [by_key[one.send] for one in going if one.send is not None]
    if repair is None:
        outgoing, _ = _marked(keys, sending, [as_it_was(kept.held, partitions) for kept in sending])
    else:
        outgoing = [repair for _ in sending]
    places: dict[int, RecordPlace] = {}
    for one, record, offset in zip(going, outgoing, send_again(kafka, outgoing) if outgoing else (), strict=True):
        if isinstance(offset, int):
            places[id(one)] = RecordPlace(USAGE_TOPIC, record.partition, offset)
            done.sent += 1
        else:
            done.failed.append(f"{copies[one.resolved[0]].place}: {offset}")
    notes: list[stored.Resolution] = []
    for one in planned:
        sent_to = one.sent_to if one.send is None else places.get(id(one))
        if sent_to is not None:
            value = None if repair is None or one.send is None else repair.value
            notes += [stored.Resolution(key, sent_to, value) for key in one.resolved]
            done.resolved += [(copies[key].place, sent_to) for key in one.resolved]
        done.differing += [(place, sent_to) for place in one.differing]
    resubmission.note(notes, by)
    return done


def _tell(done: _Done) -> None:
    """Name the records that were left open because another record of their event has other bytes."""
    for place, sent_to in done.differing:
        sent = f"was sent to {sent_to}" if sent_to is not None else "is in another record"
        click.echo(f"{place} stays open: the event of this account, source and id {sent} with other bytes", err=True)


def _raise_failed(sent: int, failed: list[str]) -> None:
    if failed:
        raise UserError(
            f"{sent} resubmitted, {len(failed)} not acknowledged by Kafka",
            failed[0],
            "Is the stack up? Those stay open; resubmit again (what arrived nevertheless is a duplicate).",
        )
