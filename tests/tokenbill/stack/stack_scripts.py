"""Small supervised scripts that replace servers, and a function that waits for a condition."""

from __future__ import annotations

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tokenbill.stack import StackInfo, info
from tokenbill.stack.config import free_port
from tokenbill.stack.layout import Layout
from tokenbill.stack.progress import Silent
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.stack.waiting import supervise, wait_ready

# Answers with its pid; with the argument "stubborn" it ignores SIGTERM.
SERVER = """
import http.server, os, signal, sys

if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = str(os.getpid()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def eventually(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)


@dataclass
class Scripts:
    """A stack of small scripts instead of servers, run by the real supervisor."""

    layout: Layout

    @property
    def now(self) -> StackInfo:
        return info(self.layout.root)

    def server(self, name: str, *options: str, stop_timeout_seconds: float = 10.0, phase: int = 1) -> ProcessSpec:
        script = self.layout.root / "server.py"
        script.write_text(SERVER)
        port = free_port(set())
        return ProcessSpec(
            name=name,
            argv=(sys.executable, str(script), str(port), *options),
            cwd=str(self.layout.root),
            ready=ReadyCheck("http", f"http://127.0.0.1:{port}/health", 20.0),
            stop_timeout_seconds=stop_timeout_seconds,
            phase=phase,
        )

    def up(self, *specs: ProcessSpec) -> StackInfo:
        supervise(self.layout, list(specs))
        wait_ready(self.layout, specs, Silent())
        # The standby starts a moment after the first supervisor takes charge.
        eventually(lambda: "supervisor-standby" in self.now.pids)
        return self.now

    def kill(self, *names: str) -> None:
        pids = self.now.pids
        for name in names:
            os.kill(pids[name], signal.SIGKILL)
        # A killed process exists until it is scheduled once more.
        eventually(lambda: not any(is_alive(pids[name]) for name in names))


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answer(spec: ProcessSpec) -> int | None:
    """Return the pid of the process that answers on the script's port, or None."""
    try:
        with urllib.request.urlopen(spec.ready.target, timeout=2) as reply:
            return int(reply.read())
    except OSError:
        return None
