"""Stopped partitions, and who let them go on: a stop is a row until it is resumed, a resumption is kept for good."""

from alembic import op

revision = "0016"
down_revision = "0015"

TABLES = """
CREATE TABLE partition_stop (
    partition integer PRIMARY KEY REFERENCES partition_state,
    kind text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL,
    topic text COLLATE "C",
    stop_offset bigint,
    last_offset bigint,
    origin integer,
    next_number bigint,
    worker text COLLATE "C" NOT NULL,
    stopped_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE partition_resume (
    resume_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition integer NOT NULL REFERENCES partition_state,
    commit_no bigint,
    topic text COLLATE "C",
    first_offset bigint,
    last_offset bigint,
    forward_topic text COLLATE "C",
    origin integer,
    next_number bigint,
    kind text COLLATE "C" NOT NULL,
    stop_reason text COLLATE "C" NOT NULL,
    worker text COLLATE "C" NOT NULL,
    stopped_at timestamptz NOT NULL,
    reason text COLLATE "C" NOT NULL CHECK (reason <> ''),
    requested_by text COLLATE "C" NOT NULL CHECK (requested_by <> ''),
    approved_by text COLLATE "C" NOT NULL CHECK (lower(approved_by) <> lower(requested_by) AND approved_by <> ''),
    resumed_at timestamptz NOT NULL DEFAULT now(),
    CHECK ((topic IS NULL) = (first_offset IS NULL) AND (topic IS NULL) = (last_offset IS NULL)),
    CHECK (commit_no IS NOT NULL OR (topic IS NULL AND next_number IS NULL))
);
CREATE UNIQUE INDEX partition_resume_commit ON partition_resume (partition, commit_no) WHERE commit_no IS NOT NULL;
CREATE SEQUENCE partition_stop_no;
"""

GUARDS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON partition_resume
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE partition_resume ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT, DELETE ON partition_stop TO tokenbill_app;
GRANT INSERT ON partition_resume TO tokenbill_app;
GRANT USAGE ON SEQUENCE partition_stop_no TO tokenbill_app;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(TABLES)
    op.execute(GUARDS)
