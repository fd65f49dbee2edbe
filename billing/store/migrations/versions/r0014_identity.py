"""Reserved for identity: empty until that change fills it in."""

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
