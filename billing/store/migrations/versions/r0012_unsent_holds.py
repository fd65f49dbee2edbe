"""Index of settled usage whose commit was not seen: the periodic search no longer reads every hold."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(
        "CREATE INDEX hold_unsent ON hold (created_us) WHERE state = 'open' AND event IS NOT NULL AND NOT sent_again"
    )
