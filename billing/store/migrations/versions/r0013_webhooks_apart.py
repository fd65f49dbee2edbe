"""What is due is looked for webhook by webhook: what waits for one that is slow is not read to find that of another."""

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
