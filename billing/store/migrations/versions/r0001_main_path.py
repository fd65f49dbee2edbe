"""Main tables: partitions, accounts, journal, commits, identities, outbox, catalogue; roles and their privileges.

Plain DDL, so that a database person reads what there is. Text compares by code point (``COLLATE "C"``) in whatever
database this runs. Money is pico, quota micro (``numeric(38,0)``); times are microseconds since 1970 (``bigint``).
"""

from alembic import op

revision = "0001"
down_revision = None

PARTITION_TABLES = """
CREATE TABLE installation (
    key text COLLATE "C" PRIMARY KEY,
    value text COLLATE "C" NOT NULL
);
CREATE TABLE partition_state (
    partition integer PRIMARY KEY,
    epoch bigint NOT NULL,
    commit_no bigint NOT NULL,
    log_time_us bigint NOT NULL,
    digest bytea NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE position (
    topic text COLLATE "C",
    partition integer REFERENCES partition_state,
    next_offset bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
CREATE TABLE output_sequence (
    topic text COLLATE "C",
    partition integer REFERENCES partition_state,
    next_sequence bigint NOT NULL,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);
CREATE TABLE forward_next (
    topic text COLLATE "C",
    partition integer REFERENCES partition_state,
    target integer,
    next_number bigint NOT NULL,
    PRIMARY KEY (topic, partition, target)
) WITH (fillfactor = 50);
CREATE TABLE forward_cursor (
    topic text COLLATE "C",
    partition integer REFERENCES partition_state,
    origin integer,
    next_number bigint NOT NULL,
    PRIMARY KEY (topic, partition, origin)
) WITH (fillfactor = 50);
CREATE TABLE relay_position (
    partition integer PRIMARY KEY REFERENCES partition_state,
    commit_no bigint NOT NULL
) WITH (fillfactor = 50);
"""

# New rows arrive by COPY without a partition: it comes from the transaction's setting, and without one COPY fails.
ACCOUNT_TABLES = """
CREATE TABLE account (
    account text COLLATE "C" PRIMARY KEY,
    currency text COLLATE "C" NOT NULL,
    price_book text COLLATE "C" NOT NULL,
    payment text COLLATE "C" NOT NULL,
    credit_limit_pico numeric(38,0) NOT NULL,
    wallet_pico numeric(38,0) NOT NULL,
    absorbed_micro numeric(38,0) NOT NULL,
    absorbed_pico numeric(38,0) NOT NULL,
    status text COLLATE "C" NOT NULL,
    clock_us bigint NOT NULL,
    next_due_us bigint,
    partition integer NOT NULL DEFAULT current_setting('tokenbill.partition')::integer REFERENCES partition_state
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX account_due ON account (partition, next_due_us) WHERE next_due_us IS NOT NULL;
CREATE TABLE bucket (
    account text COLLATE "C" REFERENCES account,
    grant_id text COLLATE "C",
    plan text COLLATE "C" NOT NULL,
    plan_version integer NOT NULL,
    bucket_no integer NOT NULL,
    unit text COLLATE "C" NOT NULL,
    amount_micro numeric(38,0) NOT NULL,
    remaining_micro numeric(38,0) NOT NULL CHECK (remaining_micro >= 0),
    liability_pico numeric(38,0) NOT NULL CHECK (liability_pico >= 0),
    valid_from_us bigint NOT NULL,
    valid_until_us bigint,
    lapse_at_us bigint,
    alerts_fired integer NOT NULL,
    status text COLLATE "C" NOT NULL,
    partition integer NOT NULL DEFAULT current_setting('tokenbill.partition')::integer,
    PRIMARY KEY (account, grant_id)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE payment_ref (
    account text COLLATE "C",
    payment_ref text COLLATE "C",
    partition integer NOT NULL,
    commit_no bigint NOT NULL,
    PRIMARY KEY (account, payment_ref)
);
CREATE TABLE command_seen (
    source text COLLATE "C",
    id text COLLATE "C",
    outcome text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    commit_no bigint NOT NULL,
    PRIMARY KEY (source, id)
);
"""

BOOK_TABLES = """
CREATE TABLE commit (
    partition integer REFERENCES partition_state,
    commit_no bigint,
    epoch bigint NOT NULL,
    catalog_epoch bigint NOT NULL,
    log_time_us bigint NOT NULL,
    positions jsonb NOT NULL,
    rated bigint NOT NULL,
    duplicate bigint NOT NULL,
    rejected bigint NOT NULL,
    forwarded bigint NOT NULL,
    dropped bigint NOT NULL,
    commands_accepted bigint NOT NULL,
    commands_rejected bigint NOT NULL,
    commands_duplicate bigint NOT NULL,
    commands_forwarded bigint NOT NULL,
    commands_dropped bigint NOT NULL,
    limits jsonb NOT NULL,
    outbox jsonb NOT NULL,
    changes_sha256 bytea NOT NULL,
    previous_digest bytea NOT NULL,
    digest bytea NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, commit_no)
);
CREATE TABLE journal (
    partition integer,
    commit_no bigint,
    line_no integer,
    account_code text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    amount_pico numeric(38,0) NOT NULL,
    PRIMARY KEY (partition, commit_no, line_no)
);
CREATE TABLE rollup (
    partition integer,
    commit_no bigint,
    row_no integer,
    hour_us bigint NOT NULL,
    price_book text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    model text COLLATE "C" NOT NULL,
    hardware_tier text COLLATE "C" NOT NULL,
    energy_source text COLLATE "C" NOT NULL,
    site text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    service_tier text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    events bigint NOT NULL,
    tokens numeric(38,0) NOT NULL,
    standard_micro numeric(38,0) NOT NULL,
    amount_pico numeric(38,0) NOT NULL,
    net_pico numeric(38,0) NOT NULL,
    burned_micro numeric(38,0) NOT NULL,
    charged_pico numeric(38,0) NOT NULL,
    absorbed_micro numeric(38,0) NOT NULL,
    absorbed_pico numeric(38,0) NOT NULL,
    revenue_pico numeric(38,0) NOT NULL,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE TABLE finding (
    partition integer,
    commit_no bigint,
    row_no integer,
    kind text COLLATE "C" NOT NULL,
    detail text COLLATE "C" NOT NULL,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE TABLE book_time (
    name text COLLATE "C",
    partition integer,
    max_event_time_us bigint NOT NULL,
    PRIMARY KEY (name, partition)
) WITH (fillfactor = 50);
"""

IDENTITY_TABLES = """
CREATE TABLE dedupe_source (
    partition integer,
    source text COLLATE "C",
    numbered boolean NOT NULL,
    seen_runs bytea NOT NULL,
    refused bytea NOT NULL,
    PRIMARY KEY (partition, source)
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
CREATE TABLE dedupe_recent (
    partition integer,
    commit_no bigint,
    row_no integer,
    source text COLLATE "C" NOT NULL,
    highest bigint NOT NULL,
    payload bytea NOT NULL,
    PRIMARY KEY (partition, commit_no, row_no)
);
CREATE INDEX dedupe_recent_source ON dedupe_recent (partition, source, highest);
CREATE TABLE dedupe_hour (
    partition integer,
    hour_us bigint,
    commit_no bigint,
    row_no integer,
    payload bytea NOT NULL,
    PRIMARY KEY (partition, hour_us, commit_no, row_no)
);
CREATE TABLE outbox (
    partition integer,
    commit_no bigint,
    row_no integer,
    topic text COLLATE "C" NOT NULL,
    records integer NOT NULL,
    first_sequence bigint NOT NULL,
    payload bytea STORAGE EXTERNAL NOT NULL,
    PRIMARY KEY (partition, commit_no, row_no)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
"""

CATALOG_TABLES = """
CREATE TABLE catalog_entry (
    kind text COLLATE "C",
    name text COLLATE "C",
    version integer,
    effective_from_us bigint,
    sha256 text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (kind, name, version)
);
CREATE TABLE catalog_state (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch bigint NOT NULL
);
INSERT INTO catalog_state (epoch) VALUES (0);
CREATE TABLE worker (
    name text COLLATE "C" PRIMARY KEY,
    catalog_epoch bigint NOT NULL,
    seen_at timestamptz NOT NULL
) WITH (fillfactor = 50);
"""

# ALWAYS: session_replication_role = replica does not switch them off.
APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append only: % refused; corrections are new rows', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
DO $$
DECLARE name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['journal', 'commit', 'rollup', 'command_seen', 'payment_ref', 'catalog_entry'] LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
        EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER append_only', name);
    END LOOP;
END $$;
"""

RIGHTS = """
GRANT USAGE ON SCHEMA tokenbill TO tokenbill_app, tokenbill_report;
GRANT SELECT ON ALL TABLES IN SCHEMA tokenbill TO tokenbill_app, tokenbill_report;
ALTER DEFAULT PRIVILEGES IN SCHEMA tokenbill GRANT SELECT ON TABLES TO tokenbill_app, tokenbill_report;
GRANT INSERT ON journal, commit, rollup, command_seen, payment_ref, finding, catalog_entry TO tokenbill_app;
GRANT UPDATE (epoch, commit_no, log_time_us, digest) ON partition_state TO tokenbill_app;
GRANT UPDATE (next_offset) ON position TO tokenbill_app;
GRANT UPDATE (epoch) ON catalog_state TO tokenbill_app;
GRANT INSERT, UPDATE (wallet_pico, absorbed_micro, absorbed_pico, status, clock_us, next_due_us) ON account
    TO tokenbill_app;
GRANT INSERT, UPDATE (remaining_micro, liability_pico, alerts_fired, status) ON bucket TO tokenbill_app;
GRANT INSERT, UPDATE ON output_sequence, forward_next, forward_cursor, relay_position, dedupe_source, book_time, worker
    TO tokenbill_app;
GRANT INSERT, DELETE ON outbox, dedupe_recent, dedupe_hour TO tokenbill_app;
"""


def upgrade() -> None:
    """Make everything; runs as the owner with its schema in the search path."""
    for statements in (PARTITION_TABLES, ACCOUNT_TABLES, BOOK_TABLES, IDENTITY_TABLES, CATALOG_TABLES):
        op.execute(statements)
    op.execute(APPEND_ONLY)
    op.execute(RIGHTS)
