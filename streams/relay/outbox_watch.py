"""Measures of the outbox for Prometheus: what waits in it, and the delay of what was published. Decides nothing.

It runs in a thread of its own and reads SQL, so that publications do not wait for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from billing.errors import StoreError
from streams.relay.relay_metrics import PublishedCommits, RelayMetrics

MEASURE_SECONDS = 2.0


class OutboxSize(NamedTuple):
    """The output of one partition that is committed and not published."""

    partition: int
    records: int
    bytes: int
    oldest_log_time_us: int | None
    """Log time of the oldest commit whose output waits; None if nothing waits."""


class OutboxMeasures(Protocol):
    """The part of ``billing.store.store.Store`` that this module uses."""

    def outbox_sizes(self) -> list[tuple[int, int, int, int | None]]:
        """Return the fields of :class:`OutboxSize` of each partition."""

    def log_times(self, commits: Sequence[tuple[int, int, int]], /) -> list[tuple[int, int]]:
        """Return (place in ``commits``, log time) of each commit; a range is (partition, first, last)."""


class OutboxWatch:
    """Sets the metrics of the outbox every :data:`MEASURE_SECONDS` seconds."""

    def __init__(self, store: OutboxMeasures, metrics: RelayMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox-watch", daemon=True)

    def start(self) -> None:
        """Measure from now on."""
        self._thread.start()

    def end(self) -> None:
        """Stop measuring."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(MEASURE_SECONDS):
            try:
                self.measure()
            except StoreError:
                self._metrics.forget_outbox()  # An old figure would look like a present one.

    def measure(self) -> None:
        """Measure once.

        Raises:
            StoreError: the database does not answer.
        """
        sizes = [OutboxSize(*row) for row in self._store.outbox_sizes()]
        now = time.time()
        for size in sizes:
            oldest = size.oldest_log_time_us
            age = 0.0 if oldest is None else max(0.0, now - oldest / 1e6)
            self._metrics.outbox(size.partition, size.records, size.bytes, age)
        published = self._metrics.taken_publications()
        if published:
            self._observe(published)

    def _observe(self, published: Sequence[PublishedCommits]) -> None:
        ranges = [(one.partition, one.first, one.last) for one in published]
        for place, log_time_us in self._store.log_times(ranges):
            self._metrics.delay.observe(max(0.0, published[place].at_seconds - log_time_us / 1e6))
