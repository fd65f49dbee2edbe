"""Uvicorn's HTTP protocol, but the head and the body of an answer are written together.

Uvicorn writes them separately: two packets, two system calls, and a client that wakes up for half an answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_LARGE = 16_384
"""Size in bytes above which a write is not gathered."""


class OnePacketProtocol(HttpToolsProtocol):
    """A connection to a client whose writes are gathered."""

    def connection_made(self, transport: Any) -> None:
        """Start the connection on a transport that gathers writes."""
        super().connection_made(_Gathering(transport, self.loop))  # type: ignore[arg-type]


class _Gathering:
    """A transport that writes at once all the data it was given in one turn of the event loop."""

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
        if len(data) > _LARGE:  # does not fit a packet anyway, and the transport reports a full buffer
            self._write()

    def write_eof(self) -> None:
        self._write()
        if not self._transport.is_closing():
            self._transport.write_eof()

    def close(self) -> None:
        self._write()
        self._transport.close()

    def _write(self) -> None:
        if self._given:
            data = b"".join(self._given)
            self._given.clear()
            if not self._transport.is_closing():
                self._transport.write(data)
