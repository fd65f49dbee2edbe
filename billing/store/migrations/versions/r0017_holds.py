"""Reserved for holds: empty until that change fills it in."""

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
