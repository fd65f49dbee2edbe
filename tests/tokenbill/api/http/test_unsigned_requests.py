"""Requests without a key are bounded: a real API process, its memory, its health page and its log."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from api_rig import Api, check_problem, until

HEAD = b"POST /v1/reservations HTTP/1.1\r\nhost: a\r\n"
MEMORY = 40 << 20
"""Growth of the API's memory in bytes that the requests of these tests may cause."""


class Process:
    """An API process of its own on the servers of the stack."""

    def __init__(self, api: Api, log: Path) -> None:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port: int = found.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{self.port}", log
        servers = {"TOKENBILL_KAFKA": api.kafka, "TOKENBILL_DATABASE_URL": api.database_url}
        arguments = ["serve", "--port", str(self.port), "--connections-per-address", "900"]
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "tokenbill", *arguments], env={**os.environ, **servers}, stderr=out
            )
        until(self.ready)

    def ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def peak(self) -> int:
        """Return the greatest resident memory so far in bytes."""
        lines = Path(f"/proc/{self.child.pid}/status").read_text().splitlines()
        [kib] = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
        return kib << 10

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def status(self, line: socket.socket) -> int:
        """Return the status of an answer, and read until the connection ends."""
        data = b""
        while piece := line.recv(65536):
            data += piece
        return int(data.split(b" ")[1]) if data else 0


@pytest.fixture(scope="module")
def process(whole_api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    made = Process(whole_api, tmp_path_factory.mktemp("api") / "log")
    try:
        yield made
    finally:
        made.child.send_signal(signal.SIGTERM)
        made.child.wait(30)


@contextlib.contextmanager
def health_answers_at_once(process: Process) -> Iterator[None]:
    """Check that the health page answers quickly all the time."""
    slowest, ended = 0.0, threading.Event()

    def ask() -> None:
        nonlocal slowest
        with httpx.Client(base_url=process.url, timeout=30) as client:
            while not ended.is_set():
                begun = time.monotonic()
                assert client.get("/healthz").status_code == 200
                slowest = max(slowest, time.monotonic() - begun)
                time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    time.sleep(0.1)
    ended.set()
    thread.join(30)
    assert 0 < slowest < 1.5


def send(line: socket.socket, piece: bytes, times: int) -> int:
    """Send a piece as often as the server takes it, and return the number of bytes sent."""
    sent = 0
    with contextlib.suppress(OSError):
        for _ in range(times):
            line.sendall(piece)
            sent += len(piece)
    return sent


@pytest.mark.parametrize("piece", [b"a: b\r\n" * 10_922, b"x" * 65_536], ids=["99 MiB of headers", "one of 300 MiB"])
def test_a_head_without_end_costs_neither_memory_nor_time(process: Process, piece: bytes) -> None:
    before = process.peak()
    with health_answers_at_once(process), process.open() as line:
        line.sendall(HEAD + (b"x: " if piece[0] == ord("x") else b""))
        sent = send(line, piece, 300 << 20 >> 16 if piece[0] == ord("x") else 99 << 20 >> 16)
        assert sent < 32 << 20
        with contextlib.suppress(ConnectionError):
            assert process.status(line) == 431
    assert process.peak() - before < MEMORY


def test_half_requests_are_ended(process: Process) -> None:
    before, begun = process.peak(), time.monotonic()
    with contextlib.ExitStack() as held:
        heads, bodies = ([held.enter_context(process.open()) for _ in range(number)] for number in (600, 100))
        for line in heads:
            line.sendall(HEAD)
        for line in bodies:
            line.sendall(HEAD + b"authorization: Bearer tbk_a_b\r\ncontent-length: 1000000\r\n\r\n" + bytes(1_000))
        with health_answers_at_once(process):
            assert [process.status(line) for line in heads] == [408] * 600
            assert time.monotonic() - begun < 20
            # A request without a valid key is answered at once, and its connection ends with the unread body.
            assert [process.status(line) for line in bodies] == [401] * 100
    assert time.monotonic() - begun < 60
    assert process.peak() - before < MEMORY


def test_a_body_of_a_known_client_that_does_not_end_is_refused(process: Process, api: Api) -> None:
    with process.open() as line:
        key = api.tokens["admin"].encode()
        line.sendall(HEAD + b"authorization: Bearer " + key + b"\r\ncontent-type: application/json\r\n")
        line.sendall(b"content-length: 1000\r\n\r\n{")
        assert process.status(line) == 408


def test_clients_that_hang_up_leave_no_trace(process: Process, api: Api) -> None:
    key = api.tokens["admin"].encode()
    head = b" HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nauthorization: Bearer " + key + b"\r\n"
    for path in (b"/v1/reservations", b"/v1/usage", b"/v1/quotes", b"/v1/accounts", b"/v1/rating-groups/1"):
        for rest in (
            b"content-length: 100\r\n\r\n{",
            b"transfer-encoding: chunked\r\n\r\n",
            b"content-length: 2\r\n\r\n{}",
        ):
            with process.open() as line:
                method = b"PUT " if b"rating" in path else b"POST "
                line.sendall(method + path + head + b"idempotency-key: hang\r\n" + rest)
                time.sleep(0.02)
    time.sleep(0.5)
    assert process.ready()
    log = process.log.read_text()
    assert "Traceback" not in log and " ERROR " not in log, log


@pytest.mark.parametrize("name", ["authorization", "idempotency-key", "content-type", "ce-id"])
@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/accounts", "/v1/usage"])
def test_a_header_of_which_one_counts_is_not_sent_twice(api: Api, name: str, path: str) -> None:
    token = api.tokens["admin"]
    headers = [("authorization", f"Bearer {token}"), ("content-type", "application/json"), ("idempotency-key", "k")]
    twice = [*headers, ("ce-id", "a"), (name, dict(headers).get(name, "a"))]
    answer = httpx.post(f"{api.url}{path}", headers=twice, json={})
    problem = check_problem(answer, 400, "invalid_request")
    assert name in problem["detail"]


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/accounts", "/v1/usage", "/v1/quotes"])
@pytest.mark.parametrize("coding", ["gzip", "br", "gzip, identity"])
def test_an_encoded_body_is_refused(api: Api, admin: httpx.Client, path: str, coding: str) -> None:
    headers = {"content-encoding": coding, "content-type": "application/json", "idempotency-key": api.name()}
    answer = admin.post(path, content=b"\x1f\x8b", headers=headers)
    check_problem(answer, 415, "unsupported_media_type")
    assert answer.headers["accept-encoding"] == "identity"
