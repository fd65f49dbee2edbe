"""The charging port: 3GPP charging over HTTP/2 with prior knowledge, as network functions speak it (TS 29.500).

Granian serves it in the event loop of the API, beside uvicorn, which speaks HTTP/1.1 alone
(docs/decisions/charging-port.md). Only the addresses of converged charging are served here. HTTP/1.1 is understood too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tokenbill.api.http.problems import Problem

CHARGING_PATHS = "/nchf-convergedcharging/"
MOST_STREAMS = 128
"""Largest number of requests of one connection at once."""
_HEAD_BYTES = 32 << 10
_HEAD_MILLISECONDS = 10_000
BODY_SECONDS = 30.0
"""Time for the next piece of a body; a client that sends none is taken as gone."""
_KEEP_ALIVE_MILLISECONDS = 30_000
_KEEP_ALIVE_SECONDS = 20
_BACKLOG = 1_024
_START_SECONDS = 10.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class ChargingAddress:
    """Address of the charging port, and the largest number of requests that are served on it at once."""

    host: str
    port: int
    requests: int = 1_000


@contextlib.asynccontextmanager
async def charging_port(app: ASGIApp, address: ChargingAddress) -> AsyncIterator[None]:
    """Serve the charging addresses of an application until the context ends.

    Raises:
        OSError: the port cannot be used.
    """
    server = Server(
        charging_only(app),
        address=address.host,
        port=address.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.auto,
        websockets=False,
        backlog=_BACKLOG,
        backpressure=address.requests,
        http1_settings=HTTP1Settings(header_read_timeout=_HEAD_MILLISECONDS, max_buffer_size=_HEAD_BYTES),
        http2_settings=HTTP2Settings(
            max_concurrent_streams=MOST_STREAMS,
            max_headers_size=_HEAD_BYTES,
            keep_alive_interval=_KEEP_ALIVE_MILLISECONDS,
            keep_alive_timeout=_KEEP_ALIVE_SECONDS,
        ),
        log_enabled=False,
    )
    serving = asyncio.create_task(server.serve())
    try:
        await _until_served(serving, address)
        yield
    finally:
        if not serving.done():
            server.stop()  # type: ignore[no-untyped-call]
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def _until_served(serving: asyncio.Task[None], address: ChargingAddress) -> None:
    """Wait until the port accepts connections."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection(address.host, address.port)
        except OSError as error:
            if serving.done():
                serving.result()
            if serving.done() or loop.time() > deadline:
                raise OSError(f"the charging port {address.host}:{address.port} is not served: {error}") from error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            writer.close()
            return


def charging_only(app: ASGIApp) -> ASGIApp:
    """Return an application that answers the charging addresses of another one, and bounds the wait for a body."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if not scope["path"].startswith(CHARGING_PATHS):
            problem = Problem("not_found", "Only the addresses of converged charging are served on this port.")
            await problem.answer(f"{random.getrandbits(128):032x}")(scope, receive, send)
            return

        async def bounded() -> Message:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    return await receive()
            except TimeoutError:
                return {"type": "http.disconnect"}

        await app(scope, bounded, send)

    return serve
