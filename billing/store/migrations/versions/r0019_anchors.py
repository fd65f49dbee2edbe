"""Reserved for anchors: empty until that change fills it in."""

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
