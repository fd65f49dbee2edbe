"""Sends deliveries: signs, posts, and decides when to try again. Knows no Kafka.

Signed as the Standard Webhooks specification says (standardwebhooks.com): HMAC-SHA256 over "id.timestamp.body".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx

from billing.store import DatabaseDown, webhooks
from billing.store.database import Database
from billing.store.webhooks import Delivery

log = logging.getLogger("tokenbill.webhooks")

POST_SECONDS = 15.0
RETRY_SECONDS = (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
"""Waits after each failed attempt: three days in all; then it is given up, until somebody replays it."""
KEEP = timedelta(days=30)
"""So long finished deliveries can be replayed."""
CONCURRENCY = 8
_IDLE_SECONDS = 0.5
_CLEAN_SECONDS = 3600.0


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """The ``webhook-signature`` header."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class Sender:
    """Sends what is due, for ever, a few at a time; several processes may."""

    def __init__(self, database: Database, retry_seconds: tuple[float, ...] = RETRY_SECONDS) -> None:
        self._database = database
        self._retry_seconds = retry_seconds
        self._client = httpx.Client(timeout=POST_SECONDS, follow_redirects=False)
        self._ended = threading.Event()

    def end(self) -> None:
        """Let :meth:`run` return after what it is sending."""
        self._ended.set()

    def run(self) -> None:
        """Send until :meth:`end`. A database that is away is waited for."""
        cleaned = 0.0
        with ThreadPoolExecutor(CONCURRENCY, "deliver") as pool, self._client:
            while not self._ended.is_set():
                try:
                    due = webhooks.take_due(self._database, CONCURRENCY * 4)
                    list(pool.map(self.send, due))
                    if time.monotonic() - cleaned > _CLEAN_SECONDS:
                        webhooks.drop_finished(self._database, KEEP)
                        cleaned = time.monotonic()
                except DatabaseDown as error:
                    log.warning("the database is away: %s", error)
                    due = []
                if not due:
                    self._ended.wait(_IDLE_SECONDS)

    def send(self, delivery: Delivery) -> None:
        """One attempt; what came of it is in SQL when this returns."""
        error = self._post(delivery)
        if error is None:
            webhooks.delivered(self._database, delivery.delivery_id)
            return
        last = delivery.attempts >= len(self._retry_seconds)
        log.warning("%s to %s: %s%s", delivery.event_id, delivery.url, error, "; given up" if last else "")
        retry = None if last else self._retry_seconds[delivery.attempts]
        webhooks.not_delivered(self._database, delivery.delivery_id, error, retry)

    def _post(self, delivery: Delivery) -> str | None:
        """What went wrong, None where the receiver took it (2xx)."""
        timestamp = int(time.time())
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(delivery.secret, delivery.event_id, timestamp, delivery.body),
        }
        try:
            answer = self._client.post(delivery.url, content=delivery.body, headers=headers)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        return None if answer.is_success else f"status {answer.status_code}"
