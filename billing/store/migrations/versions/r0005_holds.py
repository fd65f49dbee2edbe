"""Holds: what reservations keep of an account's balance. Operational state, outside journal, digest and rebuild."""

from alembic import op

revision = "0005"
down_revision = "0004"

# Who wants to hold something of an account locks its head first, then reads balance and holds (docs/decisions).
TABLES = """
CREATE TABLE hold_head (
    account text COLLATE "C" PRIMARY KEY
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE hold (
    reservation_id text COLLATE "C" PRIMARY KEY,
    account text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('reservation', 'settlement', 'offline_grant', 'charging')),
    state text COLLATE "C" NOT NULL CHECK (state IN ('open', 'closed', 'released')),
    held_micro jsonb NOT NULL,
    wallet_pico numeric(38,0) NOT NULL CHECK (wallet_pico >= 0),
    terms jsonb NOT NULL,
    steps jsonb NOT NULL,
    event text COLLATE "C",
    sent_again boolean NOT NULL DEFAULT false,
    created_us bigint NOT NULL,
    expires_us bigint NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX hold_open ON hold (account) WHERE state = 'open';
CREATE INDEX hold_expires ON hold (expires_us);
CREATE TABLE rating_group (
    rating_group bigint PRIMARY KEY,
    body jsonb NOT NULL
);
"""

RIGHTS = """
GRANT INSERT, UPDATE ON hold_head TO tokenbill_app;
GRANT INSERT, UPDATE, DELETE ON hold, rating_group TO tokenbill_app;
"""


def upgrade() -> None:
    """Make the tables of holds; runs as the owner with its schema in the search path."""
    op.execute(TABLES)
    op.execute(RIGHTS)
