"""Holds: what was held when commands were decided, for good; settlements to send again; suspense by event."""

from alembic import op

revision = "0017"
down_revision = "0016"

TABLE = """
CREATE TABLE command_held (
    partition integer,
    commit_no bigint,
    row_no integer,
    account text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('holds', 'until', 'wallet', 'bucket')),
    bucket text COLLATE "C" NOT NULL CHECK ((bucket <> '') = (kind = 'bucket')),
    amount numeric(38,0) NOT NULL,
    PRIMARY KEY (partition, commit_no, row_no)
);
"""

# When the event of a settlement may be sent again.
SENDING = "ALTER TABLE hold ADD COLUMN send_after_us bigint NOT NULL DEFAULT 0"

# The records of one event in suspense; its account, source and id may be longer than an index entry can be.
IDENTITY = "CREATE INDEX suspense_id ON suspense (hashtextextended(id, 0)) WHERE id IS NOT NULL"

GUARD = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON command_held
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE command_held ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT ON command_held TO tokenbill_app;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(TABLE)
    op.execute(GUARD)
    op.execute(SENDING)
    op.execute(IDENTITY)
