"""HTTP server for ``/health`` and ``/metrics``, for processes that have no other web server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest


def serve_pages(
    host: str, port: int, health: Callable[[], dict[str, object]], registry: CollectorRegistry
) -> ThreadingHTTPServer:
    """Serve ``/health`` (200 when ready, else 503) and ``/metrics`` from a daemon thread until ``shutdown()``.

    ``health`` returns the JSON body of ``/health``; its ``ready`` entry decides the status.
    """

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/health":
                state = health()
                self._answer(200 if state["ready"] else 503, "application/json", json.dumps(state).encode())
            elif self.path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4", generate_latest(registry))
            else:
                self._answer(404, "text/plain", b"/health or /metrics\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Discard the line: requests are not logged."""

    server = ThreadingHTTPServer((host, port), Pages)
    threading.Thread(target=server.serve_forever, name="web", daemon=True).start()
    return server
