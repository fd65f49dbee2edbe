"""Operations on a PostgreSQL server that need no schema: check that it answers, and create a database."""

import psycopg
from psycopg import sql


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
