"""Webhooks in SQL: subscribers of account events, and every delivery until it succeeds or fails for good.

This is operational state, outside journal and digest. The transaction that turns events into deliveries also moves the
position past them, so no event is lost and none is filed twice. A delivery is sent at least once. This module sends
nothing.
"""

import base64
import json
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from billing.store.database import Connection, Database

DELIVERY_PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
LEASE_SECONDS = 60
"""Time for which a delivery that was taken is not given to another sender."""
SECRET_PREFIX = "whsec_"
"""Prefix of a secret in the Standard Webhooks specification. The base64 of the signing key follows it."""
_INTAKE_LOCK = 0x7462_7768  # "tbwh"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A subscriber of account events.

    ``account`` of None subscribes to every account; empty ``types`` subscribe to every event type.
    """

    webhook_id: str
    url: str
    secret: str
    account: str | None
    types: tuple[str, ...]
    created_at: datetime
    allow_private: bool
    """True if the receiver may have an address that is not public."""


@dataclass(frozen=True, slots=True)
class FedEvent:
    """One record of ``account.events``."""

    partition: int
    offset: int
    account: str
    type: str
    event_id: str
    """Identity of the event, unique over all partitions. A receiver uses it to recognise repeated deliveries."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of one event to one webhook."""

    delivery_id: int
    webhook_id: str
    url: str
    secret: str
    account: str
    event_id: str
    body: bytes
    attempts: int
    """Number of failed attempts so far."""
    allow_private: bool = False


def add_webhook(
    database: Database, url: str, account: str | None, types: Sequence[str], *, allow_private: bool = False
) -> Webhook:
    """Create a webhook that delivers events to ``url`` from now on."""
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO webhook (webhook_id, url, secret, account, types, allow_private)"
            " VALUES (%s, %s, %s, %s, %s, %s)"
            " RETURNING webhook_id, url, secret, account, types, created_at, allow_private",
            (secrets.token_hex(6), url, secret, account, sorted(set(types)), allow_private),
        ).fetchall()[0]
    return _webhook(*row)


def list_webhooks(database: Database) -> list[Webhook]:
    """Return the active webhooks, oldest first."""
    with database.transaction() as connection:
        return [_webhook(*row) for row in _webhooks(connection)]


def permit_private(database: Database, webhook_id: str) -> bool:
    """Permit addresses that are not public. Returns False if there is no active webhook of this id."""
    with database.transaction() as connection:
        permitted = connection.execute(
            "UPDATE webhook SET allow_private = true WHERE webhook_id = %s AND removed_at IS NULL", (webhook_id,)
        )
        return permitted.rowcount == 1


def was_added(database: Database, webhook_id: str) -> bool:
    """Return True if there is a webhook of this id, or was one that was removed."""
    with database.transaction() as connection:
        return connection.execute("SELECT FROM webhook WHERE webhook_id = %s", (webhook_id,)).fetchone() is not None


def remove_webhook(database: Database, webhook_id: str) -> bool:
    """Remove a webhook and fail its pending deliveries. Returns False if there is no active webhook of this id."""
    with database.transaction() as connection:
        removed = connection.execute(
            "UPDATE webhook SET removed_at = now() WHERE webhook_id = %s AND removed_at IS NULL", (webhook_id,)
        )
        connection.execute(
            "UPDATE webhook_delivery SET state = %s, last_error = 'the webhook was removed'"
            " WHERE webhook_id = %s AND state = %s",
            (FAILED, webhook_id, DELIVERY_PENDING),
        )
        return removed.rowcount == 1


def take_intake_lock(connection: Connection) -> bool:
    """Return True if this session may file events from now on. One session holds the lock at a time, until it ends."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_INTAKE_LOCK,)).fetchone()
    return row is not None and bool(row[0])


def feed_positions(database: Database) -> dict[int, int]:
    """Return the next offset of ``account.events`` for each partition that was read before."""
    with database.transaction() as connection:
        return dict(connection.execute("SELECT partition, next_offset FROM webhook_position").fetchall())


def file_events(
    database: Database,
    events: Sequence[FedEvent],
    positions: dict[int, int],
    beside: Callable[[Connection, Sequence[FedEvent]], object] | None = None,
) -> int:
    """Create the deliveries of events, and move the positions past the events. Returns the number of deliveries.

    ``beside`` files what else the events cause in the same transaction.
    """
    with database.transaction() as connection:
        hooks = [_webhook(*row) for row in _webhooks(connection)]
        rows = [
            (hook.webhook_id, event.partition, event.offset, event.account, event.type, event.event_id, event.body)
            for event in events
            for hook in hooks
            if hook.account in (None, event.account) and (not hook.types or event.type in hook.types)
        ]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO webhook_delivery (webhook_id, partition, record_offset, account, type, event_id, body)"
                " VALUES (%s, %s, %s, %s, %s, %s, %b) ON CONFLICT (webhook_id, partition, record_offset) DO NOTHING",
                rows,
            )
            cursor.executemany(
                "INSERT INTO webhook_position (partition, next_offset) VALUES (%s, %s)"
                " ON CONFLICT (partition) DO UPDATE SET next_offset = excluded.next_offset",
                sorted(positions.items()),
            )
        if beside is not None:
            beside(connection, events)
    return len(rows)


_TAKE: LiteralString = """
UPDATE webhook_delivery AS d SET next_try_at = now() + %s
FROM webhook AS w CROSS JOIN LATERAL (
    SELECT delivery_id FROM webhook_delivery
    WHERE webhook_id = w.webhook_id AND state = 'pending' AND next_try_at <= now()
    ORDER BY next_try_at, delivery_id LIMIT %s FOR UPDATE SKIP LOCKED
) AS due
WHERE w.removed_at IS NULL AND w.webhook_id <> ALL (%s) AND d.delivery_id = due.delivery_id
RETURNING d.delivery_id, d.webhook_id, w.url, w.secret, d.account, d.event_id, d.body, d.attempts,
    w.allow_private
"""


def take_due(database: Database, limit: int, except_of: Collection[str] = ()) -> list[Delivery]:
    """Take the deliveries that are due, oldest first: at most ``limit`` of each webhook, none of ``except_of``.

    No other sender gets them for :data:`LEASE_SECONDS`.
    """
    with database.transaction() as connection:
        rows = connection.execute(_TAKE, (timedelta(seconds=LEASE_SECONDS), limit, list(except_of)))
        return sorted((Delivery(*row) for row in rows), key=lambda delivery: delivery.delivery_id)


def give_back(database: Database, deliveries: Sequence[Delivery]) -> None:
    """Return deliveries that were taken but not sent. They are due at once, before newer deliveries."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_delivery SET next_try_at = created_at WHERE delivery_id = ANY (%s) AND state = %s",
            ([delivery.delivery_id for delivery in deliveries], DELIVERY_PENDING),
        )


def delivered(database: Database, delivery_id: int) -> None:
    """Store that a delivery succeeded."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_delivery SET state = %s, attempts = attempts + 1, finished_at = now(), last_error = NULL"
            " WHERE delivery_id = %s",
            (DELIVERED, delivery_id),
        )


def not_delivered(database: Database, delivery_id: int, error: str, retry_after_seconds: float | None) -> None:
    """Store a failed attempt: retry after ``retry_after_seconds``, or fail the delivery for good if it is None."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_delivery SET attempts = attempts + 1, last_error = %s,"
            " state = CASE WHEN %s::float8 IS NULL THEN %s ELSE state END,"
            " finished_at = CASE WHEN %s::float8 IS NULL THEN now() END,"
            " next_try_at = now() + coalesce(%s::float8, 0) * interval '1 second'"
            " WHERE delivery_id = %s AND state = %s",
            (
                error,
                retry_after_seconds,
                FAILED,
                retry_after_seconds,
                retry_after_seconds,
                delivery_id,
                DELIVERY_PENDING,
            ),
        )


def list_deliveries(
    database: Database, webhook_id: str | None, state: str | None, limit: int
) -> list[dict[str, str | int | None]]:
    """Return at most ``limit`` deliveries, newest first; a filter of None matches all."""
    with database.transaction() as connection:
        cursor = connection.execute(
            "SELECT delivery_id, webhook_id, event_id, type, account, state, attempts, last_error FROM webhook_delivery"
            " WHERE (%s::text IS NULL OR webhook_id = %s) AND (%s::text IS NULL OR state = %s)"
            " ORDER BY delivery_id DESC LIMIT %s",
            (webhook_id, webhook_id, state, state, limit),
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]


def replay(database: Database, webhook_id: str, since: datetime | None, *, failed_only: bool) -> int:
    """Make finished deliveries due again at once, with no attempts counted. Returns the number of deliveries."""
    with database.transaction() as connection:
        again = connection.execute(
            "UPDATE webhook_delivery SET state = %s, attempts = 0, next_try_at = now(), finished_at = NULL"
            " WHERE webhook_id = %s AND state = ANY(%s) AND (%s::timestamptz IS NULL OR created_at >= %s)"
            " AND EXISTS (SELECT FROM webhook WHERE webhook_id = %s AND removed_at IS NULL)",
            (DELIVERY_PENDING, webhook_id, [FAILED] if failed_only else [FAILED, DELIVERED], since, since, webhook_id),
        )
        return again.rowcount


def waiting_deliveries(database: Database) -> tuple[int, int]:
    """Return the number of pending deliveries, and the age of the oldest in milliseconds."""
    with database.transaction() as connection:
        row = connection.execute(
            "SELECT count(*), coalesce(extract(epoch FROM now() - min(created_at)) * 1000, 0)::bigint"
            " FROM webhook_delivery WHERE state = 'pending'"
        ).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def drop_finished(database: Database, older_than: timedelta) -> int:
    """Delete deliveries that finished longer ago than ``older_than``. Returns their number.

    They can no longer be replayed.
    """
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM webhook_delivery WHERE state <> %s AND finished_at < now() - %s",
            (DELIVERY_PENDING, older_than),
        ).rowcount


def fed_event(partition: int, offset: int, value: bytes) -> FedEvent:
    """Parse a record of ``account.events``."""
    event = json.loads(value)
    event_id = f"{event['source']}/{event['id']}"
    return FedEvent(partition, offset, event["subject"], event["type"], event_id, value)


def _webhooks(connection: Connection) -> list[tuple[str, str, str, str | None, list[str], datetime, bool]]:
    return connection.execute(
        "SELECT webhook_id, url, secret, account, types, created_at, allow_private FROM webhook"
        " WHERE removed_at IS NULL ORDER BY created_at, webhook_id"
    ).fetchall()


def _webhook(
    webhook_id: str,
    url: str,
    secret: str,
    account: str | None,
    types: list[str],
    created_at: datetime,
    allow_private: bool,
) -> Webhook:
    return Webhook(webhook_id, url, secret, account, tuple(types), created_at, allow_private)
