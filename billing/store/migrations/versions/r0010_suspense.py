"""Suspense: every rejected usage record for good, and what was sent again. Its topic keeps them only for a time."""

from alembic import op

revision = "0010"
down_revision = "0009"

TABLES = """
CREATE TABLE suspense (
    partition integer,
    commit_no bigint,
    row_no integer,
    topic text COLLATE "C" NOT NULL,
    record_offset bigint NOT NULL,
    log_time_us bigint NOT NULL,
    reason text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    id text COLLATE "C",
    sequence bigint,
    account text COLLATE "C",
    record_key bytea,
    headers text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    packing text COLLATE "C" NOT NULL CHECK (packing IN ('plain', 'zstandard')),
    value bytea,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE INDEX suspense_place ON suspense (partition, topic, record_offset);
CREATE INDEX suspense_account ON suspense (account) WHERE account IS NOT NULL;
CREATE TABLE suspense_resolution (
    resolution_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition integer NOT NULL,
    commit_no bigint NOT NULL,
    row_no integer NOT NULL,
    how text COLLATE "C" NOT NULL CHECK (how IN ('as_it_was', 'repaired')),
    resolved_by text COLLATE "C" NOT NULL,
    resolved_at timestamptz NOT NULL DEFAULT now(),
    sent_topic text COLLATE "C" NOT NULL,
    sent_partition integer NOT NULL,
    sent_offset bigint NOT NULL,
    repaired bytea CHECK ((how = 'repaired') = (repaired IS NOT NULL)),
    FOREIGN KEY (partition, commit_no, row_no) REFERENCES suspense
);
CREATE INDEX suspense_resolution_of ON suspense_resolution (partition, commit_no, row_no, resolution_no);
"""

GUARDS = """
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['suspense', 'suspense_resolution'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only', name);
    END LOOP;
END $$;
GRANT INSERT ON suspense, suspense_resolution TO tokenbill_app;
"""

# What commits rejected before this is in no row; the audit begins after them.
BEGINNING = """
ALTER TABLE partition_state ADD COLUMN suspense_after bigint NOT NULL DEFAULT 0;
UPDATE partition_state SET suspense_after = commit_no;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    for statements in (TABLES, GUARDS, BEGINNING):
        op.execute(statements)
