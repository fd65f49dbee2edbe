"""Hashes are not worth compressing: it took the server a quarter of a commit's time for a quarter of the bytes."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(
        "ALTER TABLE dedupe_recent ALTER COLUMN payload SET STORAGE EXTERNAL;"
        "ALTER TABLE dedupe_hour ALTER COLUMN payload SET STORAGE EXTERNAL;"
    )
