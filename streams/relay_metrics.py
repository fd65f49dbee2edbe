"""What the relay tells Prometheus, and the two pages that it serves."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from billing.commit import OutboxRow

_SECONDS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RelayMetrics:
    """One registry per process, so that tests can have several."""

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
        self.failures = Counter(
            "tokenbill_relay_failures",
            "Publications that failed and were tried again",
            ["what"],
            registry=self.registry,
        )

    def published(self, partition: int, rows: list[tuple[int, OutboxRow]], seconds: float) -> None:
        """Add what one transaction published."""
        for _, row in rows:
            self.records.labels(row.topic).inc(row.records)
        self.transactions.inc()
        self.publish_seconds.observe(seconds)
        self.position.labels(str(partition)).set(rows[-1][0])


def serve_pages(
    host: str, port: int, health: Callable[[], dict[str, object]], metrics: RelayMetrics
) -> ThreadingHTTPServer:
    """Serve ``/health`` (200 when ready, else 503) and ``/metrics`` from a daemon thread until ``shutdown()``."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                state = health()
                self._answer(200 if state["ready"] else 503, "application/json", json.dumps(state).encode())
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", generate_latest(metrics.registry))
            else:
                self._answer(404, "text/plain", b"/health or /metrics\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not logged."""

    server = ThreadingHTTPServer((host, port), Pages)
    threading.Thread(target=server.serve_forever, name="web", daemon=True).start()
    return server
