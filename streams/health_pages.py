"""HTTP server for ``/healthz``, ``/readyz`` and ``/metrics``, for processes without another web server for them."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

ALIVE = b'{"status": "ok"}'
"""Body of ``/healthz``."""
METRICS_TYPE = "text/plain; version=0.0.4"
"""Content type of ``/metrics``."""
PATHS = ("/healthz", "/readyz", "/metrics")
DELAY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0)
"""Buckets of a delay from a log to what was made of it, in seconds."""
REQUEST_SECONDS = 10.0
"""Time for one request in all."""
REQUESTS_AT_ONCE = 16

HealthState = dict[str, Any]
"""``ready``, and ``missing``: the reasons why the process is not ready."""


def add_process_metrics(registry: CollectorRegistry) -> None:
    """Add ``process_*`` to a registry: resident memory, processor time, open files and start time of this process."""
    ProcessCollector(registry=registry)


class _Server(ThreadingHTTPServer):
    """Server whose requests are limited in number and in time, so that clients cannot collect threads."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._room = threading.BoundedSemaphore(REQUESTS_AT_ONCE)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        late = threading.Timer(REQUEST_SECONDS, _shut, (request,))
        late.daemon = True
        late.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            late.cancel()
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: it is the client that has left."""


def _shut(request: socket.socket) -> None:
    try:
        request.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile


def serve_pages(
    host: str, port: int, health: Callable[[], HealthState], registry: CollectorRegistry
) -> ThreadingHTTPServer:
    """Serve the pages from a daemon thread until ``shutdown()``.

    ``/healthz`` answers 200 while the process runs. ``/readyz`` returns ``health()`` with 200 if its ``ready`` is true,
    else with 503; ``/health`` is its old name. ``/metrics`` returns the registry, with ``process_*`` added to it.
    """
    add_process_metrics(registry)

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/healthz":
                self._answer(200, "application/json", ALIVE)
            elif path in ("/readyz", "/health"):
                state = health()
                self._answer(200 if state["ready"] else 503, "application/json", json.dumps(state).encode())
            elif path == "/metrics":
                self._answer(200, METRICS_TYPE, generate_latest(registry))
            else:
                self._answer(404, "text/plain", " ".join(PATHS).encode() + b"\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Discard the line: requests are not logged."""

    server = _Server((host, port), Pages)
    threading.Thread(target=server.serve_forever, name="web", daemon=True).start()
    return server
