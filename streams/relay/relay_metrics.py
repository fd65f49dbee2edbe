"""Prometheus metrics of the relay."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from billing.commits.commit_record import OutboxRow

_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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

    def published(self, partition: int, rows: list[tuple[int, OutboxRow]], seconds: float) -> None:
        """Add the rows and the duration of one published transaction."""
        for _, row in rows:
            self.records.labels(row.topic).inc(row.records)
        self.transactions.inc()
        self.publish_seconds.observe(seconds)
        self.position.labels(str(partition)).set(rows[-1][0])
