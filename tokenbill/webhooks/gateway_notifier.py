"""Sender of notifications to gateways (3GPP TS 32.291, Nchf_ConvergedCharging_Notify), retried for a few minutes.

A gateway gives its address with a session (``notifyUri``). The addresses are checked as those of webhooks: public ones,
and those in the networks that the operator names. Also files the notifications about prices, because a price changes
with time and not by an event.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpcore

from billing.catalog.model import Catalog
from billing.errors import DatabaseDown
from billing.store import charging_notice_rows as notices
from billing.store.charging_notice_rows import ChargingNotice
from billing.store.database import Database
from billing.store.published_catalog import catalog_epoch, read_catalog
from tokenbill.webhooks.receiver import IpNetwork, why_no_receiver
from tokenbill.webhooks.receiver_network import RESOLVERS, certificates, connections
from tokenbill.webhooks.webhook_metrics import WebhookMetrics
from tokenbill.webhooks.webhook_sender import post_once

log = logging.getLogger("tokenbill.charging")

NOTICE_RETRY_SECONDS = (2.0, 10.0, 60.0, 180.0)
"""Waits after failed attempts. After them the validity of the quotas is over, and the gateway asks by itself."""
PRICE_SECONDS = 5.0
"""Interval at which the prices in force are looked at."""
_AT_ONCE = 64
_IDLE_SECONDS = 0.5
_CLEAN_SECONDS = 3600.0
_KEEP = timedelta(days=1)
_GONE = (404, 410)
"""Statuses by which a gateway says that it has no such session."""


class GatewayNotifier:
    """Sender of all due notifications; several processes may run."""

    def __init__(
        self,
        database: Database,
        networks: Sequence[IpNetwork] = (),
        retry_seconds: Sequence[float] = NOTICE_RETRY_SECONDS,
        metrics: WebhookMetrics | None = None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._database = database
        self._networks = tuple(networks)
        self._retry_seconds = tuple(retry_seconds)
        self._metrics = metrics or WebhookMetrics()
        self._clock_us = clock_us
        self._ended = threading.Event()
        self._catalog: tuple[int, Catalog] | None = None
        self._in_force: dict[str, str] = {}

    def end(self) -> None:
        """Make :meth:`run` return after the requests in progress. May be called from any thread."""
        self._ended.set()

    def run(self) -> None:
        """Send until :meth:`end`; retry while the database is down."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        looked = cleaned = 0.0
        resolvers = ThreadPoolExecutor(RESOLVERS, "resolve")
        async with connections(resolvers, False, certificates(), self._networks) as pool:
            while not self._ended.is_set():
                sent = 0
                try:
                    if time.monotonic() - looked > PRICE_SECONDS:
                        await asyncio.to_thread(self.look_at_prices)
                        looked = time.monotonic()
                    if time.monotonic() - cleaned > _CLEAN_SECONDS:
                        await asyncio.to_thread(notices.drop_finished_notices, self._database, _KEEP)
                        cleaned = time.monotonic()
                    sent = await self.send_due(pool)
                except DatabaseDown as error:
                    log.warning("the database is away: %s", error)
                if not sent:
                    await asyncio.sleep(_IDLE_SECONDS)
        resolvers.shutdown(wait=False, cancel_futures=True)

    def look_at_prices(self) -> int:
        """File notifications if a book has another version in force than before. Return their number."""
        epoch = catalog_epoch(self._database)
        if self._catalog is None or self._catalog[0] != epoch:
            self._catalog = read_catalog(self._database)
        catalog, now_us = self._catalog[1], self._clock_us()
        names = {book.name for book in catalog.price_books}
        books = ((name, catalog.price_book_at(name, now_us)) for name in names)
        in_force = {name: book.label for name, book in books if book is not None}
        moved = {name: label for name, label in in_force.items() if self._in_force.get(name) != label}
        filed = notices.file_new_prices(self._database, moved) if moved else 0
        self._in_force = in_force
        return filed

    async def send_due(self, pool: httpcore.AsyncConnectionPool) -> int:
        """Make one attempt for each notification that is due, all at once. Return their number."""
        due = await asyncio.to_thread(notices.take_due_notices, self._database, _AT_ONCE)
        await asyncio.gather(*(self._send(pool, notice) for notice in due))
        return len(due)

    async def _send(self, pool: httpcore.AsyncConnectionPool, notice: ChargingNotice) -> None:
        if notice.over and notice.kind == notices.REAUTHORIZATION:
            await self._finish(notice, "the session has ended", again=False)
            return
        why = why_no_receiver(notice.uri)
        if why is not None:
            await self._finish(notice, f"no address of a receiver: {why}", again=False)
            return
        headers: dict[bytes | str, Any] = {"user-agent": "CHF-tokenbill", "content-type": "application/json"}
        status, error = await post_once(pool, notice.uri, headers, notice.body())
        await self._finish(notice, error, again=status not in _GONE)

    async def _finish(self, notice: ChargingNotice, error: str | None, again: bool) -> None:
        last = not again or notice.attempts >= len(self._retry_seconds)
        outcome = "delivered" if error is None else "given_up" if last else "failed"
        self._metrics.notices.labels(outcome).inc()
        if error is not None:
            log.warning("%s to %s of session %s: %s", notice.kind, notice.uri[:200], notice.session, error)
        retry = None if error is None or last else self._retry_seconds[notice.attempts]
        await asyncio.to_thread(notices.finish_notice, self._database, notice.notice_id, error, retry)
