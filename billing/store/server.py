"""Operations on a PostgreSQL server that need no schema, and what a URL may show."""

from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url


def why_no_answer(database_url: str, wait_seconds: int) -> str | None:
    """Return the reason why a server does not answer a query; None if it answers."""
    try:
        with psycopg.connect(database_url, connect_timeout=wait_seconds, autocommit=True) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError as error:
        return str(error).strip().splitlines()[-1]
    return None


def create_database(maintenance_url: str, name: str) -> None:
    """Create a database if it does not exist. ``maintenance_url`` names another database of the same server."""
    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def with_password_file(database_url: str, password_file: Path) -> tuple[str, str | None]:
    """Return a URL that names a password file instead of its password, and the line that belongs into that file.

    A URL without a password is returned as it is; its line is None. Drivers based on libpq read the file when they
    connect; it must be readable by its owner only.
    """
    url = make_url(database_url)
    named = url.query.get("password")
    password = url.password or (named if isinstance(named, str) else None)
    if password is None:
        return database_url, None
    shown = URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    shown = shown.difference_update_query(["password"]).update_query_dict({"passfile": str(password_file)})
    place = (url.host or "*", str(url.port or 5432), "*", url.username or "*", str(password))
    return url_text(shown), ":".join(part.replace("\\", r"\\").replace(":", r"\:") for part in place)


def url_text(url: URL) -> str:
    """Return a URL as libpq and SQLAlchemy both read it: a space in its query is %20, not a plus sign."""
    address, mark, query = url.render_as_string(hide_password=False).partition("?")
    return address + mark + query.replace("+", "%20")
