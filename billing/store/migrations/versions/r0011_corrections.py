"""Journal lines that name the usage that they correct; null for everything that is no correction."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute("ALTER TABLE journal ADD COLUMN concerns text")
