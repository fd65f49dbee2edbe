"""Rows that two people accepted as they are: the sum before, the sum after, and who said so."""

from alembic import op

revision = "0022"
down_revision = "0021"

TABLE = """
CREATE TABLE row_acceptance (
    acceptance_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partition integer NOT NULL REFERENCES partition_state,
    commit_no bigint NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    rows_before bigint NOT NULL,
    total_before bytea NOT NULL,
    rows_after bigint NOT NULL,
    total_after bytea NOT NULL,
    marks bigint NOT NULL,
    reason text COLLATE "C" NOT NULL CHECK (reason <> ''),
    requested_key text COLLATE "C" NOT NULL REFERENCES api_key,
    requested_by text COLLATE "C" NOT NULL,
    approved_key text COLLATE "C" NOT NULL REFERENCES api_key CHECK (approved_key <> requested_key),
    approved_by text COLLATE "C" NOT NULL CHECK (lower(approved_by) <> lower(requested_by)),
    accepted_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (partition, commit_no)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON row_acceptance
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE row_acceptance ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT ON row_acceptance TO tokenbill_app;
SELECT watch_administration('row_acceptance', '{acceptance_no}');
"""
# An acceptance writes the hash of each row that has another's; every other change of these columns is found by audit.
HASHES = """
GRANT UPDATE (row_hash) ON finding, dedupe_hour, dedupe_recent, partition_state TO tokenbill_app;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(TABLE)
    op.execute(HASHES)
