"""Webhooks and their deliveries of account events. Operational state, outside journal and digest."""

from alembic import op

revision = "0004"
down_revision = "0003"

TABLES = """
CREATE TABLE webhook (
    webhook_id text COLLATE "C" PRIMARY KEY,
    url text COLLATE "C" NOT NULL,
    secret text COLLATE "C" NOT NULL,
    account text COLLATE "C",
    types text[] NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz
);
CREATE TABLE webhook_position (
    partition integer PRIMARY KEY,
    next_offset bigint NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE webhook_delivery (
    delivery_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    webhook_id text COLLATE "C" NOT NULL REFERENCES webhook,
    partition integer NOT NULL,
    record_offset bigint NOT NULL,
    account text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (webhook_id, partition, record_offset)
) WITH (fillfactor = 80);
CREATE INDEX webhook_delivery_due ON webhook_delivery (next_try_at) WHERE state = 'pending';
CREATE INDEX webhook_delivery_finished ON webhook_delivery (finished_at) WHERE state <> 'pending';
"""

RIGHTS = """
GRANT INSERT, UPDATE (removed_at) ON webhook TO tokenbill_app;
GRANT INSERT, UPDATE (next_offset) ON webhook_position TO tokenbill_app;
GRANT INSERT, UPDATE (state, attempts, next_try_at, last_error, finished_at), DELETE ON webhook_delivery
    TO tokenbill_app;
"""


def upgrade() -> None:
    """Make the tables of the webhooks; runs as the owner with its schema in the search path."""
    op.execute(TABLES)
    op.execute(RIGHTS)
