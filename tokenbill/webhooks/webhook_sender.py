"""Sender of deliveries: signs and posts them, and schedules retries. Reads only SQL, not Kafka.

The signature follows the Standard Webhooks specification (standardwebhooks.com): HMAC-SHA256 over "id.timestamp.body".

Each webhook has lanes of its own, so a slow or unreachable receiver does not delay the others: an attempt that waits
holds a socket and no thread, and ends at its deadline, whatever the receiver sends until then. The deliveries of one
account to a webhook pass through one lane, one after the other, so they arrive in order unless an attempt fails.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import hashlib
import hmac
import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import ParamSpec, TypeVar

import httpcore

from billing.errors import DatabaseDown
from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.webhook_rows import Delivery
from tokenbill.webhooks.receiver_network import RESOLVERS, certificates, connections
from tokenbill.webhooks.webhook_metrics import WebhookMetrics

log = logging.getLogger("tokenbill.webhooks")

T = TypeVar("T")
P = ParamSpec("P")

POST_SECONDS = 15.0
"""Time for one attempt in all: name, connection, TLS, request and status."""
RETRY_SECONDS = (5, 30, 120, 600, 3600, 6 * 3600, 12 * 3600, 24 * 3600, 24 * 3600)
"""Waits after failed attempts, just under three days in total; then the delivery is failed until it is replayed."""
KEEP = timedelta(days=30)
"""Time for which finished deliveries are kept and can be replayed."""
LANES = 4
"""Largest number of concurrent requests to one webhook."""
CONCURRENCY = 1_000
"""Largest number of concurrent requests to all webhooks, including those that wait for slow receivers."""
FAILING = CONCURRENCY // 2
"""Largest number of concurrent requests to webhooks whose last attempt failed. The others are for those that answer."""
TAKEN_AT_ONCE = 64
"""Largest number of deliveries of one webhook that are taken from SQL together."""
_ANSWER_BYTES = 1 << 16
_ANSWER_SECONDS = 1.0
_ERROR_CHARACTERS = 500
"""Length of a stored error, part of which the receiver may choose."""
_SQL_THREADS = 8
_IDLE_SECONDS = 0.5
_CLEAN_SECONDS = 3600.0
_MEASURE_SECONDS = 15.0


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

    def __init__(
        self,
        database: Database,
        retry_seconds: tuple[float, ...] = RETRY_SECONDS,
        metrics: WebhookMetrics | None = None,
    ) -> None:
        self._database = database
        self._retry_seconds = retry_seconds
        self._metrics = metrics or WebhookMetrics()
        self._ended = threading.Event()
        self._lanes: Counter[str] = Counter()
        self._failing: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._sql: ThreadPoolExecutor
        self._public: httpcore.AsyncConnectionPool
        self._permitted: httpcore.AsyncConnectionPool

    def end(self) -> None:
        """Make :meth:`run` return after the requests in progress. May be called from any thread."""
        self._ended.set()

    def run(self) -> None:
        """Send until :meth:`end`; retry while the database is down."""
        asyncio.run(self._run())

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Open the pools of connections and threads for the running event loop."""
        verify = certificates()
        resolvers = ThreadPoolExecutor(RESOLVERS, "resolve")
        self._sql = ThreadPoolExecutor(_SQL_THREADS, "sql")
        try:
            async with (
                connections(resolvers, False, verify) as self._public,
                connections(resolvers, True, verify) as self._permitted,
            ):
                yield
        finally:
            self._sql.shutdown()
            resolvers.shutdown(wait=False, cancel_futures=True)

    async def _run(self) -> None:
        cleaned = measured = 0.0
        async with self.opened():
            while not self._ended.is_set():
                due: list[Delivery] = []
                try:
                    if self._lanes.total() < CONCURRENCY:
                        due = await self._in_sql(webhooks.take_due, self._database, TAKEN_AT_ONCE, self._busy())
                        self._start(due)
                    if time.monotonic() - cleaned > _CLEAN_SECONDS:
                        await self._in_sql(webhooks.drop_finished, self._database, KEEP)
                        cleaned = time.monotonic()
                    if time.monotonic() - measured > _MEASURE_SECONDS:
                        pending, oldest_ms = await self._in_sql(webhooks.waiting_deliveries, self._database)
                        self._metrics.pending.set(pending)
                        self._metrics.oldest.set(oldest_ms / 1e3)
                        measured = time.monotonic()
                except DatabaseDown as error:
                    log.warning("the database is away: %s", error)
                if not due:
                    await self._idle()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _idle(self) -> None:
        """Wait until a lane ends, or for a short time."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(_IDLE_SECONDS)

    async def _in_sql(self, work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._sql, functools.partial(work, *args, **named))

    def _busy(self) -> set[str]:
        """Return the webhooks of which nothing is taken now; their deliveries wait in SQL.

        Those are the webhooks with a lane in progress, and all failing ones while these have their part of the lanes.
        """
        busy = {webhook_id for webhook_id, lanes in self._lanes.items() if lanes}
        if sum(self._lanes[webhook_id] for webhook_id in self._failing) >= FAILING:
            busy |= self._failing
        return busy

    def _start(self, due: Sequence[Delivery]) -> None:
        lanes: dict[tuple[str, int], list[Delivery]] = {}
        for delivery in due:
            lane = zlib.crc32(delivery.account.encode()) % LANES
            lanes.setdefault((delivery.webhook_id, lane), []).append(delivery)
        until = time.monotonic() + webhooks.LEASE_SECONDS - 2 * POST_SECONDS
        for (webhook_id, _), deliveries in lanes.items():
            self._lanes[webhook_id] += 1
            task = asyncio.create_task(self._send_lane(webhook_id, deliveries, until))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._metrics.lanes.set(self._lanes.total())

    async def _send_lane(self, webhook_id: str, deliveries: Sequence[Delivery], until: float) -> None:
        """Send the deliveries one after the other while their lease lasts, and give back the rest."""
        try:
            for place, delivery in enumerate(deliveries):
                if self._ended.is_set() or time.monotonic() > until:
                    await self._in_sql(webhooks.give_back, self._database, deliveries[place:])
                    break
                await self.send(delivery)
        except DatabaseDown as error:
            log.warning("the database is away: %s", error)
        except Exception:  # a defect with one webhook must not end the others
            log.exception("deliveries to webhook %s failed; they are sent again", webhook_id)
        finally:
            self._lanes[webhook_id] -= 1
            if not self._lanes[webhook_id]:
                del self._lanes[webhook_id]
            self._metrics.lanes.set(self._lanes.total())

    async def send(self, delivery: Delivery) -> None:
        """Make one attempt and store its result in SQL."""
        begun = time.perf_counter()
        error = await self._post(delivery)
        self._metrics.attempt_seconds.observe(time.perf_counter() - begun)
        if error is None:
            self._failing.discard(delivery.webhook_id)
            self._metrics.attempts.labels("delivered").inc()
            await self._in_sql(webhooks.delivered, self._database, delivery.delivery_id)
            return
        self._failing.add(delivery.webhook_id)
        last = delivery.attempts >= len(self._retry_seconds)
        self._metrics.attempts.labels("given_up" if last else "failed").inc()
        log.warning(
            "%s to webhook %s: %s%s", delivery.event_id, delivery.webhook_id, error, "; given up" if last else ""
        )
        retry = None if last else self._retry_seconds[delivery.attempts]
        await self._in_sql(webhooks.not_delivered, self._database, delivery.delivery_id, error, retry)

    async def _post(self, delivery: Delivery) -> str | None:
        """Post a delivery; return None if the receiver accepted it (status 2xx), else the error."""
        timestamp = int(time.time())
        headers: dict[bytes | str, bytes | str] = {
            "user-agent": "tokenbill",
            "accept": "*/*",
            "content-type": "application/cloudevents+json",
            "webhook-id": delivery.event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(delivery.secret, delivery.event_id, timestamp, delivery.body),
        }
        pool = self._permitted if delivery.allow_private else self._public
        return (await post_once(pool, delivery.url, headers, delivery.body))[1]


_FAILURES = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)


async def post_once(
    pool: httpcore.AsyncConnectionPool, url: str, headers: dict[bytes | str, bytes | str], body: bytes
) -> tuple[int | None, str | None]:
    """Post a body within :data:`POST_SECONDS`.

    Returns:
        The status, None if there was no answer; and the error, None if the receiver accepted the body (status 2xx).
    """
    status: int | None = None
    error = ""
    try:
        async with (
            asyncio.timeout(POST_SECONDS),
            pool.stream("POST", url, headers=headers, content=body) as answer,
        ):
            status = answer.status
            # Only the status matters; the body is read, within limits, so that the connection can be reused.
            if 200 <= status < 300:
                await _read_away(answer)
    except TimeoutError:
        error = f"no answer within {POST_SECONDS:g} s"
    except (*_FAILURES, OSError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"[:_ERROR_CHARACTERS]
    if status is None:
        return None, error
    return status, None if 200 <= status < 300 else f"status {status}"


async def _read_away(answer: httpcore.Response) -> None:
    left = _ANSWER_BYTES
    with contextlib.suppress(TimeoutError, *_FAILURES):
        async with asyncio.timeout(_ANSWER_SECONDS):
            async for piece in answer.aiter_stream():
                left -= len(piece)
                if left < 0:
                    break
