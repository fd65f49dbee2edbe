"""Every process of the stack serves health and metrics without a key, and the metrics move with the work."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from api_rig import Api, check_problem, until
from api_steps import opened
from prometheus_client.parser import text_string_to_metric_families
from test_usage_over_http import STRUCTURED, event

PROCESSES = {
    "worker-1": "tokenbill_events_total",
    "relay": "tokenbill_outbox_records",
    "scheduler": "tokenbill_scheduler_ticks_total",
    "webhooks": "tokenbill_webhook_events_read_total",
    "api-web": "tokenbill_http_requests_total",
}


def address(api: Api, process: str) -> str:
    return f"http://127.0.0.1:{api.info.ports[process]}"


def metrics(api: Api, process: str) -> dict[str, float]:
    """Return the sum of the samples of each name."""
    answer = httpx.get(f"{address(api, process)}/metrics", timeout=10)
    assert answer.status_code == 200
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_serves_health_and_metrics(api: Api, process: str) -> None:
    assert httpx.get(f"{address(api, process)}/healthz").json() == {"status": "ok"}
    until(lambda: httpx.get(f"{address(api, process)}/readyz").status_code == 200)
    ready = httpx.get(f"{address(api, process)}/readyz").json()
    assert (ready["ready"], ready["missing"]) == (True, [])
    assert httpx.get(f"{address(api, process)}/health").json()["ready"] is True
    until(lambda: PROCESSES[process] in metrics(api, process))
    found = metrics(api, process)
    assert found["process_resident_memory_bytes"] > 10 << 20
    assert found["process_cpu_seconds_total"] > 0 and found["process_open_fds"] > 5
    assert 0 < time.time() - found["process_start_time_seconds"] < 86_400


def test_metrics_move_with_the_work(api: Api) -> None:
    before = {process: metrics(api, process) for process in PROCESSES}
    account = opened(api, "measured", "10")
    answer = api.clients["admin"].post("/v1/usage", json=event(account, 1), headers=STRUCTURED)
    assert answer.status_code == 202, answer.text

    def moved(process: str, name: str) -> bool:
        return metrics(api, process).get(name, 0) > before[process].get(name, 0)

    for process, name in [
        ("worker-1", "tokenbill_events_total"),
        ("worker-1", "tokenbill_produced_to_committed_seconds_count"),
        ("relay", "tokenbill_published_records_total"),
        ("relay", "tokenbill_produced_to_published_seconds_count"),
        ("webhooks", "tokenbill_webhook_events_read_total"),
        ("scheduler", "tokenbill_scheduler_ticks_total"),
        ("api-web", "tokenbill_http_requests_total"),
        ("api-web", "tokenbill_http_request_seconds_count"),
    ]:
        until(lambda process=process, name=name: moved(process, name))
    relay = metrics(api, "relay")
    published = relay["tokenbill_produced_to_published_seconds_count"]
    assert relay["tokenbill_produced_to_published_seconds_sum"] / published < 60
    until(lambda: metrics(api, "relay")["tokenbill_outbox_records"] == 0)
    assert metrics(api, "relay")["tokenbill_outbox_oldest_seconds"] == 0
    with socket.create_connection(("127.0.0.1", api.info.ports["api"]), 10):
        until(lambda: metrics(api, "api-web")["tokenbill_http_connections"] >= 1, every=0.01)


def test_without_a_database_the_pages_say_what_is_missing(api: Api, tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            ports.append(str(found.getsockname()[1]))
    servers = {"TOKENBILL_KAFKA": api.kafka, "TOKENBILL_DATABASE_URL": "postgresql://u:hush@127.0.0.1:1/x"}
    arguments = ["serve", "--port", ports[0], "--web-port", ports[1]]
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "tokenbill", *arguments], env={**os.environ, **servers}, stderr=log
        )
    try:
        page = f"http://127.0.0.1:{ports[1]}"

        def missing() -> list[str]:
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(f"{page}/readyz", timeout=20)
                assert answer.status_code == 503
                return answer.json()["missing"]
            return []

        until(lambda: any("the database does not answer" in why for why in missing()))
        assert httpx.get(f"{page}/healthz").json() == {"status": "ok"}
        assert "process_open_fds" in httpx.get(f"{page}/metrics").text
        check_problem(httpx.get(f"http://127.0.0.1:{ports[0]}/readyz", timeout=20), 503, "database_down")
        again = subprocess.run(
            [sys.executable, "-m", "tokenbill", "serve", "--port", "0", "--web-port", ports[1]],
            env={**os.environ, **servers}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert again.returncode == 2 and f"--web-port {ports[1]} cannot be used" in again.stderr
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)
    assert "hush" not in (tmp_path / "log").read_text()


def test_the_api_itself_gives_metrics_to_nobody(api: Api) -> None:
    assert httpx.get(f"{api.url}/metrics").status_code == 401
