"""Columns for rare account state, and for buckets whose terms change (carry-over, adjustment, transfer)."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(
        "ALTER TABLE account ADD COLUMN extras jsonb NOT NULL DEFAULT '{}';"
        "ALTER TABLE bucket ADD COLUMN carried_cycles integer NOT NULL DEFAULT 0;"
        "GRANT UPDATE (credit_limit_pico, extras) ON account TO tokenbill_app;"
        "GRANT UPDATE (amount_micro, valid_until_us, lapse_at_us, carried_cycles) ON bucket TO tokenbill_app;"
    )
