"""Histories of published output, and the chained log of changes of administrative tables.

Operational state, outside the digest of a commit, except that each commit's header holds the head of the log.
"""

from alembic import op

revision = "0019"
down_revision = "0018"

# A history begins when the database is an older copy than the one whose output was published.
HISTORIES = """
CREATE TABLE output_history (
    partition integer REFERENCES partition_state,
    history integer CHECK (history > 0),
    after_commit_no bigint NOT NULL,
    common_commit_no bigint NOT NULL,
    published_commit_no bigint NOT NULL,
    published_digest bytea NOT NULL,
    begun_by text COLLATE "C" NOT NULL,
    begun_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (partition, history)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON output_history
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE output_history ENABLE ALWAYS TRIGGER append_only;
GRANT INSERT ON output_history TO tokenbill_app;
"""

# Rows of these tables are changed by people or on their behalf, outside the digest of a commit.
ADMINISTRATIVE = {
    "api_key": ("key_id",),
    "webhook": ("webhook_id",),
    "installation": ("key",),
    "catalog_entry": ("kind", "name", "version"),
    "catalog_state": ("one",),
    "suspense_resolution": ("resolution_no",),
    "conflict_resolution": ("resolution_no",),
    "unsigned_forward": ("topic", "origin", "target"),
    "partition_stop": ("partition",),
    "partition_resume": ("resume_no",),
    "rating_group": ("rating_group",),
    "output_history": ("partition", "history"),
}
LOG = """
CREATE TABLE administration_log (
    number bigint PRIMARY KEY,
    at_us bigint NOT NULL,
    by_role text COLLATE "C" NOT NULL,
    by_login text COLLATE "C" NOT NULL,
    table_name text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL CHECK (operation IN ('BASE', 'INSERT', 'UPDATE', 'DELETE')),
    key jsonb NOT NULL,
    before jsonb,
    after jsonb,
    digest bytea NOT NULL
);
CREATE INDEX administration_log_row ON administration_log (table_name, key, number);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON administration_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE administration_log ENABLE ALWAYS TRIGGER append_only;
CREATE TABLE administration_head (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    number bigint NOT NULL,
    digest bytea NOT NULL
) WITH (fillfactor = 50);
INSERT INTO administration_head (number, digest) VALUES (0, decode(repeat('00', 32), 'hex'));
ALTER TABLE commit ADD COLUMN administration_no bigint, ADD COLUMN administration_digest bytea;
"""
# A secret in clear is logged as its digest.
FUNCTIONS = """
CREATE FUNCTION administration_row(stored jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN stored ? 'secret' THEN stored || jsonb_build_object(
        'secret', encode(sha256(convert_to(stored->>'secret', 'UTF8')), 'hex')) ELSE stored END
$$;
CREATE FUNCTION administration_digest(previous bytea, entry administration_log) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
    SELECT sha256(previous || convert_to(jsonb_build_array(entry.number, entry.at_us, entry.by_role, entry.by_login,
        entry.table_name, entry.operation, entry.key, entry.before, entry.after)::text, 'UTF8'))
$$;
CREATE FUNCTION log_administration(name text, operation text, key_columns text[], before jsonb, after jsonb)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = tokenbill SET timezone = 'UTC' AS $$
DECLARE
    head administration_head;
    entry administration_log;
    acting text := current_setting('role');
BEGIN
    UPDATE administration_head SET number = number + 1 RETURNING * INTO head;
    entry.number := head.number;
    entry.at_us := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    entry.by_role := CASE WHEN acting = 'none' THEN session_user::text ELSE acting END;
    entry.by_login := session_user::text;
    entry.table_name := name;
    entry.operation := operation;
    entry.key := (SELECT jsonb_agg(coalesce(after, before)->column_name ORDER BY place)
                  FROM unnest(key_columns) WITH ORDINALITY AS k (column_name, place));
    entry.before := before;
    entry.after := after;
    entry.digest := administration_digest(head.digest, entry);
    INSERT INTO administration_log VALUES (entry.*);
    UPDATE administration_head SET digest = entry.digest;
END $$;
CREATE FUNCTION note_administration() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = tokenbill SET timezone = 'UTC' SET bytea_output = 'hex' AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP <> 'INSERT' THEN administration_row(to_jsonb(OLD)) END;
    after jsonb := CASE WHEN TG_OP <> 'DELETE' THEN administration_row(to_jsonb(NEW)) END;
BEGIN
    IF before IS DISTINCT FROM after THEN
        PERFORM log_administration(TG_TABLE_NAME, TG_OP, TG_ARGV[0]::text[], before, after);
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION watch_administration(name text, key_columns text[]) RETURNS void LANGUAGE plpgsql
SET timezone = 'UTC' SET bytea_output = 'hex' AS $$
BEGIN
    EXECUTE format('CREATE TRIGGER administration AFTER INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW '
                   'EXECUTE FUNCTION note_administration(%L)', name, key_columns::text);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER administration', name);
    EXECUTE format('SELECT log_administration(%L, %L, %L::text[], NULL, administration_row(to_jsonb(t))) FROM %I AS t',
                   name, 'BASE', key_columns::text, name);
END $$;
REVOKE ALL ON FUNCTION log_administration, watch_administration FROM PUBLIC;
"""


def upgrade() -> None:
    """Runs as the owner with its schema in the search path."""
    for statements in (HISTORIES, LOG, FUNCTIONS):
        op.execute(statements)
    for name, key in ADMINISTRATIVE.items():
        op.execute(f"SELECT watch_administration('{name}', '{{{','.join(key)}}}')")
