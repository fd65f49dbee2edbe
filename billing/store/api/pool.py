"""Connection pool of the HTTP API: asynchronous, on psycopg, so that no request waits for a thread.

Outside :meth:`ApiDatabase.transaction` and :meth:`ApiDatabase.snapshot`, statements run in autocommit: one statement is
one round trip to the server. Contains no queries.
"""

import select
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from billing.errors import BrokenInvariant, DatabaseDown, NotPrepared
from billing.store.database import IntegerLoader, connection_parameters, schema_url

AsyncConnection = psycopg.AsyncConnection[TupleRow]

API_POOL_WAIT_SECONDS = 5
"""Time that a request waits for a free connection before it fails with DatabaseDown."""
_MISSING = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.InsufficientPrivilege,
)


class ApiDatabase:
    """Pool of asynchronous connections for one event loop."""

    def __init__(self, database_url: str, size: int = 8) -> None:
        parameters = connection_parameters(schema_url(database_url), "tokenbill api")
        self._pool = AsyncConnectionPool(
            kwargs=parameters | {"autocommit": True},
            min_size=size,
            max_size=size,
            timeout=API_POOL_WAIT_SECONDS,
            configure=_configure,
            check=_check,
            reconnect_timeout=API_POOL_WAIT_SECONDS,
            open=False,
        )

    async def open(self) -> None:
        """Start connecting. Does not wait for the server."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """Provide a connection in autocommit mode.

        Raises:
            DatabaseDown: the server cannot be reached, closed the connection, or could not finish. The statement in
                progress may have been committed.
            NotPrepared: a table, column, schema or privilege is missing.
            BrokenInvariant: a constraint of the database was violated.
        """
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout as error:
            raise DatabaseDown(str(error)) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise DatabaseDown(_first_line(error)) from error
        except _MISSING as error:
            raise NotPrepared(_first_line(error)) from error
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            raise BrokenInvariant(_first_line(error)) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Run one read-only transaction whose statements read one snapshot. Raises as :meth:`connection`."""
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Run one transaction: committed at the end, rolled back on any error. Raises as :meth:`connection`."""
        async with self.connection() as connection, connection.transaction():
            yield connection


async def _check(connection: AsyncConnection) -> None:
    """Fail if the server has closed an idle connection, as a restart does. The pool then provides another one.

    Nothing arrives on an idle connection but its end, so the server is asked only where something has arrived: the
    usual cost is one system call.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await AsyncConnectionPool.check_connection(connection)


async def _configure(connection: AsyncConnection) -> None:
    connection.adapters.register_loader("numeric", IntegerLoader)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
