"""The table of metrics in docs/OPERATIONS.md has every metric of every process, with its type, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from streams.health_pages import add_process_metrics
from streams.relay.relay_metrics import RelayMetrics
from streams.scheduler import SchedulerMetrics
from streams.worker.worker_metrics import WorkerMetrics
from tokenbill.api.http.api_metrics import ApiMetrics
from tokenbill.webhooks.webhook_metrics import WebhookMetrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "OPERATIONS.md"
ROW = re.compile(r"^\| `([a-z_]+)` \| (\w+) \| ([^|]+) \| (\w+) \| ([^|]+) \|$", re.MULTILINE)


def of_processes() -> CollectorRegistry:
    registry = CollectorRegistry()
    add_process_metrics(registry)
    return registry


REGISTRIES = {
    "all": of_processes,
    "worker": lambda: WorkerMetrics().registry,
    "relay": lambda: RelayMetrics().registry,
    "scheduler": lambda: SchedulerMetrics().registry,
    "webhooks": lambda: WebhookMetrics().registry,
    "api": lambda: ApiMetrics().registry,
}


@pytest.mark.parametrize("process", REGISTRIES)
def test_the_table_has_the_metrics_of_a_process(process: str) -> None:
    metrics = REGISTRIES[process]().collect()
    served = {one.name + ("_total" if one.type == "counter" else ""): one.type for one in metrics}
    listed = {name: kind for name, kind, _, of, _ in ROW.findall(PAGE.read_text()) if of == process}
    assert listed == served


def test_every_row_names_a_process_a_unit_and_a_meaning() -> None:
    rows = ROW.findall(PAGE.read_text())
    assert len(rows) == len({name for name, *_ in rows}) > 30
    for name, _, unit, of, meaning in rows:
        assert of in REGISTRIES and unit.strip() and meaning.strip(), name
        for suffix in ("seconds", "bytes", "records"):
            if name.removesuffix("_total").endswith(f"_{suffix}"):
                assert unit.startswith(suffix), name
