"""Reserved for rows: empty until that change fills it in."""

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
