"""Reserved for topics: empty until that change fills it in."""

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
