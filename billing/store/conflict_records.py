"""Conflicts in SQL: find usage that was sent again with other content, return its state, and store resolutions.

Only commits write ``conflict`` (:mod:`billing.store.commits.write_commit`). This module changes no row: a resolution is
a row of its own. It never sends commands to Kafka.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from billing.conflicts import ConflictContent, ListedConflict
from billing.store.commits.suspense_rows import read_headers, read_value
from billing.store.database import Connection, Database
from billing.suspense import RecordPlace

CONFLICT_PAGE_ROWS = 1_000
CONFLICT_LOCK = 0x7462_636F  # "tbco"
"""Advisory lock of a resolution: one at a time in a database."""

_STATE: LiteralString = """
CASE WHEN r.resolution_no IS NULL THEN 'open' WHEN r.outcome = 'keep' THEN 'kept'
     WHEN EXISTS (SELECT FROM command_seen AS s WHERE s.source = 'urn:tokenbill:conflicts'
                  AND s.id = c.topic || '/' || c.partition || '/' || c.record_offset) THEN 'corrected'
     ELSE 'correcting' END
"""
_FROM: LiteralString = """
FROM conflict AS c LEFT JOIN LATERAL (
    SELECT * FROM conflict_resolution AS r WHERE (r.partition, r.commit_no, r.row_no)
        = (c.partition, c.commit_no, c.row_no) ORDER BY r.resolution_no DESC LIMIT 1
) AS r ON true
"""
LISTED_CONFLICT: LiteralString = f"""
SELECT c.partition, c.commit_no, c.row_no, c.topic, c.partition, c.record_offset, c.log_time_us, c.account, c.source,
    c.id, c.sequence, c.size_bytes, {_STATE}, r.resolved_by, r.reason,
    (extract(epoch FROM r.resolved_at) * 1000000)::bigint
{_FROM}"""  # noqa: S608 (literals only)
CONFLICT_WHERE: LiteralString = """
WHERE (%(account)s::text IS NULL OR c.account = %(account)s) AND (%(source)s::text IS NULL OR c.source = %(source)s)
  AND (%(from_us)s::bigint IS NULL OR c.log_time_us >= %(from_us)s)
  AND (%(to_us)s::bigint IS NULL OR c.log_time_us < %(to_us)s)
"""
CONFLICT_IS_OPEN: LiteralString = " AND r.resolution_no IS NULL"
_OLDEST_FIRST: LiteralString = " ORDER BY c.log_time_us, c.partition, c.commit_no, c.row_no"
AFTER_CONFLICT: LiteralString = """
  AND (c.partition, c.commit_no, c.row_no) > (%(after_partition)s, %(after_commit)s, %(after_row)s)
ORDER BY c.partition, c.commit_no, c.row_no LIMIT %(rows)s
"""
CONFLICT_AT_PLACE: LiteralString = " WHERE c.topic = %s AND c.partition = %s AND c.record_offset = %s"
CONFLICT_CONTENT: LiteralString = "SELECT c.record_key, c.headers, c.packing, c.value FROM conflict AS c"
STORE_RESOLUTION: LiteralString = (
    "INSERT INTO conflict_resolution (partition, commit_no, row_no, outcome, reason, resolved_by)"
    " VALUES (%s, %s, %s, %s, %s, %s)"
)


@dataclass(frozen=True, slots=True)
class WantedConflicts:
    """Filter of rows. A field of None matches all rows. ``from_us`` is inclusive, ``to_us`` is exclusive."""

    account: str | None = None
    source: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    only_open: bool = True

    def parameters(self) -> dict[str, str | int | None]:
        """Return the parameters of :data:`CONFLICT_WHERE`."""
        return {"account": self.account, "source": self.source, "from_us": self.from_us, "to_us": self.to_us}

    def statement(self) -> LiteralString:
        """Return the query of the rows, without their order."""
        return LISTED_CONFLICT + CONFLICT_WHERE + (CONFLICT_IS_OPEN if self.only_open else "")


def listed_conflicts(database: Database, wanted: WantedConflicts) -> Iterator[ListedConflict]:
    """Yield the conflicts that match the filter, oldest first. The rows are streamed.

    Raises:
        DatabaseDown, NotPrepared: as :meth:`Database.transaction`.
    """
    with database.transaction() as connection, connection.cursor(name="conflict") as cursor:
        cursor.itersize = CONFLICT_PAGE_ROWS
        cursor.execute(wanted.statement() + _OLDEST_FIRST, wanted.parameters())
        for row in cursor:
            yield read_listed_conflict(row)


def read_listed_conflict(row: Sequence[Any]) -> ListedConflict:
    """Convert a row of :data:`LISTED_CONFLICT`."""
    return ListedConflict((row[0], row[1], row[2]), RecordPlace(*row[3:6]), *row[6:])


def read_conflict_content(row: Sequence[Any]) -> ConflictContent:
    """Convert a row of :data:`CONFLICT_CONTENT`."""
    record_key, headers, packing, value = row
    return ConflictContent(
        None if record_key is None else bytes(record_key),
        read_headers(headers),
        read_value(packing, None if value is None else bytes(value)),
    )


def shown_conflict(connection: Connection, place: RecordPlace) -> tuple[ListedConflict, ConflictContent] | None:
    """Return one conflict with its state and its bytes; None if there is none at this place."""
    found = connection.execute(LISTED_CONFLICT + CONFLICT_AT_PLACE, place).fetchone()
    content = connection.execute(CONFLICT_CONTENT + CONFLICT_AT_PLACE, place).fetchone()
    if found is None or content is None:
        return None
    return read_listed_conflict(found), read_conflict_content(content)


class ConflictResolution:
    """One transaction that finds a conflict, stays open while its correction is sent, and stores the decision.

    Only one resolution runs at a time in a database. A correction that was sent, but whose resolution was not stored
    because of a crash, is sent again under the same identity the next time, and is carried out once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The transaction stays open while the caller waits for Kafka.
        connection.execute(
            "SELECT set_config('transaction_timeout', '0', true),"
            " set_config('idle_in_transaction_session_timeout', '0', true)"
        )
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (CONFLICT_LOCK,))

    def at(self, place: RecordPlace) -> tuple[ListedConflict, ConflictContent] | None:
        """Return the conflict at a place; None if there is none."""
        return shown_conflict(self._connection, place)

    def note(self, one: ListedConflict, outcome: str, reason: str, resolved_by: str) -> None:
        """Store what was decided, why, and by whom."""
        self._connection.execute(STORE_RESOLUTION, (*one.key, outcome, reason, resolved_by))
