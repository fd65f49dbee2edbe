"""Conflicts: usage sent again with other content, for good. Identities by the hour of log time, beside the event's."""

from alembic import op

revision = "0014"
down_revision = "0013"

CONFLICTS = """
CREATE TABLE conflict (
    partition integer,
    commit_no bigint,
    row_no integer,
    topic text COLLATE "C" NOT NULL,
    record_offset bigint NOT NULL,
    log_time_us bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    source text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    sequence bigint,
    record_key bytea,
    headers text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    packing text COLLATE "C" NOT NULL CHECK (packing IN ('plain', 'zstandard')),
    value bytea,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE INDEX conflict_place ON conflict (partition, topic, record_offset);
CREATE INDEX conflict_account ON conflict (account);
CREATE TABLE conflict_resolution (
    resolution_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition integer NOT NULL,
    commit_no bigint NOT NULL,
    row_no integer NOT NULL,
    outcome text COLLATE "C" NOT NULL CHECK (outcome IN ('keep', 'correct')),
    reason text COLLATE "C" NOT NULL,
    resolved_by text COLLATE "C" NOT NULL,
    resolved_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (partition, commit_no, row_no) REFERENCES conflict
);
CREATE INDEX conflict_resolution_of ON conflict_resolution (partition, commit_no, row_no, resolution_no);
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['conflict', 'conflict_resolution'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only', name);
    END LOOP;
END $$;
GRANT INSERT ON conflict, conflict_resolution TO tokenbill_app;
"""

# Conflicts of commits before this left only a finding; the audit begins after them.
BEGINNING = """
ALTER TABLE partition_state ADD COLUMN conflict_after bigint NOT NULL DEFAULT 0;
UPDATE partition_state SET conflict_after = commit_no;
"""

# Identities of commits before this have no hour of log time: they are found by the hour of the event's time alone.
LOG_HOURS = """
ALTER TABLE dedupe_hour ADD COLUMN log_hour_us bigint;
CREATE INDEX dedupe_hour_logged ON dedupe_hour (partition, log_hour_us, commit_no) WHERE log_hour_us IS NOT NULL;
ALTER TABLE partition_state ADD COLUMN unlogged_until_us bigint NOT NULL DEFAULT 0;
UPDATE partition_state SET unlogged_until_us = log_time_us;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    for statements in (CONFLICTS, BEGINNING, LOG_HOURS):
        op.execute(statements)
