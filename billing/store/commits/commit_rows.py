"""Rows of one commit and the statements that write them.

Tables with thousands of rows per commit are written by COPY. The others are written by one statement per table, with
arrays that the server unnests. :mod:`billing.store.commits.write_commit` decides the order of the statements.
"""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString

from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, ChangedBy, Column, column_names
from billing.commits.commit_record import AccountChanges, CommitRecord
from billing.store.commits.digest import AppendedText, sorted_outbox
from billing.store.commits.number_runs import pack_numbers, pack_runs

Statement = tuple[LiteralString, Sequence[Any]]

JOURNAL_COLUMNS: LiteralString = "partition, commit_no, line_no, account_code, currency, detail, amount_pico"
_ACCOUNT, _BUCKET = ", ".join(column_names(ACCOUNT_COLUMNS)), ", ".join(column_names(BUCKET_COLUMNS))
STAGING: LiteralString = "; ".join(
    f"CREATE TEMPORARY TABLE IF NOT EXISTS {stage} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {table} LIMIT 0"  # noqa: S608 (literals only)
    for stage, columns, table in (
        ("stage_account", _ACCOUNT, "account"),
        ("stage_bucket", _BUCKET, "bucket"),
        ("replace_account", _ACCOUNT, "account"),
        ("replace_bucket", _BUCKET, "bucket"),
    )
)
"""Creates the staging tables that changed rows are copied to before the UPDATE; runs once per session."""


def _update(table: str, stage: str, columns: tuple[Column, ...], *changed_by: ChangedBy) -> LiteralString:
    key = " AND ".join(f"t.{name} = s.{name}" for name in column_names(columns, ChangedBy.KEY))
    changes = ", ".join(f"{name} = s.{name}" for name in column_names(columns, *changed_by))
    return f"UPDATE {table} AS t SET {changes} FROM {stage} AS s WHERE {key} AND t.partition = %s"  # noqa: S608 (literals only)


UPDATE_ACCOUNTS = _update("account", "stage_account", ACCOUNT_COLUMNS, ChangedBy.USAGE)
UPDATE_BUCKETS = _update("bucket", "stage_bucket", BUCKET_COLUMNS, ChangedBy.USAGE)
REPLACE_ACCOUNTS = _update("account", "replace_account", ACCOUNT_COLUMNS, ChangedBy.USAGE, ChangedBy.TERMS)
REPLACE_BUCKETS = _update("bucket", "replace_bucket", BUCKET_COLUMNS, ChangedBy.USAGE, ChangedBy.TERMS)


def copies(record: CommitRecord, text: AppendedText) -> list[tuple[LiteralString, bytes]]:
    """Return the COPY statements with their rows, in an order that satisfies the foreign keys."""
    changes = record.changes
    return [
        ("COPY account (" + _ACCOUNT + ") FROM STDIN", changes.accounts_new),
        ("COPY bucket (" + _BUCKET + ") FROM STDIN", changes.buckets_new),
        ("COPY stage_account FROM STDIN", _sorted_rows(changes.accounts_changed)),
        ("COPY stage_bucket FROM STDIN", _sorted_rows(changes.buckets_changed)),
        ("COPY replace_account FROM STDIN", _sorted_rows(changes.accounts_replaced)),
        ("COPY replace_bucket FROM STDIN", _sorted_rows(changes.buckets_replaced)),
        ("COPY journal (" + JOURNAL_COLUMNS + ") FROM STDIN", text.journal),
        ("COPY journal (" + JOURNAL_COLUMNS + ", concerns) FROM STDIN", text.corrections),
        ("COPY rollup FROM STDIN", text.rollup),
        ("COPY command_seen (partition, commit_no, source, id, outcome) FROM STDIN", text.command_seen),
        ("COPY payment_ref (partition, commit_no, account, payment_ref) FROM STDIN", text.payment_ref),
        ("COPY suspense FROM STDIN", text.suspense),
        ("COPY conflict FROM STDIN", text.conflict),
    ]


def updates_of(changes: AccountChanges) -> list[tuple[str, LiteralString, bytes]]:
    """Return (name of the rows, UPDATE statement, staged rows) for each kind of changed rows."""
    return [
        ("accounts", UPDATE_ACCOUNTS, changes.accounts_changed),
        ("buckets", UPDATE_BUCKETS, changes.buckets_changed),
        ("accounts", REPLACE_ACCOUNTS, changes.accounts_replaced),
        ("buckets", REPLACE_BUCKETS, changes.buckets_replaced),
    ]


def _sorted_rows(text: bytes) -> bytes:
    """Sort the rows by key, so that the index scan of the UPDATE reads neighbouring pages."""
    return b"".join(sorted(text.splitlines(keepends=True)))


def small_statements(record: CommitRecord) -> Iterator[Statement]:
    """Yield the statements for tables with few rows per commit.

    These are identities, book times, sequences, forwarding, closed holds, findings and the outbox.
    """
    yield from _identities(record)
    yield from _counters(record)
    if record.reservations_closed:
        yield _close_holds(record)
    if record.findings:
        yield (
            "INSERT INTO finding (partition, commit_no, row_no, kind, detail)"
            " SELECT %s, %s, n, kind, detail"
            " FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS f (kind, detail, n)",
            (
                record.partition,
                record.commit_no,
                [f.kind for f in record.findings],
                [f.detail for f in record.findings],
            ),
        )
    for number, row in enumerate(sorted_outbox(record), 1):
        yield (
            "INSERT INTO outbox (partition, commit_no, row_no, topic, records, first_sequence, payload)"
            " VALUES (%s, %s, %s, %s, %s, %s, %b)",
            (record.partition, record.commit_no, number, row.topic, row.records, row.first_sequence, row.payload),
        )


def _close_holds(record: CommitRecord) -> Statement:
    # The rows are locked in the order of their ids, as the API does (billing.store.holds.hold_book), so a commit and
    # the API cannot deadlock.
    return (
        "WITH named AS MATERIALIZED (SELECT h.reservation_id FROM hold AS h"
        " JOIN unnest(%s::text[], %s::text[]) AS c (account, reservation_id)"
        " ON h.reservation_id = c.reservation_id AND h.account = c.account"
        " WHERE h.state = 'open' ORDER BY h.reservation_id FOR UPDATE OF h)"
        " UPDATE hold SET state = 'closed' WHERE reservation_id IN (SELECT reservation_id FROM named)",
        tuple(map(list, zip(*record.reservations_closed, strict=True))),
    )


def _identities(record: CommitRecord) -> Iterator[Statement]:
    dedupe = record.dedupe
    if dedupe.sources:
        yield (
            "INSERT INTO dedupe_source (partition, source, numbered, seen_runs, refused)"
            " SELECT %s, * FROM unnest(%s::text[], %s::boolean[], %b::bytea[], %b::bytea[])"
            " ON CONFLICT (partition, source) DO UPDATE SET numbered = excluded.numbered,"
            " seen_runs = excluded.seen_runs, refused = excluded.refused",
            (
                record.partition,
                [state.source for state in dedupe.sources],
                [state.numbered for state in dedupe.sources],
                [pack_runs(state.seen_runs) for state in dedupe.sources],
                [pack_numbers(state.refused) for state in dedupe.sources],
            ),
        )
    if dedupe.recent:
        yield (
            "INSERT INTO dedupe_recent (partition, commit_no, row_no, source, highest, payload)"
            " SELECT %s, %s, n, source, highest, payload"
            " FROM unnest(%s::text[], %s::bigint[], %b::bytea[]) WITH ORDINALITY AS r (source, highest, payload, n)",
            (
                record.partition,
                record.commit_no,
                [recent.source for recent in dedupe.recent],
                [recent.highest for recent in dedupe.recent],
                [recent.payload for recent in dedupe.recent],
            ),
        )
    if dedupe.hours:
        yield (
            "INSERT INTO dedupe_hour (partition, commit_no, row_no, hour_us, log_hour_us, payload)"
            " SELECT %s, %s, n, hour_us, log_hour_us, payload"
            " FROM unnest(%s::bigint[], %s::bigint[], %b::bytea[]) WITH ORDINALITY"
            " AS h (hour_us, log_hour_us, payload, n)",
            (
                record.partition,
                record.commit_no,
                [hour.hour_us for hour in dedupe.hours],
                [hour.log_hour_us for hour in dedupe.hours],
                [hour.payload for hour in dedupe.hours],
            ),
        )


def _counters(record: CommitRecord) -> Iterator[Statement]:
    partition = record.partition
    if record.book_times:
        yield (
            "INSERT INTO book_time (partition, name, max_event_time_us)"
            " SELECT %s, * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (name, partition) DO UPDATE"
            " SET max_event_time_us = greatest(book_time.max_event_time_us, excluded.max_event_time_us)",
            (partition, list(record.book_times), list(record.book_times.values())),
        )
    if record.next_sequences:
        yield (
            "INSERT INTO output_sequence (partition, topic, next_sequence)"
            " SELECT %s, * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (topic, partition) DO UPDATE SET next_sequence = excluded.next_sequence",
            (partition, list(record.next_sequences), list(record.next_sequences.values())),
        )
    if record.forward_next:
        yield (
            "INSERT INTO forward_next (partition, topic, target, next_number)"
            " SELECT %s, * FROM unnest(%s::text[], %s::integer[], %s::bigint[])"
            " ON CONFLICT (topic, partition, target) DO UPDATE SET next_number = excluded.next_number",
            (partition, *_columns(record.forward_next)),
        )
    if record.forward_cursors:
        yield (
            "INSERT INTO forward_cursor (partition, topic, origin, next_number)"
            " SELECT %s, * FROM unnest(%s::text[], %s::integer[], %s::bigint[])"
            " ON CONFLICT (topic, partition, origin) DO UPDATE SET next_number = excluded.next_number",
            (partition, *_columns(record.forward_cursors)),
        )


def _columns(numbers: dict[tuple[str, int], int]) -> tuple[list[str], list[int], list[int]]:
    return [topic for topic, _ in numbers], [other for _, other in numbers], list(numbers.values())
