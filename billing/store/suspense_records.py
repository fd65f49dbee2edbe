"""Suspense in SQL: find rejected records, return their state, and store their resubmissions.

Only commits write ``suspense`` (:mod:`billing.store.commits.write_commit`). This module changes no row: a resolution is
a row of its own. It never sends records to Kafka.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, LiteralString

from billing.store.commits.suspense_rows import read_headers, read_value
from billing.store.database import Connection, Database
from billing.suspense import (
    SUSPENSE_OPEN,
    Copy,
    Listed,
    RecordHeaders,
    RecordPlace,
    SuspendedRecord,
    sent_headers,
)
from schemas.topics import OWN_DIGEST_HEADER

AS_IT_WAS, REPAIRED = "as_it_was", "repaired"
SUSPENSE_PAGE_ROWS = 1_000
PAGE_BYTES = 32 << 20
"""Size of a page of records to resubmit: the record that reaches it is the last of its page."""
_LOCK = 0x7462_7375  # "tbsu"

_STATE: LiteralString = """
CASE WHEN r.resolution_no IS NULL THEN 'open'
     WHEN EXISTS (SELECT FROM suspense AS again WHERE again.topic = r.sent_topic
                  AND again.partition = r.sent_partition AND again.record_offset = r.sent_offset) THEN 'rejected_again'
     WHEN r.sent_offset < (SELECT next_offset FROM position AS p
                           WHERE p.topic = r.sent_topic AND p.partition = r.sent_partition) THEN 'rated'
     ELSE 'resubmitted' END
"""
_FROM: LiteralString = """
FROM suspense AS s LEFT JOIN LATERAL (
    SELECT * FROM suspense_resolution AS r WHERE (r.partition, r.commit_no, r.row_no)
        = (s.partition, s.commit_no, s.row_no) ORDER BY r.resolution_no DESC LIMIT 1
) AS r ON true
"""
WHERE: LiteralString = """
WHERE (%(reason)s::text IS NULL OR s.reason = %(reason)s) AND (%(account)s::text IS NULL OR s.account = %(account)s)
  AND (%(from_us)s::bigint IS NULL OR s.log_time_us >= %(from_us)s)
  AND (%(to_us)s::bigint IS NULL OR s.log_time_us < %(to_us)s)
"""
IS_OPEN: LiteralString = " AND r.resolution_no IS NULL"
_OF_KEYS: LiteralString = """
WHERE (s.partition, s.commit_no, s.row_no) IN (SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::integer[]))
ORDER BY s.partition, s.commit_no, s.row_no
"""
AFTER: LiteralString = """
  AND (s.partition, s.commit_no, s.row_no) > (%(after_partition)s, %(after_commit)s, %(after_row)s)
ORDER BY s.partition, s.commit_no, s.row_no LIMIT %(rows)s
"""
AT_PLACE: LiteralString = " WHERE s.topic = %s AND s.partition = %s AND s.record_offset = %s"


IS_NAMED: LiteralString = """
SELECT EXISTS (SELECT FROM account WHERE account = %(account)s)
    OR EXISTS (SELECT FROM suspense WHERE account = %(account)s)
"""
"""True if an account was opened, or if a rejected record names it: one reason to reject is that it was not opened."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Filter of rows. A field of None matches all rows. ``from_us`` is inclusive, ``to_us`` is exclusive."""

    reason: str | None = None
    account: str | None = None
    from_us: int | None = None
    to_us: int | None = None
    only_open: bool = True

    def parameters(self) -> dict[str, str | int | None]:
        """Return the parameters of :data:`WHERE`."""
        return {"reason": self.reason, "account": self.account, "from_us": self.from_us, "to_us": self.to_us}


def is_named(database: Database, account: str) -> bool:
    """Return True if an account was opened, or if a rejected record names it."""
    with database.transaction() as connection:
        row = connection.execute(IS_NAMED, {"account": account}).fetchone()
    return row is not None and bool(row[0])


def after_parameters(after: tuple[int, int, int], rows: int) -> dict[str, int]:
    """Return the parameters of :data:`AFTER`: the key of the preceding row, and the maximum number of rows."""
    return dict(zip(("after_partition", "after_commit", "after_row", "rows"), (*after, rows), strict=True))


_COLUMNS: LiteralString = f"""
SELECT s.partition, s.commit_no, s.row_no, s.topic, s.partition, s.record_offset, s.log_time_us, s.reason, s.detail,
    s.source, s.id, s.account, s.size_bytes, {_STATE}, r.sent_topic, r.sent_partition,
    r.sent_offset, r.resolved_by, (extract(epoch FROM r.resolved_at) * 1000000)::bigint
"""  # noqa: S608 (literals only)
LISTED: LiteralString = _COLUMNS + _FROM
# Records of one event stand together, at the place of the first of them.
_SAME: LiteralString = """
WINDOW same AS (PARTITION BY s.account, s.source, s.id,
    CASE WHEN s.account IS NULL OR s.source IS NULL OR s.id IS NULL THEN ROW(s.partition, s.commit_no, s.row_no) END),
    first AS (same ORDER BY s.log_time_us, s.partition, s.commit_no, s.row_no)
ORDER BY min(s.log_time_us) OVER same, first_value(ROW(s.partition, s.commit_no, s.row_no)) OVER first,
    s.log_time_us, s.partition, s.commit_no, s.row_no
"""


def listed(database: Database, wanted: Wanted) -> Iterator[Listed]:
    """Yield the rows that match the filter, oldest first, those of one event together. The rows are streamed.

    Raises:
        DatabaseDown, NotPrepared: as :meth:`Database.transaction`.
    """
    statement = _COLUMNS + ", count(*) OVER same" + _FROM + WHERE + (IS_OPEN if wanted.only_open else "") + _SAME
    with database.transaction() as connection, connection.cursor(name="suspense") as cursor:
        cursor.itersize = SUSPENSE_PAGE_ROWS
        cursor.execute(statement, wanted.parameters())
        for row in cursor:
            yield replace(read_listed(row), copies=row[19])


def read_listed(row: Sequence[Any]) -> Listed:
    """Convert a row of :data:`LISTED`."""
    sent_to = None if row[14] is None else RecordPlace(*row[14:17])
    about = [*row[6:14], sent_to, *row[17:19]]
    return Listed((row[0], row[1], row[2]), RecordPlace(*row[3:6]), *about)


@dataclass(frozen=True, slots=True)
class Kept:
    """A record in suspense with its bytes. ``resolved`` is true if it was resubmitted.

    ``log_time_us`` is Kafka's LogAppendTime of the record.
    """

    key: tuple[int, int, int]
    """(partition, commit_no, row_no)."""
    held: SuspendedRecord
    resolved: bool
    log_time_us: int


@dataclass(frozen=True, slots=True)
class Resolution:
    """One resubmission of a record. ``repaired`` is the new value, or None if the record was resubmitted unchanged."""

    key: tuple[int, int, int]
    sent_to: RecordPlace
    repaired: bytes | None


KEPT: LiteralString = (
    "SELECT s.partition, s.commit_no, s.row_no, s.topic, s.partition, s.record_offset, s.reason, s.source, s.id,"
    " s.sequence, s.account, s.record_key, s.headers, s.packing, s.value, r.resolution_no IS NOT NULL,"
    " s.log_time_us" + _FROM
)


def read_kept(row: Sequence[Any]) -> Kept:
    """Convert a row of :data:`KEPT`."""
    record_key, headers, packing, value = row[11:15]
    about = [*row[6:11], None if record_key is None else bytes(record_key), read_headers(headers)]
    about.append(read_value(packing, None if value is None else bytes(value)))
    held = SuspendedRecord(RecordPlace(*row[3:6]), *about)
    return Kept((row[0], row[1], row[2]), held, row[15], row[16])


def shown(database: Database, place: RecordPlace) -> tuple[Listed, Kept] | None:
    """Return one record with its state and its bytes; None if no record was rejected at this place.

    Raises:
        DatabaseDown, NotPrepared: as :meth:`Database.transaction`.
    """
    with database.transaction() as connection:
        found = connection.execute(LISTED + AT_PLACE, place).fetchone()
        kept = connection.execute(KEPT + AT_PLACE, place).fetchone()
    return None if found is None or kept is None else (read_listed(found), read_kept(kept))


# The hash of the id has an index; account, source and id may be too long for one.
_COPIES: LiteralString = f"""
SELECT s.partition, s.commit_no, s.row_no, s.topic, s.partition, s.record_offset, s.account, s.source, s.id, s.headers,
    sha256(coalesce(s.value, '')), {_STATE}, r.sent_topic, r.sent_partition, r.sent_offset
{_FROM} JOIN unnest(%s::text[], %s::text[], %s::text[]) AS wanted (account, source, id)
    ON hashtextextended(s.id, 0) = hashtextextended(wanted.id, 0)
    AND s.account = wanted.account AND s.source = wanted.source AND s.id = wanted.id
"""


def _alone(one: Kept) -> Copy:
    held = one.held
    identity = None
    if held.account is not None and held.source is not None and held.id is not None:
        identity = (held.account, held.source, held.id)
    return Copy(one.key, held.place, identity, b"", SUSPENSE_OPEN, None)


def _content(value_sha256: bytes, headers: RecordHeaders) -> bytes:
    # The digest of an own record depends on the key of the day, not on the event.
    sent = sorted((header for header in sent_headers(headers) if header[0] != OWN_DIGEST_HEADER), key=repr)
    return hashlib.sha256(value_sha256 + repr(sent).encode()).digest()


class ResubmissionTransaction:
    """One transaction that finds records, stays open while they are sent, and stores where they were sent.

    Only one resubmission runs at a time in a database. A record that was sent, but whose resubmission was not stored
    because of a crash, is sent again the next time; deduplication rates it once.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The transaction stays open while the caller waits for Kafka.
        connection.execute(
            "SELECT set_config('transaction_timeout', '0', true),"
            " set_config('idle_in_transaction_session_timeout', '0', true)"
        )
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))

    def partitions(self) -> int:
        """Return the number of partitions."""
        row = self._connection.execute("SELECT count(*) FROM partition_state").fetchall()
        return int(row[0][0])

    def commits(self) -> dict[int, int]:
        """Return the last commit by partition. Records rejected later are not part of this resubmission."""
        return dict(self._connection.execute("SELECT partition, commit_no FROM partition_state").fetchall())

    def places(self, places: Iterable[RecordPlace]) -> Iterator[Kept]:
        """Yield the records at these places, in the given order. A place where no record was rejected is skipped."""
        for place in places:
            found = self._connection.execute(KEPT + AT_PLACE, place).fetchone()
            if found is not None:
                yield read_kept(found)

    def page(self, wanted: Wanted, commits: Mapping[int, int], after: tuple[int, int, int]) -> list[Kept]:
        """Return the next page of open records, in commit order; empty at the end.

        The page begins after the row ``after`` and holds no record of a commit later than ``commits``.
        """
        sizes = self._connection.execute(
            "SELECT s.partition, s.commit_no, s.row_no, s.size_bytes"
            + _FROM
            + "JOIN unnest(%(partitions)s::integer[], %(commits)s::bigint[]) AS last (partition, commit_no)"
            " ON last.partition = s.partition AND s.commit_no <= last.commit_no" + WHERE + IS_OPEN + AFTER,
            wanted.parameters()
            | after_parameters(after, SUSPENSE_PAGE_ROWS)
            | {"partitions": list(commits), "commits": list(commits.values())},
        ).fetchall()
        chosen, total = 0, 0
        for row in sizes:
            chosen, total = chosen + 1, total + row[3]
            if total >= PAGE_BYTES:
                break
        if not chosen:
            return []
        keys = [[row[column] for row in sizes[:chosen]] for column in range(3)]
        found = self._connection.execute(KEPT + _OF_KEYS, keys)
        return [read_kept(row) for row in found]

    def copies(self, chosen: Sequence[Kept]) -> dict[tuple[int, int, int], Copy]:
        """Return these records and all others with an account, a source and an id of theirs."""
        found = {one.key: _alone(one) for one in chosen}
        names = {copy.identity for copy in found.values() if copy.identity is not None}
        if not names:
            return found
        for row in self._connection.execute(_COPIES, [list(column) for column in zip(*names, strict=True)]):
            sent_to = None if row[12] is None else RecordPlace(*row[12:15])
            content = _content(bytes(row[10]), read_headers(row[9]))
            found[row[:3]] = Copy(row[:3], RecordPlace(*row[3:6]), (row[6], row[7], row[8]), content, row[11], sent_to)
        return found

    def note(self, resolutions: Sequence[Resolution], resolved_by: str) -> None:
        """Store where records were sent, and who sent them."""
        with self._connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO suspense_resolution (partition, commit_no, row_no, how, resolved_by, sent_topic,"
                " sent_partition, sent_offset, repaired) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                [
                    (*one.key, AS_IT_WAS if one.repaired is None else REPAIRED, resolved_by, *one.sent_to, one.repaired)
                    for one in resolutions
                ],
            )
