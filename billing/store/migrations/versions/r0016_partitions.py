"""Reserved for partitions: empty until that change fills it in."""

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
