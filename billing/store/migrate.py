"""Migration of a database to the newest schema: create the database and the roles, then run the Alembic revisions.

Migration is idempotent. Concurrent migrations run one after the other: each takes an advisory lock in the maintenance
database of the server, because roles belong to the whole server. This module writes no rows itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import URL, create_engine, make_url, text

from billing.errors import DatabaseDown
from billing.store.database import SCHEMA, Connection, connect, driver_url
from billing.store.server import url_text

DEFAULT_DATABASE = "tokenbill"
MAINTENANCE_DATABASE = "postgres"
OWNER, APP, REPORT = "tokenbill_owner", "tokenbill_app", "tokenbill_report"
_LOCK = 0x746B6E62  # "tknb"
# A worker that was stopped in the middle of a transaction must not lock its partition forever.
_APP_SETTINGS = {"idle_in_transaction_session_timeout": "30s", "transaction_timeout": "10min"}


def target_database(admin_database_url: str) -> str:
    """Return the database to migrate: the one in the URL, or ``tokenbill`` if that is the maintenance database."""
    named = make_url(admin_database_url).database
    return DEFAULT_DATABASE if named in (None, "", MAINTENANCE_DATABASE) else str(named)


def role_url(admin_database_url: str, role: str, password: str | None) -> str:
    """Return the URL with which a role connects to the migrated database."""
    admin = make_url(admin_database_url)
    # Built from its parts: `set` would keep the administrator's password if the new one is None.
    url = URL.create(
        "postgresql", role, password, admin.host, admin.port, target_database(admin_database_url), admin.query
    )
    return url_text(url)


def migrate(admin_database_url: str, app_password: str | None, report_password: str | None) -> None:
    """Create the missing database, roles, schema and tables. If a password is None, that of the role is not changed.

    Raises:
        DatabaseDown: the server cannot be reached with this URL.
    """
    url = driver_url(admin_database_url).set(database=target_database(admin_database_url))
    try:
        with _alone(url):
            _create_roles(url, {APP: app_password, REPORT: report_password})
            _run_revisions(url)
    except psycopg.OperationalError as error:
        raise DatabaseDown(str(error).strip()) from error


def _connect(url: URL, database: str | None) -> Connection:
    return connect(url.set(database=database), autocommit=True)


@contextmanager
def _alone(url: URL) -> Iterator[None]:
    """Hold the migration lock, after creating the database if it is missing."""
    try:
        connection = _connect(url, MAINTENANCE_DATABASE)
    except psycopg.OperationalError:
        connection = _connect(url, url.database)  # the server permits access to one database only
    with connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        named = (url.database,)
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", named).fetchone() is None:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'")
            connection.execute(create.format(sql.Identifier(str(url.database))))
        yield


def _create_roles(url: URL, passwords: dict[str, str | None]) -> None:
    with _connect(url, url.database) as connection:
        for role, login in ((OWNER, "NOLOGIN"), (APP, "LOGIN"), (REPORT, "LOGIN")):
            if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE ROLE {} " + login).format(sql.Identifier(role)))
        superuser = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
        if superuser != (True,):
            connection.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(OWNER)))
        database = sql.Identifier(str(url.database))
        for role, password in passwords.items():
            name = sql.Identifier(role)
            if password is not None:
                # Hashed here: the server writes a statement that fails into its log.
                hashed = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(hashed)))
            settings = {"search_path": SCHEMA} | (_APP_SETTINGS if role == APP else {})
            for setting, value in settings.items():
                change = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = {}")
                connection.execute(change.format(name, database, sql.Identifier(setting), sql.Literal(value)))
            connection.execute(sql.SQL("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {}").format(database, name))
        create = sql.SQL("CREATE SCHEMA IF NOT EXISTS {} AUTHORIZATION {}")
        connection.execute(create.format(sql.Identifier(SCHEMA), sql.Identifier(OWNER)))


def _run_revisions(url: URL) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL ROLE {OWNER}"))
            connection.execute(text(f"SET LOCAL search_path = {SCHEMA}"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        engine.dispose()
