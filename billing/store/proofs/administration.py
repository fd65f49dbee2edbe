"""Check of the administrative tables: their log of changes is a chain, and replayed it gives their rows.

Every change of such a table is logged by a trigger in its transaction, with the role that made it. The program works
in the roles of the application and of the owner, so any other role is a person who went past the program. Each commit
holds the head of the log, so that the log cannot be written anew without the commits.
"""

from collections.abc import Iterator

from psycopg import sql

from billing.store.database import Connection

ADMINISTRATION = "administration"
ADMINISTRATION_SENTENCE = (
    "API keys, webhooks, settings, catalogue and resolutions are as the log of their changes says, in an unbroken chain"
)

_CHAIN = """
SELECT format('entry %s of the log of changes: its digest does not follow from the entry and the one before', number)
FROM (
    SELECT l, number, digest, lag(digest, 1, decode(repeat('00', 32), 'hex')) OVER w AS previous,
        lag(number, 1, 0::bigint) OVER w AS before_no
    FROM administration_log AS l WINDOW w AS (ORDER BY number)
) AS entries WHERE number <> before_no + 1 OR digest <> administration_digest(previous, l)
UNION ALL
SELECT format('the head of the log of changes is entry %s, and the last entry is %s', h.number, coalesce(l.number, 0))
FROM administration_head AS h
LEFT JOIN (SELECT number, digest FROM administration_log ORDER BY number DESC LIMIT 1) AS l ON true
WHERE h.number <> coalesce(l.number, 0) OR (l.digest IS NOT NULL AND h.digest <> l.digest)
UNION ALL
SELECT format('the log of changes has %s heads', count(*)) FROM administration_head
HAVING count(*) <> 1 OR NOT bool_and(one)
UNION ALL
SELECT format('partition %s commit %s: it was written after entry %s of the log of changes, which is another now',
              c.partition, c.commit_no, c.administration_no)
FROM commit AS c LEFT JOIN administration_log AS l ON l.number = c.administration_no
WHERE c.administration_no > 0 AND c.administration_digest IS DISTINCT FROM l.digest
UNION ALL
SELECT format('%s %s: %s by %s past the program (entry %s): %s, before %s', table_name, key, operation, by_login,
              number, coalesce(after::text, 'no row'), coalesce(before::text, 'no row'))
FROM administration_log WHERE by_role NOT IN ('tokenbill_app', 'tokenbill_owner')
"""
_WATCHED = """
SELECT c.relname, encode(t.tgargs, 'escape') FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE t.tgfoid = 'note_administration'::regproc ORDER BY 1
"""
_LOGGED = "SELECT DISTINCT table_name FROM administration_log ORDER BY 1"
# A column that is newer than an entry is not in it.
_ROWS = """
SELECT format('%s %s: the row is %s, the log of changes says %s', {table}::text, coalesce(l.key, r.key),
              coalesce(r.stored::text, 'missing'), coalesce(l.after::text, 'that there is none'))
FROM (SELECT DISTINCT ON (key) key, after FROM administration_log WHERE table_name = {table}
      ORDER BY key, number DESC) AS l
FULL JOIN (SELECT jsonb_build_array({keys}) AS key, administration_row(to_jsonb(t)) AS stored FROM {name} AS t) AS r
    USING (key)
WHERE (l.after IS NULL) <> (r.stored IS NULL)
    OR EXISTS (SELECT FROM jsonb_each(l.after) AS a WHERE r.stored ? a.key AND r.stored->a.key <> a.value)
"""


def administration_breaks(connection: Connection) -> Iterator[str]:
    """Yield a sentence for each change of an administrative table that the program did not make or log."""
    connection.execute("SELECT set_config('timezone', 'UTC', true), set_config('bytea_output', 'hex', true)")
    for (text,) in connection.execute(_CHAIN.encode()):
        yield text
    watched: dict[str, str] = dict(connection.execute(_WATCHED.encode()).fetchall())
    for (name,) in connection.execute(_LOGGED.encode()).fetchall():
        if name not in watched:
            yield f"{name}: its changes are no longer logged"
    for name, arguments in watched.items():
        keys = [sql.Identifier(column) for column in arguments.removesuffix(r"\000").strip("{}").split(",")]
        rows = sql.SQL(_ROWS).format(table=sql.Literal(name), name=sql.Identifier(name), keys=sql.SQL(", ").join(keys))
        for (text,) in connection.execute(rows):
            yield text
