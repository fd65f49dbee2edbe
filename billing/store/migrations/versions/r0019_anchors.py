"""Histories of published output, and the chained log of changes of administrative tables.

Operational state, outside the digest of a commit, except that each commit's header holds the head of the log.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# A history begins when the database is an older copy than the one whose output was published.
HISTORIES = """
CREATE TABLE output_history (
    partition integer REFERENCES partition_state,
    history integer CHECK (history > 0),
    after_commit_no bigint NOT NULL,
    common_commit_no bigint NOT NULL,
    published_commit_no bigint NOT NULL,
    published_digest bytea NOT NULL,
    begun_by text COLLATE "C" NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, history)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON output_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE output_history ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT ON output_history TO tokenbill_app;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(HISTORIES)
