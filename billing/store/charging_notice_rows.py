"""Notifications to gateways in SQL: which sessions to notify, and each notification until it arrived or failed.

This is operational state, outside journal and digest. A notification is made for a session that named an address
(``notifyUri``) when what decided its quotas has changed: money or quota came in, or another version of the account's
price book is in force (``REAUTHORIZATION``), or the session must end (``ABORT_CHARGING``). Each cause is filed once for
a session, and the notification is sent at least once. This module sends nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from billing.reservations.charging import NOTIFY
from billing.store.database import Connection, Database
from billing.store.webhook_rows import FedEvent

REAUTHORIZATION, ABORT_CHARGING = "REAUTHORIZATION", "ABORT_CHARGING"
NOTICE_LEASE_SECONDS = 60
"""Time for which a notification that was taken is not given to another sender."""
_SUSPENDED = "account.suspended.v1"
_NOW_US: LiteralString = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_OPEN: LiteralString = f"h.state = 'open' AND h.kind = 'charging' AND h.steps ? '{NOTIFY}' AND h.expires_us > {_NOW_US}"
_INSERT: LiteralString = "INSERT INTO charging_notice (session, account, uri, kind, groups, cause)"
_OF_SESSION: LiteralString = f"h.reservation_id, h.account, h.steps->'{NOTIFY}'->>'uri'"
_GROUPS: LiteralString = f"h.steps->'{NOTIFY}'->'groups'"
_ONCE: LiteralString = "ON CONFLICT (session, cause) DO NOTHING"
ABORT_NOTICE: LiteralString = (
    f"{_INSERT} SELECT {_OF_SESSION}, '{ABORT_CHARGING}', {_GROUPS}, 'abort' FROM hold AS h"  # noqa: S608
    f" WHERE h.reservation_id = $1 AND {_OPEN} {_ONCE}"
)
"""Files the notification that a session is aborted, for the connection of :mod:`billing.store.holds.hold_book`."""

_OF_EVENTS: LiteralString = f"""
{_INSERT} SELECT {_OF_SESSION}, c.kind, {_GROUPS}, c.cause
FROM unnest(%s::text[], %s::text[], %s::text[]) AS c (account, kind, cause)
    JOIN hold AS h ON h.account = c.account AND {_OPEN}
WHERE c.kind = '{ABORT_CHARGING}' OR {_GROUPS} <> '[]' {_ONCE}
"""  # noqa: S608 (literals only)
_OF_PRICES: LiteralString = f"""
{_INSERT} SELECT {_OF_SESSION}, '{REAUTHORIZATION}', {_GROUPS}, 'price ' || b.label
FROM unnest(%s::text[], %s::text[]) AS b (name, label)
    JOIN account AS a ON a.price_book = b.name JOIN hold AS h ON h.account = a.account AND {_OPEN}
WHERE {_GROUPS} <> '[]' AND h.steps->'{NOTIFY}'->>'book' <> b.label {_ONCE}
"""  # noqa: S608 (literals only)


@dataclass(frozen=True, slots=True)
class ChargingNotice:
    """One notification to send."""

    notice_id: int
    session: str
    uri: str
    kind: str
    groups: tuple[int, ...]
    attempts: int
    """Number of failed attempts so far."""
    over: bool
    """True if the session has ended, so that nothing is to be authorised again."""

    def body(self) -> bytes:
        """Return the ChargingNotifyRequest."""
        shown: dict[str, Any] = {"notificationType": self.kind}
        if self.groups:
            shown["reauthorizationDetails"] = [{"ratingGroup": group} for group in self.groups]
        return json.dumps(shown).encode()


def kind_of(event: FedEvent) -> str | None:
    """Return the notification that an account event causes; None if it causes none."""
    if event.type == _SUSPENDED:
        return ABORT_CHARGING
    movements = json.loads(event.body).get("data", {}).get("movements", ())
    came = (one.get(name, "0") for one in movements for name in ("wallet", "quantity"))
    return REAUTHORIZATION if any(not text.startswith("-") and text != "0" for text in came) else None


def file_notices(connection: Connection, events: Sequence[FedEvent]) -> int:
    """File the notifications that account events cause, in the transaction that files the events. Return the number."""
    caused = [(event.account, kind, event.event_id) for event in events if (kind := kind_of(event)) is not None]
    if not caused:
        return 0
    return connection.execute(_OF_EVENTS, tuple(map(list, zip(*caused, strict=True)))).rowcount


def file_new_prices(database: Database, in_force: Mapping[str, str]) -> int:
    """File a notification for each session that was last answered by another version of a book. Return the number.

    ``in_force`` are the labels of the versions in force, by the names of their books.
    """
    with database.transaction() as connection:
        return connection.execute(_OF_PRICES, (list(in_force), list(in_force.values()))).rowcount


_TAKE: LiteralString = f"""
UPDATE charging_notice AS n SET next_try_at = now() + %s
FROM (SELECT notice_id FROM charging_notice WHERE state = 'pending' AND next_try_at <= now()
      ORDER BY next_try_at, notice_id LIMIT %s FOR UPDATE SKIP LOCKED) AS due
WHERE n.notice_id = due.notice_id
RETURNING n.notice_id, n.session, n.uri, n.kind, n.groups, n.attempts,
    NOT EXISTS (SELECT FROM hold AS h WHERE h.reservation_id = n.session AND h.state = 'open' AND
                h.expires_us > {_NOW_US})
"""  # noqa: S608


def take_due_notices(database: Database, limit: int) -> list[ChargingNotice]:
    """Take the notifications that are due, oldest first. No other sender gets them for a lease."""
    with database.transaction() as connection:
        rows = connection.execute(_TAKE, (timedelta(seconds=NOTICE_LEASE_SECONDS), limit)).fetchall()
    found = [
        ChargingNotice(notice_id, session, uri, kind, tuple(groups), attempts, over)
        for notice_id, session, uri, kind, groups, attempts, over in rows
    ]
    return sorted(found, key=lambda notice: notice.notice_id)


def finish_notice(database: Database, notice_id: int, error: str | None, retry_after_seconds: float | None) -> None:
    """Store an attempt: delivered if there is no error, else to retry, or failed for good if there is no time."""
    state = "delivered" if error is None else "failed" if retry_after_seconds is None else "pending"
    with database.transaction() as connection:
        connection.execute(
            "UPDATE charging_notice SET state = %s, attempts = attempts + 1, last_error = %s,"
            " finished_at = CASE WHEN %s = 'pending' THEN NULL ELSE now() END,"
            " next_try_at = now() + %s * interval '1 second' WHERE notice_id = %s AND state = 'pending'",
            (state, error, state, retry_after_seconds or 0, notice_id),
        )


def drop_finished_notices(database: Database, older_than: timedelta) -> int:
    """Delete notifications that finished longer ago than ``older_than``. Return their number."""
    with database.transaction() as connection:
        return connection.execute(
            "DELETE FROM charging_notice WHERE state <> 'pending' AND finished_at < now() - %s", (older_than,)
        ).rowcount


def list_notices(database: Database, session: str | None = None) -> list[dict[str, Any]]:
    """Return the notifications, newest first, as JSON objects: all, or those of one session."""
    with database.transaction() as connection:
        cursor = connection.execute(
            "SELECT session, account, uri, kind, groups, cause, state, attempts, last_error FROM charging_notice"
            " WHERE %s::text IS NULL OR session = %s ORDER BY notice_id DESC",
            (session, session),
        )
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor]
