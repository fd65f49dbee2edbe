"""Messages between accounts are counted: a commit forwards them, but no record of its input."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute("ALTER TABLE commit ADD COLUMN messages_sent bigint NOT NULL DEFAULT 0;")
