"""Prometheus metrics of the relay."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from billing.commits.commit_record import OutboxRow
from streams.health_pages import DELAY_SECONDS

_KEPT_PUBLICATIONS = 10_000
_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class PublishedCommits(NamedTuple):
    """The commits ``first`` to ``last`` of a partition, whose output was published together."""

    partition: int
    first: int
    last: int
    at_seconds: float
    """Time of the publication in seconds since 1970."""


class RelayMetrics:
    """The metrics of one relay, in a registry of their own so that a test process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.records = Counter("tokenbill_published_records", "Records published", ["topic"], registry=self.registry)
        self.transactions = Counter("tokenbill_publish_transactions", "Kafka transactions", registry=self.registry)
        self.publish_seconds = Histogram(
            "tokenbill_publish_seconds", "One publication, SQL to SQL", buckets=_SECONDS, registry=self.registry
        )
        self.position = Gauge(
            "tokenbill_published_commit", "Last commit published", ["partition"], registry=self.registry
        )
        self.stopped = Gauge(
            "tokenbill_relay_stopped", "1 if the partition waits for a person", ["partition"], registry=self.registry
        )
        self.failures = Counter(
            "tokenbill_relay_failures",
            "Publications that failed and were tried again",
            ["what"],
            registry=self.registry,
        )
        self.delay = Histogram(
            "tokenbill_produced_to_published_seconds",
            "From the log time of a commit (LogAppendTime of its newest record) to the publication of its output",
            buckets=DELAY_SECONDS,
            registry=self.registry,
        )
        self.outbox_records = Gauge(
            "tokenbill_outbox_records", "Records committed and not published", ["partition"], registry=self.registry
        )
        self.outbox_bytes = Gauge(
            "tokenbill_outbox_bytes", "Bytes committed and not published", ["partition"], registry=self.registry
        )
        self.outbox_oldest = Gauge(
            "tokenbill_outbox_oldest_seconds",
            "Age of the oldest output that is committed and not published; 0 if there is none",
            ["partition"],
            registry=self.registry,
        )
        self._publications: deque[PublishedCommits] = deque(maxlen=_KEPT_PUBLICATIONS)

    def outbox(self, partition: int, records: int, size_bytes: int, oldest_seconds: float) -> None:
        """Set the measures of one partition's outbox."""
        self.outbox_records.labels(str(partition)).set(records)
        self.outbox_bytes.labels(str(partition)).set(size_bytes)
        self.outbox_oldest.labels(str(partition)).set(oldest_seconds)

    def forget_outbox(self) -> None:
        """Remove the measures of the outbox, because they are unknown now."""
        for gauge in (self.outbox_records, self.outbox_bytes, self.outbox_oldest):
            gauge.clear()

    def taken_publications(self) -> list[PublishedCommits]:
        """Return the publications since the last call. Of very many, the oldest are left out."""
        return [self._publications.popleft() for _ in range(len(self._publications))]

    def published(self, partition: int, rows: list[tuple[int, OutboxRow]], seconds: float) -> None:
        """Add the rows and the duration of one published transaction."""
        for _, row in rows:
            self.records.labels(row.topic).inc(row.records)
        self.transactions.inc()
        self._publications.append(PublishedCommits(partition, rows[0][0], rows[-1][0], time.time()))
        self.publish_seconds.observe(seconds)
        self.position.labels(str(partition)).set(rows[-1][0])
