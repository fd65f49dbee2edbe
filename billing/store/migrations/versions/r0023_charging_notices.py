"""Notifications to gateways about their charging sessions. Operational state, outside journal and digest."""

from alembic import op

revision = "0023"
down_revision = "0022"

TABLE = """
CREATE TABLE charging_notice (
    notice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session text COLLATE "C" NOT NULL,
    account text COLLATE "C" NOT NULL,
    uri text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('REAUTHORIZATION', 'ABORT_CHARGING')),
    groups jsonb NOT NULL,
    cause text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (session, cause)
) WITH (fillfactor = 80);
CREATE INDEX charging_notice_due ON charging_notice (next_try_at) WHERE state = 'pending';
CREATE INDEX charging_notice_finished ON charging_notice (finished_at) WHERE state <> 'pending';
"""

RIGHTS = """
GRANT INSERT, UPDATE (state, attempts, next_try_at, last_error, finished_at), DELETE ON charging_notice
    TO tokenbill_app;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    op.execute(TABLE)
    op.execute(RIGHTS)
