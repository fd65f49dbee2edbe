"""Webhooks in SQL: who is told of account events, and every delivery until it arrived or was given up.

Operational state, outside journal and digest. An event becomes deliveries in the same transaction that moves the
position behind it, so none is forgotten and none is filed twice; a delivery is sent at least once. Never sends.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import LiteralString

from billing.store.database import Connection, Database

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"
LEASE_SECONDS = 60
"""For so long nobody else takes a delivery that is being sent."""
_INTAKE_LOCK = 0x7462_7768  # "tbwh"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told. ``account`` None: of every account. ``types`` empty: of every type of event."""

    webhook_id: str
    url: str
    secret: str
    account: str | None
    types: tuple[str, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FedEvent:
    """One record of ``account.events``."""

    partition: int
    offset: int
    account: str
    type: str
    event_id: str
    """Unique over partitions: what a receiver recognises a repetition by."""
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook."""

    delivery_id: int
    url: str
    secret: str
    event_id: str
    body: bytes
    attempts: int
    """Attempts that failed so far."""


def add_webhook(database: Database, url: str, account: str | None, types: Sequence[str]) -> Webhook:
    """Tell ``url`` of events from now on."""
    with database.transaction() as connection:
        row = connection.execute(
            "INSERT INTO webhook (webhook_id, url, secret, account, types) VALUES (%s, %s, %s, %s, %s)"
            " RETURNING webhook_id, url, secret, account, types, created_at",
            (secrets.token_hex(6), url, secrets.token_urlsafe(32), account, sorted(set(types))),
        ).fetchall()[0]
    return _webhook(*row)


def list_webhooks(database: Database) -> list[Webhook]:
    """Those that are told, oldest first."""
    with database.transaction() as connection:
        return [_webhook(*row) for row in _webhooks(connection)]


def remove_webhook(database: Database, webhook_id: str) -> bool:
    """Tell it nothing more, what is pending included; False where there is none."""
    with database.transaction() as connection:
        removed = connection.execute(
            "UPDATE webhook SET removed_at = now() WHERE webhook_id = %s AND removed_at IS NULL", (webhook_id,)
        )
        connection.execute(
            "UPDATE webhook_delivery SET state = %s, last_error = 'the webhook was removed'"
            " WHERE webhook_id = %s AND state = %s",
            (FAILED, webhook_id, PENDING),
        )
        return removed.rowcount == 1


def take_intake_lock(connection: Connection) -> bool:
    """Whether this session files events from now on; one does at a time, until its session ends."""
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_INTAKE_LOCK,)).fetchone()
    return row is not None and bool(row[0])


def feed_positions(database: Database) -> dict[int, int]:
    """Next offset of ``account.events`` by partition, of those that were read before."""
    with database.transaction() as connection:
        return dict(connection.execute("SELECT partition, next_offset FROM webhook_position").fetchall())


def file_events(database: Database, events: Sequence[FedEvent], positions: dict[int, int]) -> int:
    """File events for the webhooks they concern, and move the positions behind them; returns the deliveries."""
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
    return len(rows)


_TAKE: LiteralString = """
UPDATE webhook_delivery AS d SET next_try_at = now() + %s
FROM (
    SELECT delivery_id FROM webhook_delivery WHERE state = %s AND next_try_at <= now()
    ORDER BY next_try_at, delivery_id LIMIT %s FOR UPDATE SKIP LOCKED
) AS due, webhook AS w
WHERE d.delivery_id = due.delivery_id AND w.webhook_id = d.webhook_id
RETURNING d.delivery_id, w.url, w.secret, d.event_id, d.body, d.attempts
"""


def take_due(database: Database, limit: int) -> list[Delivery]:
    """Deliveries whose time has come, oldest first; for :data:`LEASE_SECONDS` nobody else gets them."""
    with database.transaction() as connection:
        rows = connection.execute(_TAKE, (timedelta(seconds=LEASE_SECONDS), PENDING, limit))
        return sorted((Delivery(*row) for row in rows), key=lambda delivery: delivery.delivery_id)


def delivered(database: Database, delivery_id: int) -> None:
    """It arrived."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_delivery SET state = %s, attempts = attempts + 1, finished_at = now(), last_error = NULL"
            " WHERE delivery_id = %s",
            (DELIVERED, delivery_id),
        )


def not_delivered(database: Database, delivery_id: int, error: str, retry_after_seconds: float | None) -> None:
    """It did not arrive: try again after so many seconds, or give it up (None)."""
    with database.transaction() as connection:
        connection.execute(
            "UPDATE webhook_delivery SET attempts = attempts + 1, last_error = %s,"
            " state = CASE WHEN %s::float8 IS NULL THEN %s ELSE state END,"
            " finished_at = CASE WHEN %s::float8 IS NULL THEN now() END,"
            " next_try_at = now() + coalesce(%s::float8, 0) * interval '1 second'"
            " WHERE delivery_id = %s AND state = %s",
            (error, retry_after_seconds, FAILED, retry_after_seconds, retry_after_seconds, delivery_id, PENDING),
        )


def list_deliveries(
    database: Database, webhook_id: str | None, state: str | None, limit: int
) -> list[dict[str, str | int | None]]:
    """The newest deliveries, newest first."""
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
    """Send again what was delivered or given up, at once and from the first attempt; returns how many."""
    with database.transaction() as connection:
        again = connection.execute(
            "UPDATE webhook_delivery SET state = %s, attempts = 0, next_try_at = now(), finished_at = NULL"
            " WHERE webhook_id = %s AND state = ANY(%s) AND (%s::timestamptz IS NULL OR created_at >= %s)"
            " AND EXISTS (SELECT FROM webhook WHERE webhook_id = %s AND removed_at IS NULL)",
            (PENDING, webhook_id, [FAILED] if failed_only else [FAILED, DELIVERED], since, since, webhook_id),
        )
        return again.rowcount


def drop_finished(database: Database, older_than: timedelta) -> int:
    """Forget deliveries that were finished so long ago; they cannot be replayed any more."""
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM webhook_delivery WHERE state <> %s AND finished_at < now() - %s", (PENDING, older_than)
        ).rowcount


def fed_event(partition: int, offset: int, value: bytes) -> FedEvent:
    """A record of ``account.events`` as what is filed."""
    event = json.loads(value)
    event_id = f"{event['source']}/{event['id']}"
    return FedEvent(partition, offset, event["subject"], event["type"], event_id, value)


def _webhooks(connection: Connection) -> list[tuple[str, str, str, str | None, list[str], datetime]]:
    return connection.execute(
        "SELECT webhook_id, url, secret, account, types, created_at FROM webhook WHERE removed_at IS NULL"
        " ORDER BY created_at, webhook_id"
    ).fetchall()


def _webhook(
    webhook_id: str, url: str, secret: str, account: str | None, types: list[str], created_at: datetime
) -> Webhook:
    return Webhook(webhook_id, url, secret, account, tuple(types), created_at)
