"""Brings a database to the newest schema: the database, the roles, then the Alembic revisions. Idempotent.

Two at once are one after the other: both wait for an advisory lock in the server's maintenance database, because
roles belong to the whole server. Never touches rows.
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

DEFAULT_DATABASE = "tokenbill"
MAINTENANCE_DATABASE = "postgres"
OWNER, APP, REPORT = "tokenbill_owner", "tokenbill_app", "tokenbill_report"
_LOCK = 0x746B6E62  # "tknb"
# A worker that was stopped in mid-transaction must not hold its partition for ever.
_APP_SETTINGS = {"idle_in_transaction_session_timeout": "30s", "transaction_timeout": "10min"}


def target_database(admin_database_url: str) -> str:
    """The database that is migrated: the URL's own, or ``tokenbill`` where it names the maintenance database."""
    named = make_url(admin_database_url).database
    return DEFAULT_DATABASE if named in (None, "", MAINTENANCE_DATABASE) else str(named)


def role_url(admin_database_url: str, role: str, password: str | None) -> str:
    """The URL under which a role of ours reaches the migrated database."""
    admin = make_url(admin_database_url)
    # Made anew: `set` keeps the administrator's password where the new one is None.
    url = URL.create(
        "postgresql", role, password, admin.host, admin.port, target_database(admin_database_url), admin.query
    )
    return url.render_as_string(hide_password=False)


def migrate(admin_database_url: str, app_password: str | None, report_password: str | None) -> None:
    """Create what is missing: database, roles, schema, tables. A password of None leaves a role's as it is.

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
    """Hold the migration lock; create the database if it is missing."""
    try:
        connection = _connect(url, MAINTENANCE_DATABASE)
    except psycopg.OperationalError:
        connection = _connect(url, url.database)  # a server that shows us one database only
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
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(password)))
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
