"""One connection to PostgreSQL as libpq has it: statements that are prepared once, sent together, answered together.

For the API's holds, where a cursor for each statement cost more than the statement (docs/decisions/holds.md). Values go
and come as text. Whoever sends holds :attr:`Wire.turn`, over the whole of a transaction. Never decides what is sent.
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
Row = tuple[Value, ...]
Sent = tuple[bytes, Sequence[Value]]
"""Name of a prepared statement, and its values."""


def text(value: str) -> bytes:
    """A text as a value.

    Raises:
        ValueError: it holds a zero character, at which the server would end it.
    """
    if "\0" in value:
        raise ValueError("text for the database holds a zero character")
    return value.encode()


def text_array(values: Sequence[str]) -> bytes:
    """Texts as a value of the type ``text[]``. Raises as :func:`text`."""
    quoted = ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values)
    return text("{" + ",".join(quoted) + "}")


class Wire:
    """A connection that is made when it is first needed, and anew after any error. For one event loop."""

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

    async def ask(self, *sent: Sent) -> list[list[Row]]:
        """Send statements in one journey; the rows of each. Outside BEGIN and COMMIT they are one transaction.

        Raises:
            DatabaseDown, NotPrepared, BrokenInvariant: as :meth:`billing.store.database.Database.transaction`. The
                connection is gone then, and the server rolls back what was under way.
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
        except BaseException:  # Half an answer may be under way: nobody may read it as his own.
            self.drop()
            raise

    def drop(self) -> None:
        """Leave the connection; the server rolls back what was under way."""
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
        # For as long as the connection lives: to come and go with each journey would cost six calls of the system.
        asyncio.get_running_loop().add_reader(self._socket, self._read, pgconn)
        for name, statement in self._statements.items():
            pgconn.send_prepare(name, statement.encode())
        await self._journey(pgconn)
        return connection

    async def _journey(self, pgconn: Any) -> list[Any]:
        """Send what was queued; the result of each statement when the server has answered all.

        Raises:
            psycopg.Error: that of the first statement that failed, or the connection's.
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
        """Whoever waits goes on; where nobody does, the server has closed an idle connection."""
        if error is not None or not self._waits():
            # Now, not when whoever waits goes on: libpq has closed the socket, and by then its number may be that of
            # another connection, which would never be told again that it can be read.
            self.drop()
        if self._answered is None or self._answered.done():
            return
        if error is None:
            self._answered.set_result(None)
        else:
            self._answered.set_exception(error)


def _rows(result: Any) -> list[Row]:
    columns = range(result.nfields)
    return [tuple(result.get_value(row, column) for column in columns) for row in range(result.ntuples)]
