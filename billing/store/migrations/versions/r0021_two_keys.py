"""Resumptions of partitions name the two API keys that agreed; earlier ones have two names only."""

from alembic import op

revision = "0021"
down_revision = "0020"

# NOT VALID: rows from before have no keys.
KEYS = """
ALTER TABLE partition_resume
    ADD COLUMN requested_key text COLLATE "C" REFERENCES api_key,
    ADD COLUMN approved_key text COLLATE "C" REFERENCES api_key,
    ADD CONSTRAINT partition_resume_two_keys CHECK (requested_key IS NOT NULL AND approved_key IS NOT NULL
        AND requested_key <> approved_key) NOT VALID;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(KEYS)
