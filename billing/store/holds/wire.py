"""Pipelined connection to PostgreSQL on libpq: prepared statements, sent together and answered together.

It serves the holds of the API, where a cursor for each statement cost more than the statement
(docs/decisions/holds.md). Values are sent and returned as text. A caller holds :attr:`WireConnection.turn` for
its whole transaction. Contains no queries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus

from billing.store.database import connection_parameters, named_error, schema_url

Value = bytes | None
WireRow = tuple[Value, ...]
WireStatement = tuple[bytes, Sequence[Value]]
"""Name of a prepared statement, and its values."""


def text(value: str) -> bytes:
    """Encode a string as a value.

    Raises:
        ValueError: the string contains NUL, where libpq would end the value.
    """
    if "\0" in value:
        raise ValueError("text for the database holds a zero character")
    return value.encode()


def text_array(values: Sequence[str]) -> bytes:
    """Encode strings as a value of the type ``text[]``. Raises as :func:`text`."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return text("{" + ",".join(quoted) + "}")


class WireConnection:
    """Connection for one event loop. It connects on first use, and again after any error."""

    def __init__(self, database_url: str, name: str, statements: Mapping[bytes, str], options: str = "") -> None:
        url = schema_url(database_url)
        url = url.update_query_dict({"options": f"{url.query['options']} {options}".strip()})
        self._parameters = connection_parameters(url, name)
        self._statements = statements
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._socket = -1
        self._results: list[Any] = []
        self._answered: asyncio.Future[None] | None = None
        self.turn = asyncio.Lock()

    async def ask(self, *sent: WireStatement) -> list[list[WireRow]]:
        """Send statements in one round trip and return the rows of each.

        Outside BEGIN and COMMIT they are one transaction.

        Raises:
            DatabaseDown, NotPrepared, BrokenInvariant: as :meth:`billing.store.database.Database.transaction`. The
                connection is then closed, and the server rolls back the open transaction.
        """
        try:
            connection = self._connection or await self._connect()
            pgconn = connection.pgconn
            for name, values in sent:
                pgconn.send_query_prepared(name, values)
            return [_rows(result) for result in await self._journey(pgconn)]
        except psycopg.Error as error:
            self.drop()
            raise named_error(error) from error
        except BaseException:  # A partial answer may be in transit; no later caller may read it.
            self.drop()
            raise

    def drop(self) -> None:
        """Close the connection; the server rolls back the open transaction."""
        if self._connection is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)
            self._connection.pgconn.finish()
            self._connection = None

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(autocommit=True, **self._parameters)
        pgconn = connection.pgconn
        self._connection, self._socket = connection, pgconn.socket
        pgconn.nonblocking = 1
        pgconn.enter_pipeline_mode()
        # Registered for the life of the connection: registering it for each round trip would cost six system calls.
        asyncio.get_running_loop().add_reader(self._socket, self._read, pgconn)
        for name, statement in self._statements.items():
            pgconn.send_prepare(name, statement.encode())
        await self._journey(pgconn)
        return connection

    async def _journey(self, pgconn: Any) -> list[Any]:
        """Send the queued statements, wait until the server has answered all, and return their results.

        Raises:
            psycopg.Error: the error of the first statement that failed, or of the connection.
        """
        loop = asyncio.get_running_loop()
        self._results = []
        self._answered = loop.create_future()
        pgconn.pipeline_sync()
        if pgconn.flush():
            loop.add_writer(self._socket, self._write, pgconn)
        await self._answered
        for result in self._results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise error_from_result(result)
        return self._results

    def _read(self, pgconn: Any) -> None:
        try:
            pgconn.consume_input()
            while self._waits() and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    continue  # the end of one statement
                if result.status == ExecStatus.PIPELINE_SYNC:
                    self._end(None)
                else:
                    self._results.append(result)
        except psycopg.Error as error:
            self._end(error)

    def _write(self, pgconn: Any) -> None:
        try:
            if not pgconn.flush():
                asyncio.get_running_loop().remove_writer(self._socket)
        except psycopg.Error as error:
            self._end(error)

    def _waits(self) -> bool:
        return self._answered is not None and not self._answered.done()

    def _end(self, error: psycopg.Error | None) -> None:
        """Resume the waiting caller. If no caller waits, the server has closed an idle connection."""
        if error is not None or not self._waits():
            # Drop the connection now, not when the caller resumes. libpq has closed the socket, and another connection
            # may get its number before then: removing the reader of that number later would stop the new connection.
            self.drop()
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _rows(result: Any) -> list[WireRow]:
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
