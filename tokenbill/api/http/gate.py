"""Checks that every request passes first: request id, headers, key, size of the body, and a problem for any failure.

The health pages need no key. Written as plain ASGI, because a middleware of Starlette costs a task for each request.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenbill.api.http.auth import Caller
from tokenbill.api.http.problems import Problem, of_failure

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
MAX_BODY_BYTES = 4 << 20
REQUEST_ID = b"x-request-id"
CLIENT_LEFT = 499
"""Status under which a request is counted whose client left before the answer."""
SINGLE_HEADERS = frozenset({b"authorization", b"idempotency-key", b"content-type", b"content-encoding"})
"""Headers that may be sent once. Of two, one would have to be ignored. The same applies to ``ce-*``."""

Verify = Callable[[Scope, bytes | None], Awaitable[Caller]]
CountAnswer = Callable[[str, int, float], None]


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, verify: Verify, answered: CountAnswer | None = None) -> None:
        """``answered`` is called with method, status and seconds of each request."""
        self._app = app
        self._verify = verify
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = f"{random.getrandbits(128):032x}"  # not a secret, so no system call for each request
        scope.setdefault("state", {})["request_id"] = request_id
        status, since = 0, time.perf_counter()

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (REQUEST_ID, request_id.encode())]
            await send(message)

        try:
            if len(headers) != len(scope["headers"]):
                _check_repeated(scope["headers"])
            if scope["path"] not in OPEN_PATHS:
                scope["state"]["caller"] = await self._verify(scope, headers.get(b"authorization"))
            await self._app(scope, _bounded(headers, receive), stamped)
        except ClientDisconnect:
            return  # nobody is there to be answered
        except Exception as error:  # any failure is answered as a problem; unexpected ones are logged
            problem = of_failure(error, request_id)
            if status:
                raise
            await problem.answer(request_id)(scope, receive, stamped)
        finally:
            if self._answered is not None:
                self._answered(scope["method"], status or CLIENT_LEFT, time.perf_counter() - since)


def _bounded(headers: dict[bytes, bytes], receive: Receive) -> Receive:
    """Return a receive function that limits the body. A declared length above the limit is refused unread."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise _too_large()
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        detail = "The body has a content-encoding: bodies are read as they are; send it without."
        raise Problem("unsupported_media_type", detail, {"accept-encoding": "identity"})
    left = MAX_BODY_BYTES

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise _too_large()
        return message

    return bounded


def _check_repeated(headers: list[tuple[bytes, bytes]]) -> None:
    seen: set[bytes] = set()
    for name, _ in headers:
        if name in seen and (name in SINGLE_HEADERS or name.startswith(b"ce-")):
            raise Problem("invalid_request", f"The header {name.decode('latin-1')} was sent more than once: send one.")
        seen.add(name)


def _too_large() -> Problem:
    return Problem("too_large", f"A body has at most {MAX_BODY_BYTES} bytes; send several.")
