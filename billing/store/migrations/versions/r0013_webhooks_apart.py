"""Index of due deliveries by webhook: reading the deliveries of one webhook no longer reads those of a slow one."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute("DROP INDEX webhook_delivery_due")
    op.execute(
        "CREATE INDEX webhook_delivery_due ON webhook_delivery (webhook_id, next_try_at, delivery_id)"
        " WHERE state = 'pending'"
    )
