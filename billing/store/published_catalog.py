"""The catalogue in SQL: immutable entries, one epoch, and who of the workers uses which. Never judges an entry itself.

A commit holds the catalogue's lock shared, a publication exclusively: when a publication reads what was committed, no
commit under the former epoch can follow.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from billing.catalog import ERROR, Catalog, CatalogEntry, check
from billing.catalog.entries import from_entries, to_entries
from billing.errors import BrokenInvariant, CatalogConflict
from billing.store.commits.write_commit import CATALOG_LOCK
from billing.store.database import Connection, Database
from schemas.times import format_time_us

WORKER_ALIVE_SECONDS = 10
_POLL_SECONDS = 0.1
PRICE_BOOK = "price_book"


@dataclass(frozen=True, slots=True)
class PublishResult:
    """The epoch that holds afterwards, and what is new in it as ``kind name@version``.

    ``backdated`` says of each new version which usage, already billed under its name, it would price otherwise.
    """

    epoch: int
    published: tuple[str, ...]
    backdated: tuple[str, ...] = ()


def catalog_epoch(database: Database) -> int:
    """The catalogue's epoch: 0 before the first publication."""
    with database.transaction() as connection:
        return _epoch(connection)


def read_catalog(database: Database) -> tuple[int, Catalog]:
    """Epoch and entries, of one moment."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT epoch, (SELECT coalesce(jsonb_agg(body), '[]') FROM catalog_entry) FROM catalog_state"
        ).fetchone()
    if row is None:
        raise BrokenInvariant("catalog_state has no row")
    return row[0], from_entries(row[1])


def publish(database: Database, catalog: Catalog, rerate: bool = False) -> PublishResult:
    """Add the entries that are not there yet; the epoch rises if there are any.

    Waits for commits in flight. A later version of a book that begins before usage committed under its name is refused
    unless whoever publishes says so with ``rerate``: then it is published, and prices what is decided from now on. What
    was billed keeps its version and price until it is rated anew, which this version of the program cannot do.

    Raises:
        CatalogConflict: a version exists with other content, a later version of a book is back-dated without
            ``rerate``, or old and new entries contradict each other.
    """
    with database.transaction() as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (CATALOG_LOCK,))
        epoch = _epoch(connection)
        stored = connection.execute("SELECT kind, name, version, sha256, body FROM catalog_entry").fetchall()
        times = connection.execute("SELECT name, max(max_event_time_us) FROM book_time GROUP BY name").fetchall()
        new = _new_entries(to_entries(catalog), {(k, n, v): sha256 for k, n, v, sha256, _ in stored})
        named = {name for kind, name, *_ in stored if kind == PRICE_BOOK}
        backdated = tuple(_backdated(new, named, dict(times)))
        if backdated and not rerate:
            raise CatalogConflict([f"{which}: begin later, or say --rerate" for which in backdated])
        if not new:
            return PublishResult(epoch, ())
        _judge([*(body for *_, body in stored), *(entry.body for entry in new)])
        epoch += 1
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO catalog_entry (kind, name, version, effective_from_us, sha256, body, epoch)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                [(e.kind, e.name, e.version, e.effective_from_us, e.sha256, Jsonb(e.body), epoch) for e in new],
            )
        connection.execute("UPDATE catalog_state SET epoch = %s", (epoch,))
        return PublishResult(epoch, tuple(_label(entry) for entry in new), backdated)


def _epoch(connection: Connection) -> int:
    row = connection.execute("SELECT epoch FROM catalog_state").fetchone()
    if row is None:
        raise BrokenInvariant("catalog_state has no row")
    return int(row[0])


def _label(entry: CatalogEntry) -> str:
    return f"{entry.kind} {entry.name}@{entry.version}"


def _new_entries(entries: Sequence[CatalogEntry], stored: dict[tuple[str, str, int], str]) -> list[CatalogEntry]:
    new: list[CatalogEntry] = []
    conflicts: list[str] = []
    for entry in entries:
        sha256 = stored.get((entry.kind, entry.name, entry.version))
        if sha256 is None:
            new.append(entry)
        elif sha256 != entry.sha256:
            conflicts.append(f"{_label(entry)} is published with other content: give the change a version of its own")
    if conflicts:
        raise CatalogConflict(conflicts)
    return new


def _backdated(new: Sequence[CatalogEntry], named: set[str], last_used_us: dict[str, int]) -> Iterator[str]:
    """Which new version begins before which usage that is billed under its name."""
    for entry in new:
        begins_us, last_us = entry.effective_from_us, last_used_us.get(entry.name)
        if entry.kind != PRICE_BOOK or entry.name not in named or begins_us is None or last_us is None:
            continue
        if begins_us <= last_us:
            begins, last = format_time_us(begins_us), format_time_us(last_us)
            yield f"{_label(entry)} begins {begins}, and usage from then to {last} is billed under {entry.name}"


def _judge(bodies: Sequence[dict[str, Any]]) -> None:
    """Old and new entries together must be a catalogue without errors: two versions in force at once are one."""
    errors = [f"{found.key}: {found.message}" for found in check(from_entries(bodies)) if found.severity == ERROR]
    if errors:
        raise CatalogConflict(errors)


def worker_seen(database: Database, name: str, epoch: int) -> None:
    """Note that a worker lives and which epoch of the catalogue it uses."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO worker (name, catalog_epoch, seen_at) VALUES (%s, %s, clock_timestamp())"
            " ON CONFLICT (name) DO UPDATE SET catalog_epoch = excluded.catalog_epoch, seen_at = excluded.seen_at",
            (name, epoch),
        )


def wait_for_workers(database: Database, epoch: int, timeout_seconds: float) -> list[str]:
    """Wait until every worker seen lately uses ``epoch`` or a later one; the names of those that do not in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        with database.transaction() as connection:
            rows = connection.execute(
                "SELECT name FROM worker WHERE catalog_epoch < %s"
                " AND seen_at > clock_timestamp() - make_interval(secs => %s) ORDER BY name",
                (epoch, WORKER_ALIVE_SECONDS),
            ).fetchall()
        if not rows or time.monotonic() >= deadline:
            return [name for (name,) in rows]
        time.sleep(_POLL_SECONDS)
