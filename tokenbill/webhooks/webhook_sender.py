"""Sender of deliveries: signs and posts them, and schedules retries. Reads only SQL, not Kafka.

The signature follows the Standard Webhooks specification (standardwebhooks.com): HMAC-SHA256 over "id.timestamp.body".

Each webhook has lanes of its own, so a slow or unreachable receiver does not delay the others. The deliveries of one
account to a webhook pass through one lane, one after the other, so they arrive in order unless an attempt fails.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx

from billing.errors import DatabaseDown
from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.webhook_rows import Delivery

log = logging.getLogger("tokenbill.webhooks")

POST_SECONDS = 15.0
RETRY_SECONDS = (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
"""Waits after failed attempts, just under three days in total; then the delivery is failed until it is replayed."""
KEEP = timedelta(days=30)
"""Time for which finished deliveries are kept and can be replayed."""
LANES = 4
"""Largest number of concurrent requests to one webhook."""
CONCURRENCY = 32
"""Largest number of concurrent requests to all webhooks, including those that wait for slow receivers."""
TAKEN_AT_ONCE = 64
"""Largest number of deliveries of one webhook that are taken from SQL together."""
_ANSWER_BYTES = 1 << 16
_IDLE_SECONDS = 0.5
_CLEAN_SECONDS = 3600.0


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of the ``webhook-signature`` header; ``timestamp`` is in seconds since 1970."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    # A secret without the prefix was made by an older version; its text is the key.
    of_spec = secret.startswith(webhooks.SECRET_PREFIX)
    key = base64.b64decode(secret.removeprefix(webhooks.SECRET_PREFIX)) if of_spec else secret.encode()
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


class WebhookSender:
    """Sender of all due deliveries; several processes may run at the same time."""

    def __init__(self, database: Database, retry_seconds: tuple[float, ...] = RETRY_SECONDS) -> None:
        self._database = database
        self._retry_seconds = retry_seconds
        limits = httpx.Limits(max_connections=CONCURRENCY)
        self._client = httpx.Client(timeout=POST_SECONDS, follow_redirects=False, limits=limits)
        self._ended = threading.Event()
        self._lanes: Counter[str] = Counter()
        self._lane_ended = threading.Condition()

    def end(self) -> None:
        """Make :meth:`run` return after the requests in progress."""
        self._ended.set()
        with self._lane_ended:
            self._lane_ended.notify_all()

    def run(self) -> None:
        """Send until :meth:`end`; retry while the database is down."""
        cleaned = 0.0
        with ThreadPoolExecutor(CONCURRENCY, "deliver") as pool, self._client:
            while not self._ended.is_set():
                try:
                    due = webhooks.take_due(self._database, TAKEN_AT_ONCE, self._busy())
                    self._start(pool, due)
                    if time.monotonic() - cleaned > _CLEAN_SECONDS:
                        webhooks.drop_finished(self._database, KEEP)
                        cleaned = time.monotonic()
                except DatabaseDown as error:
                    log.warning("the database is away: %s", error)
                    due = []
                with self._lane_ended:
                    if not self._ended.is_set() and (not due or self._lanes.total() >= CONCURRENCY):
                        self._lane_ended.wait(_IDLE_SECONDS)

    def _busy(self) -> set[str]:
        """Return the webhooks with a lane in progress; their other deliveries wait in SQL, not in a thread."""
        with self._lane_ended:
            return {webhook_id for webhook_id, lanes in self._lanes.items() if lanes}

    def _start(self, pool: ThreadPoolExecutor, due: Sequence[Delivery]) -> None:
        lanes: dict[tuple[str, int], list[Delivery]] = {}
        for delivery in due:
            lane = zlib.crc32(delivery.account.encode()) % LANES
            lanes.setdefault((delivery.webhook_id, lane), []).append(delivery)
        until = time.monotonic() + webhooks.LEASE_SECONDS - 2 * POST_SECONDS
        with self._lane_ended:
            self._lanes.update(webhook_id for webhook_id, _ in lanes)
        for (webhook_id, _), deliveries in lanes.items():
            pool.submit(self._send_lane, webhook_id, deliveries, until)

    def _send_lane(self, webhook_id: str, deliveries: Sequence[Delivery], until: float) -> None:
        """Send the deliveries one after the other while their lease lasts, and give back the rest."""
        try:
            for place, delivery in enumerate(deliveries):
                if self._ended.is_set() or time.monotonic() > until:
                    webhooks.give_back(self._database, deliveries[place:])
                    break
                self.send(delivery)
        except DatabaseDown as error:
            log.warning("the database is away: %s", error)
        except Exception:  # logged here, because the pool discards exceptions of its threads
            log.exception("deliveries to %s failed; they are sent again", deliveries[0].url)
        finally:
            with self._lane_ended:
                self._lanes[webhook_id] -= 1
                self._lane_ended.notify_all()

    def send(self, delivery: Delivery) -> None:
        """Make one attempt and store its result in SQL."""
        error = self._post(delivery)
        if error is None:
            webhooks.delivered(self._database, delivery.delivery_id)
            return
        last = delivery.attempts >= len(self._retry_seconds)
        log.warning("%s to %s: %s%s", delivery.event_id, delivery.url, error, "; given up" if last else "")
        retry = None if last else self._retry_seconds[delivery.attempts]
        webhooks.not_delivered(self._database, delivery.delivery_id, error, retry)

    def _post(self, delivery: Delivery) -> str | None:
        """Post a delivery; return None if the receiver accepted it (status 2xx), else the error."""
        timestamp = int(time.time())
        headers = {
            "content-type": "application/cloudevents+json",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(delivery.secret, delivery.event_id, timestamp, delivery.body),
        }
        try:
            until = time.monotonic() + POST_SECONDS
            with self._client.stream("POST", delivery.url, content=delivery.body, headers=headers) as answer:
                # Only the status matters; the body is read, within limits, so that the connection can be reused.
                if answer.is_success:
                    _read_away(answer, until)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        return None if answer.is_success else f"status {answer.status_code}"


def _read_away(answer: httpx.Response, until: float) -> None:
    left = _ANSWER_BYTES
    with contextlib.suppress(httpx.HTTPError):
        for piece in answer.iter_raw():
            left -= len(piece)
            if left < 0 or time.monotonic() > until:
                break
