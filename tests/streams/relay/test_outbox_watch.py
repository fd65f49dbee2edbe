"""Measures of the outbox: set from SQL, removed while SQL is away, and the delay of each published commit once.

The store is a stand-in, because these tests are about its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from billing.commits.commit_record import OutboxRow
from billing.errors import DatabaseDown
from streams.relay import outbox_watch
from streams.relay.outbox_watch import OutboxWatch
from streams.relay.relay_metrics import RelayMetrics


class Sizes:
    """Two partitions, of which the second has output that is a minute old."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[list[tuple[int, int, int]]] = []

    def outbox_sizes(self) -> list[tuple[int, int, int, int | None]]:
        if self.down:
            raise DatabaseDown("away")
        return [(0, 0, 0, None), (1, 30, 4_000, time.time_ns() // 1000 - 60_000_000)]

    def log_times(self, commits: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
        self.asked.append(list(commits))
        return [(0, time.time_ns() // 1000 - 3_000_000), (0, time.time_ns() // 1000 + 1_000_000)]


def value(metrics: RelayMetrics, name: str, **labels: str) -> float | None:
    found: float | None = metrics.registry.get_sample_value(name, labels)
    return found


def wait_for(ready: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_the_outbox_is_measured_and_forgotten_while_sql_is_away(monkeypatch) -> None:
    monkeypatch.setattr(outbox_watch, "MEASURE_SECONDS", 0.02)
    store, metrics = Sizes(), RelayMetrics()
    watch = OutboxWatch(store, metrics)
    watch.start()
    wait_for(lambda: value(metrics, "tokenbill_outbox_records", partition="1") == 30)
    assert value(metrics, "tokenbill_outbox_bytes", partition="1") == 4_000
    assert 59 < (value(metrics, "tokenbill_outbox_oldest_seconds", partition="1") or 0) < 70
    assert value(metrics, "tokenbill_outbox_oldest_seconds", partition="0") == 0
    store.down = True
    wait_for(lambda: value(metrics, "tokenbill_outbox_records", partition="1") is None)
    store.down = False
    wait_for(lambda: value(metrics, "tokenbill_outbox_records", partition="0") == 0)
    watch.end()


def test_the_delay_of_a_published_commit_counts_once() -> None:
    store, metrics = Sizes(), RelayMetrics()
    watch = OutboxWatch(store, metrics)
    row = OutboxRow("usage.rated", 1, 1, b"")
    metrics.published(1, [(7, row), (8, row)], 0.1)
    watch.measure()
    watch.measure()
    assert store.asked == [[(1, 7, 8)]]
    assert value(metrics, "tokenbill_produced_to_published_seconds_count") == 2
    total = value(metrics, "tokenbill_produced_to_published_seconds_sum") or 0
    assert 2.9 < total < 4  # the commit whose log time is ahead of this clock counts as 0
