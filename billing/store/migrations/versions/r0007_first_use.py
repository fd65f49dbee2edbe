"""Buckets that begin with their first use: the start of a bucket may change."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute("GRANT UPDATE (valid_from_us) ON bucket TO tokenbill_app")
