"""Webhooks to addresses that are not public need permission, which is recorded."""

from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute("ALTER TABLE webhook ADD COLUMN allow_private boolean NOT NULL DEFAULT false")
    op.execute("GRANT UPDATE (allow_private) ON webhook TO tokenbill_app")
