"""Record keys, foreign records, and the sources of keys of the HTTP API.

The first record key is made here. It is not in the rights of the report role: who reads it can forge records. What an
older version forwarded or sent without a digest is noted, so that only that is taken without one.
"""

import secrets

from alembic import op
from sqlalchemy import text

revision = "0015"
down_revision = "0014"

KEYS = """
CREATE TABLE record_key (
    number integer PRIMARY KEY CHECK (number > 0),
    secret bytea NOT NULL CHECK (octet_length(secret) >= 32),
    created_at timestamptz NOT NULL DEFAULT now(),
    until_us bigint
);
CREATE UNIQUE INDEX record_key_signing ON record_key ((true)) WHERE until_us IS NULL;
REVOKE ALL ON record_key FROM tokenbill_report;
GRANT INSERT, UPDATE (until_us) ON record_key TO tokenbill_app;
CREATE TABLE unsigned_forward (
    topic text COLLATE "C",
    origin integer,
    target integer,
    before_number bigint NOT NULL,
    PRIMARY KEY (topic, origin, target)
);
INSERT INTO unsigned_forward (topic, origin, target, before_number)
    SELECT topic, partition, target, next_number FROM forward_next WHERE next_number > 0;
"""

# An installation that has committed something had an older version, whose API and scheduler sent no digests. The
# minute is for clocks that differ: the broker stamps the records, the database this row.
OWN_FROM = """
INSERT INTO installation (key, value)
    SELECT 'own_digests_from_us', CASE WHEN EXISTS (SELECT FROM partition_state WHERE commit_no > 0)
        THEN (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 60000000 ELSE 0 END
    ON CONFLICT DO NOTHING;
"""

FOREIGN = """
ALTER TABLE commit ADD COLUMN "foreign" bigint NOT NULL DEFAULT 0;
ALTER TABLE commit ADD COLUMN commands_foreign bigint NOT NULL DEFAULT 0;
CREATE TABLE foreign_record (
    partition integer,
    commit_no bigint,
    row_no integer,
    topic text COLLATE "C" NOT NULL,
    record_offset bigint NOT NULL,
    log_time_us bigint NOT NULL,
    fault text COLLATE "C" NOT NULL,
    record_key bytea,
    headers text COLLATE "C" NOT NULL,
    size_bytes bigint NOT NULL,
    packing text COLLATE "C" NOT NULL CHECK (packing IN ('plain', 'zstandard')),
    value bytea,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE INDEX foreign_record_place ON foreign_record (partition, topic, record_offset);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON foreign_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE foreign_record ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT ON foreign_record TO tokenbill_app;
"""

SOURCES = """
ALTER TABLE api_key ADD COLUMN sources text[] COLLATE "C" NOT NULL DEFAULT '{}';
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    for statements in (KEYS, OWN_FROM, FOREIGN, SOURCES):
        op.execute(statements)
    first = text("INSERT INTO record_key (number, secret) VALUES (1, :secret)")
    op.get_bind().execute(first, {"secret": secrets.token_bytes(32)})
