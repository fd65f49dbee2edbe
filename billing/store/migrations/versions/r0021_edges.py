"""Reserved for edges: empty until that change fills it in."""

revision = "0021"
down_revision = "0020"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
