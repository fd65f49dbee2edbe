"""Alembic environment: runs the revisions on the connection of :mod:`billing.store.migrate`."""

from alembic import context
from sqlalchemy import Connection


def run(connection: Connection) -> None:
    """Run the revisions as the owner, in one transaction each."""
    context.configure(connection=connection, version_table_schema="tokenbill", transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()


run(context.config.attributes["connection"])
