"""Tables of the HTTP API: keys with roles, idempotency keys. Operational state, outside journal and digest.

A position of the API is where it reads the outcomes of commands from when it starts.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

TABLES = """
CREATE TABLE api_key (
    key_id text COLLATE "C" PRIMARY KEY,
    name text COLLATE "C" NOT NULL,
    secret_sha256 bytea NOT NULL,
    role text COLLATE "C" NOT NULL CHECK (role IN ('admin', 'operator', 'ingest', 'read')),
    account text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE TABLE api_idempotency (
    caller text COLLATE "C" REFERENCES api_key,
    key text COLLATE "C",
    request_sha256 bytea NOT NULL,
    account text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    record bytea NOT NULL,
    partition integer NOT NULL,
    record_offset bigint,
    outcome text COLLATE "C" CHECK (outcome IN ('accepted', 'rejected')),
    reason text COLLATE "C",
    detail text COLLATE "C",
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
) WITH (fillfactor = 80);
CREATE TABLE api_position (
    partition integer PRIMARY KEY,
    next_offset bigint NOT NULL
) WITH (fillfactor = 50);
"""

RIGHTS = """
GRANT INSERT, UPDATE (revoked_at) ON api_key TO tokenbill_app;
GRANT INSERT, UPDATE (record_offset, outcome, reason, detail) ON api_idempotency TO tokenbill_app;
GRANT INSERT, UPDATE (next_offset) ON api_position TO tokenbill_app;
"""


def upgrade() -> None:
    """Make the tables of the API; runs as the owner with its schema in the search path."""
    op.execute(TABLES)
    op.execute(RIGHTS)
