"""The statements of one commit on summed tables with few rows: identities, forwarding, book times, findings.

Each writes rows with their hashes and returns the hashes that the rows had before. Identities that no longer decide
anything are deleted here too, so every change of a summed table is in a commit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from billing.calculator.core_row_hashes import sum_of_hashes
from billing.commits.commit_record import CommitRecord
from billing.commits.identities import RECENT_NUMBERS
from billing.commits.row_hashes import NO_ROWS, RowSum
from billing.log_time import RESEND_US
from billing.store.commits.number_runs import pack_numbers, pack_runs
from billing.store.summed_tables import hash_each
from schemas.times import HOUR_US

_PRUNED_AT_ONCE = 10_000
"""Rows of identities that one commit deletes at most."""
_RETURN_OLD: tuple[LiteralString, LiteralString] = (
    "WITH written AS (",
    " RETURNING old.row_hash AS hash) SELECT string_agg(hash, ''::bytea) FROM written",
)
"""Text before and behind a statement that writes rows: it returns the hashes that they had."""
Row = Sequence[str | int | bytes | None]


@dataclass(frozen=True, slots=True)
class SummedStatement:
    """A statement on one table, its parameters, and the sum of the rows that it writes.

    It returns one row: the hashes that the rows had before, one behind the other, or null.
    """

    table: str
    query: LiteralString
    parameters: Sequence[Any]
    added: RowSum = NO_ROWS


def summed_statements(record: CommitRecord, book_times: Mapping[str, int]) -> Iterator[SummedStatement]:
    """Yield the statements on summed tables. ``book_times`` are those of the record's books before this commit."""
    yield from _identities(record)
    yield from _outdated(record)
    partition = record.partition
    if record.book_times:
        latest = [(name, max(time_us, book_times.get(name, 0))) for name, time_us in record.book_times.items()]
        yield _written(
            "book_time",
            "INSERT INTO book_time (partition, row_hash, name, max_event_time_us)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::text[], %s::bigint[])"
            " ON CONFLICT (name, partition) DO UPDATE"
            " SET max_event_time_us = excluded.max_event_time_us, row_hash = excluded.row_hash",
            partition,
            latest,
        )
    if record.forward_next:
        yield _written(
            "forward_next",
            "INSERT INTO forward_next (partition, row_hash, topic, target, next_number)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::text[], %s::integer[], %s::bigint[])"
            " ON CONFLICT (topic, partition, target) DO UPDATE"
            " SET next_number = excluded.next_number, row_hash = excluded.row_hash",
            partition,
            [(*key, number) for key, number in record.forward_next.items()],
        )
    if record.forward_cursors:
        yield _written(
            "forward_cursor",
            "INSERT INTO forward_cursor (partition, row_hash, topic, origin, next_number)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::text[], %s::integer[], %s::bigint[])"
            " ON CONFLICT (topic, partition, origin) DO UPDATE"
            " SET next_number = excluded.next_number, row_hash = excluded.row_hash",
            partition,
            [(*key, number) for key, number in record.forward_cursors.items()],
        )
    if record.findings:
        yield _written(
            "finding",
            "INSERT INTO finding (partition, row_hash, commit_no, row_no, kind, detail)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::bigint[], %s::integer[], %s::text[], %s::text[])",
            partition,
            [(record.commit_no, number, one.kind, one.detail) for number, one in enumerate(record.findings, 1)],
        )


def _identities(record: CommitRecord) -> Iterator[SummedStatement]:
    dedupe, partition, commit_no = record.dedupe, record.partition, record.commit_no
    if dedupe.sources:
        yield _written(
            "dedupe_source",
            "INSERT INTO dedupe_source (partition, row_hash, source, numbered, seen_runs, refused)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::text[], %s::boolean[], %b::bytea[], %b::bytea[])"
            " ON CONFLICT (partition, source) DO UPDATE"
            " SET numbered = excluded.numbered, seen_runs = excluded.seen_runs, refused = excluded.refused,"
            " row_hash = excluded.row_hash",
            partition,
            [
                (one.source, "t" if one.numbered else "f", pack_runs(one.seen_runs), pack_numbers(one.refused))
                for one in dedupe.sources
            ],
        )
    if dedupe.recent:
        yield _written(
            "dedupe_recent",
            "INSERT INTO dedupe_recent (partition, row_hash, commit_no, row_no, source, highest, payload)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::bigint[], %s::integer[], %s::text[], %s::bigint[],"
            " %b::bytea[])",
            partition,
            [(commit_no, number, one.source, one.highest, one.payload) for number, one in enumerate(dedupe.recent, 1)],
        )
    if dedupe.hours:
        yield _written(
            "dedupe_hour",
            "INSERT INTO dedupe_hour (partition, row_hash, hour_us, commit_no, row_no, log_hour_us, payload)"
            " SELECT %s, * FROM unnest(%b::bytea[], %s::bigint[], %s::bigint[], %s::integer[], %s::bigint[],"
            " %b::bytea[])",
            partition,
            [
                (one.hour_us, commit_no, number, one.log_hour_us, one.payload)
                for number, one in enumerate(dedupe.hours, 1)
            ],
        )


def _outdated(record: CommitRecord) -> Iterator[SummedStatement]:
    """Yield the statements that delete identities that no longer decide anything.

    These are identities of unnumbered sources in hours that the time limits exclude, and hashes of numbers that are no
    longer among the last :data:`RECENT_NUMBERS` of their source.
    """
    if "past_limit_us" in record.limits:
        oldest_us = record.log_time_us - record.limits["past_limit_us"] - RESEND_US - 2 * HOUR_US
        yield SummedStatement(
            "dedupe_hour",
            "WITH gone AS (DELETE FROM dedupe_hour WHERE (partition, hour_us, commit_no, row_no) IN ("
            " SELECT partition, hour_us, commit_no, row_no FROM dedupe_hour WHERE partition = %s AND hour_us < %s"
            " ORDER BY hour_us, commit_no, row_no LIMIT %s) RETURNING row_hash)"
            " SELECT string_agg(row_hash, ''::bytea) FROM gone",
            (record.partition, oldest_us - oldest_us % HOUR_US, _PRUNED_AT_ONCE),
        )
    if record.dedupe.recent:
        yield SummedStatement(
            "dedupe_recent",
            "WITH gone AS (DELETE FROM dedupe_recent AS r USING unnest(%s::text[], %s::bigint[]) AS s (source, floor)"
            " WHERE r.partition = %s AND r.source = s.source AND r.highest <= s.floor RETURNING r.row_hash)"
            " SELECT string_agg(row_hash, ''::bytea) FROM gone",
            (
                [one.source for one in record.dedupe.recent],
                [one.highest - RECENT_NUMBERS for one in record.dedupe.recent],
                record.partition,
            ),
        )


def _written(table: str, insert: LiteralString, partition: int, rows: Sequence[Row]) -> SummedStatement:
    """Return the statement that writes rows, whose arrays follow the partition and the hashes."""
    hashes = hash_each(table, partition, rows)
    query = _RETURN_OLD[0] + insert + _RETURN_OLD[1]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return SummedStatement(table, query, (partition, hashes, *columns), sum_of_hashes(b"".join(hashes)))
