"""Prometheus metrics of the API. A request costs two additions; what Prometheus reads is made when it asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from tokenbill.api.http.bounded_connection import BoundedConnection

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class ApiMetrics:
    """The metrics of one API process, for one event loop."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.protocol: type[BoundedConnection] = BoundedConnection
        """The protocol of the connections that are counted."""
        self._answers: Counter[tuple[str, int]] = Counter()
        self._seconds = 0.0
        self._buckets = [0] * (len(_BUCKETS) + 1)
        self.registry.register(self)

    def answered(self, method: str, status: int, seconds: float) -> None:
        """Add a request."""
        self._answers[method, status] += 1
        self._seconds += seconds
        self._buckets[bisect_left(_BUCKETS, seconds)] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. Called by the registry, in the thread of the metrics page."""
        answers = CounterMetricFamily(
            "tokenbill_http_requests",
            "Requests answered; the status 499 counts clients that left before",
            labels=["method", "status"],
        )
        for (method, status), number in sorted(self._answers.copy().items()):
            answers.add_metric([method, str(status)], number)
        yield answers
        seconds = HistogramMetricFamily("tokenbill_http_request_seconds", "From the head of a request to its answer")
        total, buckets = 0, []
        for bound, number in zip((*map(str, _BUCKETS), "+Inf"), self._buckets, strict=True):
            total += number
            buckets.append((bound, total))
        seconds.add_metric([], buckets, self._seconds)
        yield seconds
        yield GaugeMetricFamily(
            "tokenbill_http_connections", "Open connections", sum(self.protocol.of_address.copy().values())
        )
        refused = CounterMetricFamily(
            "tokenbill_http_refused_connections", "Connections ended by a bound, or not HTTP", labels=["code"]
        )
        for code, number in sorted(self.protocol.refused.copy().items()):
            refused.add_metric([code], number)
        yield refused
