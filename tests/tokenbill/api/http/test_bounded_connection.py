"""A connection is bounded in bytes, number and time: real sockets against a small application under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from tokenbill.api.http.bounded_connection import BoundedConnection, ConnectionLimits, bounded

LIMITS = ConnectionLimits(
    connections=20,
    connections_of_one_address=12,
    head_bytes=8 << 10,
    headers=20,
    body_bytes=100_000,
    head_seconds=0.6,
    body_seconds=0.4,
    read_seconds=1.0,
    waiting_requests=4,
)
HEAD = b"GET /read HTTP/1.1\r\nhost: a\r\n"


async def application(scope, receive, send) -> None:
    """Answer with the size of the body; ``/early`` answers before it reads, ``/slow`` late, ``/large`` much."""
    if scope["type"] != "http":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    size, more = 0, scope["path"] != "/early"
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.5)
    body = bytes(50 << 20) if scope["path"] == "/large" else str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


class Served:
    """The server in a thread, with its protocol."""

    def __init__(self) -> None:
        self.protocol: type[BoundedConnection] = bounded(LIMITS)
        config = uvicorn.Config(application, port=0, loop="uvloop", http=self.protocol, ws="none", log_config=None)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self) -> Served:
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def ask(self, *parts: bytes) -> list[tuple[int, bytes]]:
        """Send the parts, and return status and body of each answer until the server closes the connection."""
        with self.open() as line:
            for part in parts:
                with contextlib.suppress(OSError):
                    line.sendall(part)
            return answers(line)


def answers(line: socket.socket) -> list[tuple[int, bytes]]:
    """Read until the server closes the connection."""
    data = b""
    while True:
        piece = line.recv(65536)
        if not piece:
            break
        data += piece
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        found.append((int(head.split(b" ")[1]), data[:length]))
        data = data[length:]
    return found


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_stays_open(served: Served) -> Iterator[None]:
    yield
    ends = time.monotonic() + 10
    while served.protocol.of_address:
        assert time.monotonic() < ends, served.protocol.of_address
        time.sleep(0.02)


def refused(found: list[tuple[int, bytes]], status: int, code: str) -> None:
    [(got, body)] = found
    assert got == status, body
    problem = json.loads(body)
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["detail"] and problem["request_id"]


def test_an_ordinary_request_passes(served: Served) -> None:
    body = bytes(90_000)
    head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\nconnection: close\r\n\r\n"
    assert served.ask(head + body) == [(200, b"90000")]
    chunks = b"".join(b"1\r\nx\r\n" for _ in range(20_000)) + b"0\r\n\r\n"
    head = b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    assert served.ask(head, chunks) == [(200, b"20000")]


@pytest.mark.parametrize(
    "parts",
    [
        [HEAD, *[b"a: b\r\n" * 1_000] * 200],
        [HEAD + b"x: ", *[bytes([97]) * 65_536] * 200],
        [HEAD + b"x" * 9_000 + b": a\r\n\r\n"],
        [HEAD + b"a: b\r\n" * 20 + b"\r\n"],
        [b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n"],
        [b"\r\n" * 5_000],
        [b"GET /read HTTP/1.1\r\n", *[b"a: b\r\n"] * 30],
        [b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;", *[b"x" * 3_000] * 300],
        [b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", *[b"x: y\r\n"] * 30],
        [b"POST /read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx:", *[b"y" * 3_000] * 300],
    ],
    ids=["many", "large", "name", "at once", "address", "empty lines", "one by one", "chunk", "trailers", "trailer"],
)
def test_a_head_too_large_is_refused(served: Served, parts: list[bytes]) -> None:
    refused(served.ask(*parts), 431, "head_too_large")


def test_a_body_too_large_is_refused(served: Served) -> None:
    head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n"
    refused(served.ask(head, *[bytes(50_000)] * 4), 413, "too_large")


def test_what_is_not_http_is_refused(served: Served) -> None:
    refused(served.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 400, "invalid_request")
    refused(served.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400, "invalid_request")
    twice = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"
    refused(served.ask(twice), 400, "invalid_request")


def test_a_head_that_does_not_end_is_refused(served: Served) -> None:
    begun = time.monotonic()
    with served.open() as silent, served.open() as dripping:
        dripping.sendall(HEAD)

        def drip() -> None:
            with contextlib.suppress(OSError):
                while True:
                    dripping.sendall(b"x")
                    time.sleep(0.05)

        threading.Thread(target=drip, daemon=True).start()
        refused(answers(silent), 408, "request_timeout")
        refused(answers(dripping), 408, "request_timeout")
    assert LIMITS.head_seconds <= time.monotonic() - begun < 3 * LIMITS.head_seconds


def test_a_body_that_does_not_end_is_refused(served: Served) -> None:
    begun = time.monotonic()
    head = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nhalf"
    refused(served.ask(head), 408, "request_timeout")
    assert 1.0 <= time.monotonic() - begun < 3.0


def test_an_answered_body_that_does_not_end_is_ended(served: Served) -> None:
    with served.open() as line:
        line.sendall(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 90000\r\n\r\n")
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() < begun + 10:
                line.sendall(b"x")
                time.sleep(0.05)
        assert time.monotonic() - begun < 4


def test_requests_one_after_the_other_take_as_long_as_they_like(served: Served) -> None:
    with served.open() as line:
        for _ in range(4):
            line.sendall(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n")
            assert line.recv(65536).endswith(b"\r\n\r\n0")
            time.sleep(0.2)


def test_requests_that_were_sent_at_once_are_answered_in_order(served: Served) -> None:
    one = b"POST /read HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n%b"
    sent = b"".join(one % (n, b"x" * n) for n in range(1, 4))
    last = b"POST /read HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nxxxx"
    assert served.ask(sent + last) == [(200, b"%d" % n) for n in range(1, 5)]


def test_a_bad_request_behind_good_ones_does_not_take_their_answers(served: Served) -> None:
    slow = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
    assert served.ask(slow + slow + HEAD + b"a: b\r\n" * 30 + b"\r\n") == [(200, b"0"), (200, b"0")]


def test_only_some_requests_may_wait_for_earlier_ones(served: Served) -> None:
    found = served.ask(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n" * 2_000)
    assert found == [(200, b"0")] * (LIMITS.waiting_requests + 1)


def test_connections_are_limited_by_address_and_in_all(served: Served) -> None:
    with contextlib.ExitStack() as held:
        lines = [held.enter_context(served.open()) for _ in range(LIMITS.connections_of_one_address)]
        refused(served.ask(HEAD + b"\r\n"), 503, "too_many_connections")
        lines.pop().close()
        time.sleep(0.2)
        assert served.ask(HEAD + b"connection: close\r\n\r\n") == [(200, b"0")]
    with contextlib.ExitStack() as held:
        for number in range(LIMITS.connections):
            source = (f"127.0.0.{2 + number % 2}", 0)
            held.enter_context(socket.create_connection(("127.0.0.1", served.port), 5, source))
        refused(served.ask(HEAD + b"\r\n"), 503, "too_many_connections")


def test_a_client_that_does_not_read_its_answer_is_ended(served: Served) -> None:
    with served.open() as line:
        line.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n")
        time.sleep(0.3)
        assert served.protocol.of_address["127.0.0.1"] == 1
        ends = time.monotonic() + 5
        while served.protocol.of_address:
            assert time.monotonic() < ends
            time.sleep(0.05)
    with served.open() as line:
        line.sendall(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        begun, read = time.monotonic(), 0
        while piece := line.recv(1 << 20):
            read += len(piece)
            time.sleep(0.03)  # slow, but it reads
        assert read > 50 << 20 and time.monotonic() - begun > LIMITS.read_seconds


def test_an_upgrade_is_not_done(served: Served) -> None:
    head = b"GET /read HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    with served.open() as line:
        line.sendall(head)
        assert line.recv(65536).endswith(b"\r\n\r\n0")
