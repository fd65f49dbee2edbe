"""The key that signs offline grants: made once for an installation, never shown."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(
        # Two random UUIDs are 244 random bits.
        "INSERT INTO installation (key, value)"
        " SELECT 'offline_grant_key', replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '')"
    )
