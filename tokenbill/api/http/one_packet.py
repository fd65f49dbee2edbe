"""Uvicorn's HTTP protocol, but an answer's head and body leave together: they came as two packets, each with a call of
the system and a client that woke up for half an answer. Knows nothing of requests."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LARGE = 16_384
"""Bytes that are not gathered."""


class OnePacketProtocol(HttpToolsProtocol):
    """One connection to a client."""

    def connection_made(self, transport: Any) -> None:
        """Begin, writing through a transport that gathers."""
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]


class _Gathering:
    """A transport that writes, once a turn of the event loop, all that was given in it."""

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._given: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._given:
            self._loop.call_soon(self._write)
        self._given.append(data)
        if len(data) > _LARGE:  # no packet holds it anyway, and the transport says when its buffer is full
            self._write()

    def close(self) -> None:
        self._write()
        self._transport.close()

    def _write(self) -> None:
        if self._given:
            data = b"".join(self._given)
            self._given.clear()
            if not self._transport.is_closing():
                self._transport.write(data)
