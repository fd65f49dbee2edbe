"""Columns of dedupe hashes are stored uncompressed: compression took a quarter of a commit's server time."""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(
        "ALTER TABLE dedupe_recent ALTER COLUMN payload SET STORAGE EXTERNAL;"
        "ALTER TABLE dedupe_hour ALTER COLUMN payload SET STORAGE EXTERNAL;"
    )
