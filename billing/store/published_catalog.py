"""The catalogue in SQL: immutable entries, one epoch, and the epoch that each worker uses.

A commit holds the catalogue lock in shared mode, a publication holds it exclusively. So no commit under the former
epoch can follow once a publication has read the committed usage. The rules that check entries are those of
:func:`billing.catalog.check`.
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
    """Result of a publication: the epoch after it, and the new entries as ``kind name@version``.

    ``backdated`` has a sentence for each new version that begins before usage already billed under its name: it names
    the usage that the version would price differently.
    """

    epoch: int
    published: tuple[str, ...]
    backdated: tuple[str, ...] = ()


def catalog_epoch(database: Database) -> int:
    """Return the epoch of the catalogue: 0 before the first publication."""
    with database.transaction() as connection:
        return _epoch(connection)


def read_catalog(database: Database) -> tuple[int, Catalog]:
    """Return the epoch and the entries, read in one snapshot."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT epoch, (SELECT coalesce(jsonb_agg(body), '[]') FROM catalog_entry) FROM catalog_state"
        ).fetchone()
    if row is None:
        raise BrokenInvariant("catalog_state has no row")
    return row[0], from_entries(row[1])


def publish(database: Database, catalog: Catalog, rerate: bool = False) -> PublishResult:
    """Add the entries that are not yet published, and raise the epoch if there are any.

    Waits for commits in flight. A later version of a price book that begins at or before usage committed under its name
    is refused without ``rerate``. With ``rerate`` it is published and prices the usage decided from then on. Usage
    already billed keeps its version and price: this version of the program cannot re-rate it.

    Raises:
        CatalogConflict: a version exists with different content, a later version of a price book is back-dated
            without ``rerate``, or old and new entries contradict each other.
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
    """Yield a sentence for each new price book version that begins at or before usage billed under its name."""
    for entry in new:
        begins_us, last_us = entry.effective_from_us, last_used_us.get(entry.name)
        if entry.kind != PRICE_BOOK or entry.name not in named or begins_us is None or last_us is None:
            continue
        if begins_us <= last_us:
            begins, last = format_time_us(begins_us), format_time_us(last_us)
            yield f"{_label(entry)} begins {begins}, and usage from then to {last} is billed under {entry.name}"


def _judge(bodies: Sequence[dict[str, Any]]) -> None:
    """Raise CatalogConflict if old and new entries together have errors, for example two versions in force at once."""
    errors = [f"{found.key}: {found.message}" for found in check(from_entries(bodies)) if found.severity == ERROR]
    if errors:
        raise CatalogConflict(errors)


def worker_seen(database: Database, name: str, epoch: int) -> None:
    """Store the heartbeat of a worker and the catalogue epoch that it uses."""
    with database.transaction() as connection:
        connection.execute(
            "INSERT INTO worker (name, catalog_epoch, seen_at) VALUES (%s, %s, clock_timestamp())"
            " ON CONFLICT (name) DO UPDATE SET catalog_epoch = excluded.catalog_epoch, seen_at = excluded.seen_at",
            (name, epoch),
        )


def wait_for_workers(database: Database, epoch: int, timeout_seconds: float) -> list[str]:
    """Wait until every live worker uses ``epoch`` or a later one.

    A worker is live if its last heartbeat is less than :data:`WORKER_ALIVE_SECONDS` old. Returns the names of the
    workers that use an earlier epoch when the timeout ends.
    """
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
