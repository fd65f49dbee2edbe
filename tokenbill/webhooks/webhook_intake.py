"""Intake of account events: stores each event once as a delivery for every webhook it matches. Sends nothing.

An event that changes what a charging session may be granted is stored as a notification to its gateway too.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing

from confluent_kafka import KafkaException

from billing.errors import DatabaseDown
from billing.store import webhook_rows as webhooks
from billing.store.charging_notice_rows import file_notices
from billing.store.database import Database, connect, schema_url
from schemas.topics import ACCOUNT_EVENT_TOPIC
from streams.read.feed import Feed
from tokenbill.webhooks.webhook_metrics import WebhookMetrics

log = logging.getLogger("tokenbill.webhooks")

_RECORDS_AT_ONCE = 500
_READ_SECONDS = 0.5
_WAIT_SECONDS = 2.0


class WebhookIntake:
    """Reader of ``account.events``; if several processes run, one at a time is active, chosen by a lock in SQL."""

    def __init__(self, database: Database, kafka: str, metrics: WebhookMetrics | None = None) -> None:
        self._database = database
        self._metrics = metrics or WebhookMetrics()
        self._kafka = kafka
        self._ended = threading.Event()

    def end(self) -> None:
        """Make :meth:`run` return soon."""
        self._ended.set()

    def run(self) -> None:
        """Store deliveries until :meth:`end`; retry while Kafka or the database is down."""
        while not self._ended.is_set():
            try:
                self._lead()
            except (DatabaseDown, KafkaException) as error:
                log.warning("%s; trying again", error)
            self._ended.wait(_WAIT_SECONDS)

    def _lead(self) -> None:
        with connect(schema_url(self._database.url), autocommit=True, application_name="tokenbill webhooks") as session:
            if not webhooks.take_intake_lock(session):
                return
            try:
                self._metrics.active.set(1)
                with closing(Feed(self._kafka, ACCOUNT_EVENT_TOPIC, webhooks.feed_positions(self._database))) as feed:
                    while not self._ended.is_set():
                        self._file(feed)
            finally:
                self._metrics.active.set(0)

    def _file(self, feed: Feed) -> None:
        messages = feed.read(_RECORDS_AT_ONCE, _READ_SECONDS)
        if not messages:
            return
        events = [
            webhooks.fed_event(message.partition() or 0, message.offset() or 0, message.value() or b"")
            for message in messages
        ]
        positions: dict[int, int] = {}
        for event in events:
            positions[event.partition] = event.offset + 1
        filed = webhooks.file_events(self._database, events, positions, file_notices)
        self._metrics.events.inc(len(events))
        self._metrics.filed.inc(filed)
