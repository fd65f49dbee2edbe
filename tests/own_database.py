"""A database for one test on the session's server: created, prepared and dropped, with its address for every role."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from sqlalchemy import make_url

from billing.store.migrate import APP, REPORT, migrate
from billing.store.seed import seed


def in_database(url: str, name: str) -> str:
    """Return the address of another database on the same server."""
    return make_url(url).set(database=name).render_as_string(hide_password=False)


@contextmanager
def dropped_afterwards(server_url: str) -> Iterator[str]:
    """Yield the superuser's address of a database that does not exist yet, and drop the database afterwards."""
    name = f"tb_test_{uuid.uuid4().hex[:12]}"
    try:
        yield in_database(server_url, name)
    finally:
        with psycopg.connect(in_database(server_url, "postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@dataclass(frozen=True)
class PreparedDatabase:
    """Addresses of one database: as superuser, and in the roles of the application and of reports."""

    admin_url: str

    def url_as(self, role: str) -> str:
        """Return the address under a role.

        The role is set by an option of the connection, so that no password of a running stack has to change.
        """
        url = make_url(self.admin_url).update_query_dict({"options": f"-c role={role}"})
        return url.render_as_string(hide_password=False)

    @contextmanager
    def login_of_worker(self) -> Iterator[str]:
        """Yield the address of a temporary login that has the rights of the application by membership."""
        name, password = f"tb_test_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
        self.run(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE {APP}")
        try:
            yield make_url(self.admin_url).set(username=name, password=password).render_as_string(hide_password=False)
        finally:
            self.run(f"DROP ROLE {name}")

    @property
    def app_url(self) -> str:
        return self.url_as(APP)

    @property
    def report_url(self) -> str:
        return self.url_as(REPORT)

    def connect(self, role: str | None = None) -> psycopg.Connection:
        """Open a connection in autocommit mode with our schema in the search path."""
        connection = psycopg.connect(self.admin_url, autocommit=True)
        connection.execute("SET search_path = tokenbill")
        if role is not None:
            connection.execute(f"SET ROLE {role}")
        return connection

    def run(self, *statements: str) -> list[tuple]:
        """Run statements as superuser and return the rows of the last one."""
        with self.connect() as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


@contextmanager
def prepared_database(server_url: str, partitions: int) -> Iterator[PreparedDatabase]:
    """Yield a prepared, empty database."""
    with dropped_afterwards(server_url) as url:
        migrate(url, None, None)
        seed(url, partitions)
        yield PreparedDatabase(url)
