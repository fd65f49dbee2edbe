"""Reserved for keys: empty until that change fills it in."""

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
