"""Rows of one commit and the statements that write them.

Tables with thousands of rows per commit are written by COPY. The others are written by one statement per table, with
arrays that the server unnests. :mod:`billing.store.commits.write_commit` decides the order of the statements.
"""

from collections.abc import Iterator, Sequence
from typing import Any, LiteralString, NamedTuple

from billing.calculator.core_row_hashes import with_hashes
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, ChangedBy, Column, column_names
from billing.commits.commit_record import AccountChanges, CommitRecord
from billing.commits.row_hashes import RowSum
from billing.reservations.hold import RESERVATION_SOURCE
from billing.store.commits.digest import AppendedText, sorted_outbox

Statement = tuple[LiteralString, Sequence[Any]]

JOURNAL_COLUMNS: LiteralString = "partition, commit_no, line_no, account_code, currency, detail, amount_pico"
_ACCOUNT = ", ".join((*column_names(ACCOUNT_COLUMNS), "row_hash"))
_BUCKET = ", ".join((*column_names(BUCKET_COLUMNS), "row_hash"))
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
    changes = ", ".join(f"{name} = s.{name}" for name in (*column_names(columns, *changed_by), "row_hash"))
    return (
        f"WITH written AS (UPDATE {table} AS t SET {changes} FROM {stage} AS s WHERE {key} AND t.partition = %s"  # noqa: S608 (literals only)
        " RETURNING old.row_hash AS hash) SELECT string_agg(hash, ''::bytea), count(*) FROM written"
    )


UPDATE_ACCOUNTS = _update("account", "stage_account", ACCOUNT_COLUMNS, ChangedBy.USAGE)
UPDATE_BUCKETS = _update("bucket", "stage_bucket", BUCKET_COLUMNS, ChangedBy.USAGE)
REPLACE_ACCOUNTS = _update("account", "replace_account", ACCOUNT_COLUMNS, ChangedBy.USAGE, ChangedBy.TERMS)
REPLACE_BUCKETS = _update("bucket", "replace_bucket", BUCKET_COLUMNS, ChangedBy.USAGE, ChangedBy.TERMS)


def hashed_changes(partition: int, changes: AccountChanges) -> tuple[AccountChanges, dict[str, RowSum]]:
    """Return the changed rows with their hashes, and the sum of these rows by table."""
    hashed = AccountChanges()
    sums = {"account": RowSum(), "bucket": RowSum()}
    for kind in ("new", "changed", "replaced"):
        for table in sums:
            rows = getattr(changes, f"{table}s_{kind}")
            if rows:
                text, added = with_hashes(table, partition, rows)
                setattr(hashed, f"{table}s_{kind}", text)
                sums[table] += added
    return hashed, sums


def copies(changes: AccountChanges, text: AppendedText) -> list[tuple[LiteralString, bytes]]:
    """Return the COPY statements with their rows, in an order that satisfies the foreign keys.

    The changed rows are those of :func:`hashed_changes`.
    """
    return [
        ("COPY account (" + _ACCOUNT + ") FROM STDIN", changes.accounts_new),
        ("COPY bucket (" + _BUCKET + ") FROM STDIN", changes.buckets_new),
        ("COPY stage_account FROM STDIN", _sorted_rows(changes.accounts_changed)),
        ("COPY stage_bucket FROM STDIN", _sorted_rows(changes.buckets_changed)),
        ("COPY replace_account FROM STDIN", _sorted_rows(changes.accounts_replaced)),
        ("COPY replace_bucket FROM STDIN", _sorted_rows(changes.buckets_replaced)),
        ("COPY journal (" + JOURNAL_COLUMNS + ") FROM STDIN", text.journal),
        ("COPY journal (" + JOURNAL_COLUMNS + ", concerns) FROM STDIN", text.corrections),
        ("COPY journal (" + JOURNAL_COLUMNS + ", concerns, account) FROM STDIN", text.named),
        ("COPY rollup FROM STDIN", text.rollup),
        ("COPY command_seen (partition, commit_no, source, id, outcome) FROM STDIN", text.command_seen),
        ("COPY payment_ref (partition, commit_no, account, payment_ref) FROM STDIN", text.payment_ref),
        ("COPY suspense FROM STDIN", text.suspense),
        ("COPY command_held FROM STDIN", text.command_held),
        ("COPY foreign_record FROM STDIN", text.foreign_record),
        ("COPY conflict FROM STDIN", text.conflict),
    ]


def updates_of(changes: AccountChanges) -> list[tuple[str, LiteralString, bytes]]:
    """Return (table, UPDATE statement, staged rows) for each kind of changed rows.

    A statement returns the hashes that the rows had before, one behind the other, and the number of rows.
    """
    return [
        ("account", UPDATE_ACCOUNTS, changes.accounts_changed),
        ("bucket", UPDATE_BUCKETS, changes.buckets_changed),
        ("account", REPLACE_ACCOUNTS, changes.accounts_replaced),
        ("bucket", REPLACE_BUCKETS, changes.buckets_replaced),
    ]


def _sorted_rows(text: bytes) -> bytes:
    """Sort the rows by key, so that the index scan of the UPDATE reads neighbouring pages."""
    return b"".join(sorted(text.splitlines(keepends=True)))


def small_statements(record: CommitRecord) -> Iterator[Statement]:
    """Yield the statements for tables with few rows per commit that are not summed.

    These are output sequences, closed holds and the outbox.
    """
    if record.next_sequences:
        yield (
            "INSERT INTO output_sequence (partition, topic, next_sequence)"
            " SELECT %s, * FROM unnest(%s::text[], %s::bigint[])"
            " ON CONFLICT (topic, partition) DO UPDATE SET next_sequence = excluded.next_sequence",
            (record.partition, list(record.next_sequences), list(record.next_sequences.values())),
        )
    if ended := _ended_holds(record):
        yield _end_holds(ended)
    for number, row in enumerate(sorted_outbox(record), 1):
        yield (
            "INSERT INTO outbox (partition, commit_no, row_no, topic, records, first_sequence, payload)"
            " VALUES (%s, %s, %s, %s, %s, %s, %b)",
            (record.partition, record.commit_no, number, row.topic, row.records, row.first_sequence, row.payload),
        )


class _EndedHold(NamedTuple):
    """A hold that a commit ends, with its new state; ``event`` is that of a rejected settlement."""

    account: str
    reservation_id: str
    state: str
    event: str | None = None


def _ended_holds(record: CommitRecord) -> list[_EndedHold]:
    """Return the holds that a commit ends, once each.

    Rated usage closes the hold that it names. A rejected settlement releases its own hold: its event is in suspense, so
    it is not to be sent again, and what it may cost after a repair is not known. Only the very event of the hold does
    so, because a rejected record may name any hold.
    """
    ended: dict[tuple[str, str], _EndedHold] = {}
    for one in record.suspense:
        why, value = one.rejection, one.record.value or b""
        if why.source == RESERVATION_SOURCE and why.account is not None and why.id is not None and b"\0" not in value:
            released = _EndedHold(why.account, why.id, "released", value.decode("utf-8", "replace"))
            ended[why.account, why.id] = released
    for account, name in record.reservations_closed:
        ended[account, name] = _EndedHold(account, name, "closed")
    return list(ended.values())


def _end_holds(ended: Sequence[_EndedHold]) -> Statement:
    # The rows are locked in the order of their ids, as the API does (billing.store.holds.hold_book), so a commit and
    # the API cannot deadlock.
    return (
        "WITH named AS MATERIALIZED (SELECT h.reservation_id, c.state FROM hold AS h"
        " JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS c (account, reservation_id, state, event)"
        " ON h.reservation_id = c.reservation_id AND h.account = c.account"
        " WHERE h.state = 'open' AND (c.event IS NULL OR h.event = c.event)"
        " ORDER BY h.reservation_id FOR UPDATE OF h)"
        " UPDATE hold AS h SET state = named.state FROM named WHERE h.reservation_id = named.reservation_id",
        tuple(map(list, zip(*ended, strict=True))),
    )
