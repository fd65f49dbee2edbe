"""Queries for accounts, due accounts, and the identities of commands, payments and events. Never writes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import LiteralString

from billing.calculator.core_row_hashes import check_values
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, Column, Form
from billing.commits.identities import HASHED_BYTES, HashHour, LogPart
from billing.commits.stored_accounts import StoredAccounts
from billing.store.database import Database
from billing.store.summed_tables import SUMMED_TABLES


def _selected(columns: tuple[Column, ...]) -> str:
    return ", ".join(f"{one.name}::text" if one.form in (Form.EXACT, Form.EXTRAS) else one.name for one in columns)


# Ids are sent as one JSON text and balances are returned as text. Both are several times faster in psycopg than a list
# of 20,000 strings and as many numerics (measured), and a text converts to an int without loss.
ACCOUNTS: LiteralString = f"""
SELECT {_selected(ACCOUNT_COLUMNS)}
FROM jsonb_array_elements_text(%s::jsonb) AS wanted (account) JOIN account USING (account) ORDER BY account
"""  # noqa: S608 (literals only)
BUCKETS: LiteralString = f"""
SELECT {_selected(BUCKET_COLUMNS)}
FROM jsonb_array_elements_text(%s::jsonb) AS wanted (account) JOIN bucket USING (account) ORDER BY account, grant_id
"""  # noqa: S608 (literals only)


def load_accounts(database: Database, ids: Iterable[str]) -> tuple[StoredAccounts, dict[int, list[str]]]:
    """Return the accounts that exist among ``ids``, sorted by id, and by partition the names of strange rows.

    Buckets are sorted by bucket id; the caller puts them in deduction order. A strange row has another hash than its
    own: no commit wrote it as it is.
    """
    wanted = json.dumps(sorted(set(ids)))
    with database.transaction() as connection:
        with connection.pipeline():
            # The two statements need no common snapshot: only the owner of the partition changes these rows, and the
            # owner is the caller.
            cursors = {
                "account": connection.execute(_with_hash(ACCOUNTS), (wanted,)),
                "bucket": connection.execute(_with_hash(BUCKETS), (wanted,)),
            }
        rows = {table: cursor.fetchall() for table, cursor in cursors.items()}
    strange: dict[int, list[str]] = defaultdict(list)
    for table, found in rows.items():
        for index in check_values(table, found):
            row = found[index]
            strange[row[-2]].append(SUMMED_TABLES[table].named(row))
    return StoredAccounts(rows["account"], rows["bucket"]), dict(strange)


def _with_hash(query: LiteralString) -> LiteralString:
    """Return a query of rows that selects their partition and their hash besides."""
    return query.replace("\nFROM jsonb", ", partition, row_hash\nFROM jsonb")


def known_commands(database: Database, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the outcome of the commands among (source, id) that were accepted before. Refused ones are not stored."""
    if not ids:
        return {}
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT c.source, c.id, c.outcome FROM unnest(%s::text[], %s::text[]) AS w (source, id)"
            " JOIN command_seen AS c ON c.source = w.source AND c.id = w.id",
            ([source for source, _ in ids], [command_id for _, command_id in ids]),
        )
        return {(source, command_id): outcome for source, command_id, outcome in rows}


def known_payments(database: Database, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return those (account, payment_ref) pairs that were used before."""
    if not pairs:
        return set()
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT p.account, p.payment_ref FROM unnest(%s::text[], %s::text[]) AS w (account, payment_ref)"
            " JOIN payment_ref AS p ON p.account = w.account AND p.payment_ref = w.payment_ref",
            ([account for account, _ in pairs], [reference for _, reference in pairs]),
        )
        return {(account, reference) for account, reference in rows}


def load_hours(database: Database, partition: int, hours: Iterable[int]) -> list[HashHour]:
    """Return the identities filed under these hours, in commit order.

    An hour may be returned in several parts, or not at all.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT hour_us, payload FROM dedupe_hour WHERE partition = %s AND hour_us = ANY(%s)"
            " ORDER BY hour_us, commit_no, row_no",
            (partition, list(hours)),
            binary=True,
        )
        return [HashHour(hour_us, payload) for hour_us, payload in rows]


def log_parts(database: Database, partition: int, from_us: int, at_most: int) -> list[LogPart]:
    """Return the parts of the identities rated from an hour of log time on, oldest first.

    A part of more than one commit has at most ``at_most`` identities.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT log_hour_us, commit_no, sum(octet_length(payload)) / %s FROM dedupe_hour"
            " WHERE partition = %s AND log_hour_us >= %s GROUP BY 1, 2 ORDER BY 1, 2",
            (HASHED_BYTES, partition, from_us),
        ).fetchall()
    parts: list[LogPart] = []
    held = 0
    for log_hour_us, commit_no, identities in rows:
        held += identities
        if parts and parts[-1].log_hour_us == log_hour_us and held <= at_most:
            parts[-1] = replace(parts[-1], last_commit=commit_no)
        else:
            parts.append(LogPart(log_hour_us, commit_no, commit_no))
            held = identities
    return parts


def load_part(database: Database, partition: int, part: LogPart) -> list[bytes]:
    """Return the payloads of the identities of a part, in commit order."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT payload FROM dedupe_hour WHERE partition = %s AND log_hour_us = %s AND commit_no BETWEEN %s AND %s"
            " ORDER BY commit_no, row_no",
            (partition, part.log_hour_us, part.first_commit, part.last_commit),
            binary=True,
        )
        return [payload for (payload,) in rows]


def due_accounts(database: Database, partition: int, log_time_us: int, limit: int) -> list[str]:
    """Return at most ``limit`` accounts of the partition with a change due at or before a log time, earliest first."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT account FROM account WHERE partition = %s AND next_due_us <= %s"
            " ORDER BY next_due_us, account LIMIT %s",
            (partition, log_time_us, limit),
        )
        return [account for (account,) in rows]


def first_due(database: Database, before_us: int) -> list[tuple[int, str]]:
    """Return (partition, account) of the account due first, for each partition where one was due before a time.

    A stopped partition is left out: commands to it would only pile up.
    """
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT p.partition, d.account FROM partition_state AS p CROSS JOIN LATERAL ("
            " SELECT account FROM account AS a WHERE a.partition = p.partition AND a.next_due_us < %s"
            " ORDER BY a.next_due_us, a.account LIMIT 1) AS d"
            " WHERE NOT EXISTS (SELECT FROM partition_stop AS s WHERE s.partition = p.partition) ORDER BY p.partition",
            (before_us,),
        )
        return [(partition, account) for partition, account in rows]
