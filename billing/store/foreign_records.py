"""Foreign records in SQL: list them and return their bytes. Only commits write them; this module changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

from billing.store.commits.suspense_rows import read_headers, read_value
from billing.store.database import Database
from billing.suspense import RecordHeaders, RecordPlace

FOREIGN_PAGE_ROWS = 1_000
_LISTED: LiteralString = "SELECT topic, partition, record_offset, log_time_us, fault, size_bytes FROM foreign_record"
_AT_PLACE: LiteralString = (
    "SELECT topic, partition, record_offset, log_time_us, fault, size_bytes, record_key, headers, packing, value"
    " FROM foreign_record WHERE topic = %s AND partition = %s AND record_offset = %s"
)


@dataclass(frozen=True, slots=True)
class ListedForeign:
    """A foreign record without its bytes."""

    place: RecordPlace
    log_time_us: int
    """Kafka's LogAppendTime of the record."""
    fault: str
    """The reason why it is foreign: no digest, or the kind of a wrong one."""
    size: int
    """Size of the value in bytes."""


@dataclass(frozen=True, slots=True)
class ForeignContent:
    """Key, headers and value of a foreign record."""

    key: bytes | None
    headers: RecordHeaders
    value: bytes | None


def list_foreign(database: Database) -> Iterator[ListedForeign]:
    """Yield the foreign records, oldest first. The rows are streamed."""
    with database.transaction() as connection, connection.cursor(name="foreign") as cursor:
        cursor.itersize = FOREIGN_PAGE_ROWS
        cursor.execute(_LISTED + " ORDER BY log_time_us, partition, commit_no, row_no")
        for row in cursor:
            yield ListedForeign(RecordPlace(*row[:3]), *row[3:])


def foreign_at(database: Database, place: RecordPlace) -> tuple[ListedForeign, ForeignContent] | None:
    """Return the foreign record at a place; None if there is none."""
    with database.transaction() as connection:
        row = connection.execute(_AT_PLACE, place).fetchone()
    if row is None:
        return None
    key, headers, packing, value = row[6:]
    content = ForeignContent(
        None if key is None else bytes(key),
        read_headers(headers),
        read_value(packing, None if value is None else bytes(value)),
    )
    return ListedForeign(RecordPlace(*row[:3]), *row[3:6]), content
