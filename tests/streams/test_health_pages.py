"""Health and metrics pages: three paths, and a bound of requests in number and in time."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from streams import health_pages
from streams.health_pages import serve_pages


@pytest.fixture
def state() -> dict[str, object]:
    return {"ready": True, "missing": []}


@pytest.fixture
def port(state: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(health_pages, "REQUEST_SECONDS", 1.0)
    server = serve_pages("127.0.0.1", 0, lambda: state, CollectorRegistry())
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_the_paths_of_health(port: int, state: dict[str, object]) -> None:
    assert get(port, "/healthz") == (200, '{"status": "ok"}')
    for path in ("/readyz", "/health"):
        state.update(ready=True, missing=[])
        assert get(port, path) == (200, json.dumps(state))
        state.update(ready=False, missing=["the database"])
        assert get(port, path) == (503, json.dumps(state))
    assert get(port, "/healthz")[0] == 200
    assert get(port, "/nothing")[0] == 404


def test_metrics_have_those_of_the_process(port: int) -> None:
    status, text = get(port, "/metrics")
    found = {sample.name: sample.value for one in text_string_to_metric_families(text) for sample in one.samples}
    assert status == 200
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_cpu_seconds_total"] > 0 and found["process_open_fds"] > 3
    assert abs(time.time() - found["process_start_time_seconds"]) < 86_400


def test_requests_that_do_not_end_are_ended_and_hold_up_nobody_for_long(port: int) -> None:
    with contextlib.ExitStack() as held:
        lines = [held.enter_context(socket.create_connection(("127.0.0.1", port), 5)) for _ in range(60)]
        begun = time.monotonic()
        for line in lines:
            with contextlib.suppress(OSError):
                line.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        for line in lines:
            with contextlib.suppress(OSError):
                assert line.recv(1000) == b""
        assert time.monotonic() - begun < 4
    assert get(port, "/healthz")[0] == 200
