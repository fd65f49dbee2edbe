"""HTTP connections bounded in bytes, number and time before a request reaches the application, and so before sign-in.

Uvicorn has no such bounds: it keeps every header that arrives, and waits for ever for the rest of a request. Here a
connection counts what it feeds to the parser, and one timer for each connection ends what takes too long. A request
costs a few integer operations for it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from tokenbill.api.http.gate import MAX_BODY_BYTES, REQUEST_ID
from tokenbill.api.http.one_packet import OnePacketProtocol
from tokenbill.api.http.problems import Problem

LINGER_SECONDS = 2.0
"""Time that a refused client has to read the answer. Closing at once, with its bytes unread, could destroy it."""
LINGER_BYTES = 8 << 20
"""Number of bytes of a refused client that are discarded while it may read the answer."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bounds of the connections of one process."""

    connections: int = 1_000
    connections_of_one_address: int = 500
    head_bytes: int = 32 << 10
    headers: int = 100
    body_bytes: int = MAX_BODY_BYTES
    head_seconds: float = 10.0
    """Time for the head of a request, from its first byte, and for the first byte of a new connection."""
    body_seconds: float = 30.0
    """Time for the body of a request, beyond what its head took."""
    read_seconds: float = 60.0
    """Time for which a client may let an answer wait that it does not read."""
    waiting_requests: int = 16
    """Number of requests of one connection that may wait for the answers to earlier ones (pipelining)."""


class BoundedConnection(OnePacketProtocol):
    """A connection to a client. Bounds and counters are those of the class, for all connections of a process."""

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()
    of_address: ClassVar[Counter[str]] = Counter()
    """Number of open connections by address of the client."""
    refused: ClassVar[Counter[str]] = Counter()
    """Number of connections that were ended by a bound, or because what came is not HTTP, by problem code."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._deadline = 0.0
        """Time of the event loop at which the message that is being read must be complete; 0 between messages."""
        self._unread_bytes = 0
        """Number of bytes fed since the parser last completed a head or a piece of a body."""
        self._body_bytes = 0
        self._in_body = False
        self._refusal: tuple[str, str] | None = None
        self._refused_bytes: int | None = None
        """Number of bytes discarded since the connection was refused; None before."""
        self._answered = False
        self._address = ""
        self._timer: asyncio.TimerHandle | None = None
        self._unread_since = 0.0
        """Time of the event loop since which the client does not read what is written; 0 while it reads."""

    def connection_made(self, transport: Any) -> None:
        """Count the connection; refuse it if there are too many."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        of_address = self.of_address
        of_address[self._address] += 1
        limits = self.limits
        if len(self.connections) > limits.connections:
            self._refuse("too_many_connections", f"At most {limits.connections} connections are served at once.")
        elif of_address[self._address] > limits.connections_of_one_address:
            most = limits.connections_of_one_address
            self._refuse("too_many_connections", f"At most {most} connections of one address are served at once.")
        else:
            self._deadline = self.loop.time() + limits.head_seconds
            self._timer = self.loop.call_at(self._deadline, self._watch)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the connection off the counts."""
        if self._timer is not None:
            self._timer.cancel()
        self.of_address[self._address] -= 1
        if not self.of_address[self._address]:
            del self.of_address[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed bytes to the parser, and refuse the request once it exceeds a bound."""
        if self._refused_bytes is not None:
            self._discard(len(data))
            return
        self._unset_keepalive_if_required()
        if not self._deadline:
            self._deadline = self.loop.time() + self.limits.head_seconds
        self._unread_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # No other protocol is spoken: the request is answered as if it had not asked for one.
        except httptools.HttpParserError as error:
            code, detail = self._refusal or ("invalid_request", f"This is not a request of HTTP/1.1: {error}.")
            self._refuse(code, detail)
            return
        limits = self.limits
        if self._unread_bytes > limits.head_bytes:
            self._refuse("head_too_large", f"The head of a request has at most {limits.head_bytes} bytes.")
        elif self.headers is not None and len(self.headers) > limits.headers:
            self._refuse("head_too_large", _too_many(limits))

    def on_headers_complete(self) -> None:
        """Check the head, which may have come in one piece with what follows it, and start the request."""
        limits = self.limits
        if len(self.headers) > limits.headers:
            self._stop("head_too_large", _too_many(limits))
        if self._unread_bytes > limits.head_bytes:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > limits.head_bytes:
                self._stop("head_too_large", f"The head of a request has at most {limits.head_bytes} bytes.")
        if len(self.pipeline) >= limits.waiting_requests:
            most = limits.waiting_requests
            self._stop("invalid_request", f"At most {most} requests of a connection may wait for earlier ones.")
        self._unread_bytes = self._body_bytes = 0
        self._in_body = True
        self._deadline += limits.body_seconds
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a piece of the body; one that nobody reads any more is counted too."""
        self._unread_bytes = 0
        self._body_bytes += len(body)
        if self._body_bytes > self.limits.body_bytes:
            self._stop("too_large", f"A body has at most {self.limits.body_bytes} bytes; send several.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the bounds of this message."""
        super().on_message_complete()
        self._in_body = False
        self._deadline, self._unread_bytes = 0.0, 0

    def on_message_begin(self) -> None:
        """Begin the bounds of a message that came in one piece with the one before it."""
        super().on_message_begin()
        if not self._deadline:
            self._deadline = self.loop.time() + self.limits.head_seconds

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client reads."""
        super().resume_writing()
        self._unread_since = 0.0

    def _watch(self) -> None:
        """Refuse a message that is not complete by now, and look again when the next one may be late."""
        now, late = self.loop.time(), self._deadline
        if self._unread_since and now - self._unread_since > self.limits.read_seconds:
            self.refused["request_timeout"] += 1
            self.transport.abort()
            return
        if late and self.flow.read_paused:  # It is the application that makes the client wait.
            late = self._deadline = now + self.limits.head_seconds
        if late and late <= now:
            limits = self.limits
            if self._in_body:
                detail = f"The body of a request must be complete within {limits.body_seconds:g} s."
            else:
                detail = f"The head of a request must be complete within {limits.head_seconds:g} s."
            self._refuse("request_timeout", detail)
        elif not self.transport.is_closing():
            self._timer = self.loop.call_at(late or now + self.limits.head_seconds, self._watch)

    def _stop(self, code: str, detail: str) -> None:
        """Stop the parser within a piece of data; :meth:`data_received` then refuses the request."""
        self._refusal = code, detail
        raise ValueError(code)

    def _refuse(self, code: str, detail: str) -> None:
        """Answer with a problem document and close the connection; nothing that follows is read."""
        self.refused[code] += 1
        self._refused_bytes, self._deadline = 0, 0.0
        self._unset_keepalive_if_required()
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:
                cycle.keep_alive = False  # Requests before this one get their answers, then the connection ends.
                return
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._answered = True
        self.transport.write(_written(Problem(code, detail)))
        self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _discard(self, size: int) -> None:
        self._refused_bytes = (self._refused_bytes or 0) + size
        if self._answered and self._refused_bytes > LINGER_BYTES:
            self.transport.close()


def _too_many(limits: ConnectionLimits) -> str:
    return f"A request has at most {limits.headers} headers."


def _written(problem: Problem) -> bytes:
    """Return a problem as the bytes of an HTTP answer that ends its connection."""
    request_id = f"{random.getrandbits(128):032x}"
    answer = problem.answer(request_id)
    headers = [*answer.raw_headers, (REQUEST_ID, request_id.encode()), (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    return STATUS_LINE[answer.status_code] + head + b"\r\n" + bytes(answer.body)


def bounded(limits: ConnectionLimits) -> type[BoundedConnection]:
    """Return the protocol of a process with these bounds, with counters of its own."""

    class Connection(BoundedConnection):
        pass

    Connection.limits = limits
    Connection.of_address, Connection.refused = Counter(), Counter()
    return Connection
