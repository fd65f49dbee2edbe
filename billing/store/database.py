"""Connections to PostgreSQL: a pool, transactions on the psycopg connection, and the mapping of driver errors.

Contains no queries.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import sqlalchemy
from psycopg.adapt import Buffer, Loader
from psycopg.rows import TupleRow
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy import exc as sqlalchemy_errors
from sqlalchemy.engine.interfaces import DBAPIConnection

from billing.errors import BrokenInvariant, DatabaseDown, NotPrepared

Connection = psycopg.Connection[TupleRow]

SCHEMA = "tokenbill"
CONNECT_SECONDS = 10
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
POOL_WAIT_SECONDS = 30
_LOST = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    sqlalchemy_errors.OperationalError,
    sqlalchemy_errors.InterfaceError,
    sqlalchemy_errors.TimeoutError,
)
_MISSING = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.InsufficientPrivilege)
FETCHED_ROWS = 5_000


class IntegerLoader(Loader):
    """Loader that converts ``numeric`` to ``int``: every numeric column of the schema has scale 0."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


def why_no_database_url(database_url: str) -> str | None:
    """Return the reason why a text is not the URL of a PostgreSQL database, without the password; None if it is one."""
    if not database_url.isprintable() or " " in database_url:
        return "it has spaces or control characters"
    try:
        url = schema_url(database_url)
        name = make_url(database_url).drivername
        psycopg.conninfo.make_conninfo(**connection_parameters(url, "tokenbill"))
    except (sqlalchemy_errors.ArgumentError, ValueError):
        return "it has not the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    except psycopg.Error as error:
        return _first_line(error)
    if name not in _SCHEMES:
        return f"it begins with {name}://"
    return None if url.port is None or 0 < url.port < 65_536 else f"the port is {url.port}"


def driver_url(database_url: str) -> URL:
    """Return the URL with the driver named explicitly."""
    return make_url(database_url).set(drivername="postgresql+psycopg")


def schema_url(database_url: str) -> URL:
    """Return the URL of :func:`driver_url` with the schema ``tokenbill`` in the search path, for any role."""
    url = driver_url(database_url)
    options = str(url.query.get("options", ""))
    return url.update_query_dict({"options": f"{options} -c search_path={SCHEMA}".strip()})


def connect(url: URL, autocommit: bool = False, application_name: str = "tokenbill") -> Connection:
    """Open a connection outside any pool."""
    return psycopg.connect(autocommit=autocommit, **connection_parameters(url, application_name))


def connection_parameters(url: URL, application_name: str) -> dict[str, Any]:
    """Return the connection parameters for psycopg. libpq does not parse a URL in the form that SQLAlchemy writes."""
    parameters: dict[str, Any] = url.translate_connect_args(username="user", database="dbname")
    return parameters | {"connect_timeout": CONNECT_SECONDS, "application_name": application_name} | dict(url.query)


class Database:
    """Connection pool. It is thread-safe; each transaction uses a connection of its own."""

    def __init__(
        self,
        database_url: str,
        pool_size: int = 4,
        application_name: str = "tokenbill",
        *,
        pre_ping: bool = True,
        options: str = "",
    ) -> None:
        self.url = database_url
        url = schema_url(database_url)
        if options:
            url = url.update_query_dict({"options": f"{url.query['options']} {options}"})
        self.engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_timeout=POOL_WAIT_SECONDS,
            pool_pre_ping=pre_ping,
            connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": application_name},
        )
        event.listen(self.engine, "connect", _on_connect)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run one transaction: it is committed at the end and rolled back on any error.

        Raises:
            DatabaseDown: the server cannot be reached, closed the connection, or could not finish (timeout, full disk).
            NotPrepared: a table, schema or privilege is missing.
            BrokenInvariant: a constraint of the database was violated.
        """
        try:
            pooled = self.engine.raw_connection()
        except _LOST as error:
            raise DatabaseDown(_first_line(error)) from error
        driver: Any = pooled.driver_connection
        connection: Connection = driver
        try:
            yield connection
            connection.commit()
        except _LOST as error:
            pooled.invalidate()
            raise named_error(error) from error
        except (*_MISSING, psycopg.IntegrityError, psycopg.DataError) as error:
            _roll_back(connection, pooled)
            raise named_error(error) from error
        except BaseException:  # Raised again; the pool must first get a clean connection back.
            _roll_back(connection, pooled)
            raise
        finally:
            pooled.close()

    @contextmanager
    def reading(self) -> Iterator[sqlalchemy.Connection]:
        """Run one read-only transaction for SQLAlchemy statements with streamed rows.

        Raises:
            DatabaseDown, NotPrepared: as :meth:`transaction`.
        """
        try:
            with self.engine.connect() as connection:
                yield connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True, yield_per=FETCHED_ROWS
                )
        except _LOST as error:
            raise DatabaseDown(_first_line(error)) from error
        except sqlalchemy_errors.ProgrammingError as error:
            if isinstance(error.orig, _MISSING):
                raise NotPrepared(_first_line(error)) from error
            raise

    def close(self) -> None:
        """Close the idle connections."""
        self.engine.dispose()


def named_error(error: Exception) -> Exception:
    """Return the billing error that a driver error stands for. Any other error is a defect and is returned as it is."""
    if isinstance(error, _LOST):
        return DatabaseDown(_first_line(error))
    if isinstance(error, _MISSING):
        return NotPrepared(_first_line(error))
    if isinstance(error, (psycopg.IntegrityError, psycopg.DataError)):
        return BrokenInvariant(_first_line(error))
    return error


def _on_connect(connection: DBAPIConnection, _record: object) -> None:
    driver: Any = connection
    driver.adapters.register_loader("numeric", IntegerLoader)


def _roll_back(connection: Connection, pooled: Any) -> None:
    with suppress(psycopg.Error):
        connection.rollback()
    if connection.closed or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
        pooled.invalidate()


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "orig", None) or error).strip()
    return text.splitlines()[0] if text else type(error).__name__
