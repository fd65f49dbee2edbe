"""Queries for accounts, due accounts, and the identities of commands, payments and events. Never writes."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import LiteralString

from psycopg import sql

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.extras import parse_extras
from billing.calculator.core_row_hashes import check_hashes
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, column_names
from billing.commits.identities import HashHour
from billing.store.commits.covered_rows import COVERED, Covered
from billing.store.database import Connection, Database

_COPIED: dict[str, LiteralString] = {
    table: "COPY (SELECT partition, "  # noqa: S608 (literals only)
    + ", ".join((*column_names(columns), "row_hash"))
    + " FROM jsonb_array_elements_text({}::jsonb) AS wanted (account) JOIN "
    + table
    + " USING (account) ORDER BY account"
    + order
    + ") TO STDOUT"
    for table, columns, order in (("account", ACCOUNT_COLUMNS, ""), ("bucket", BUCKET_COLUMNS, ", grant_id"))
}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_UNESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def load_accounts(database: Database, ids: Iterable[str]) -> tuple[list[Account], dict[int, list[str]]]:
    """Return the accounts that exist among ``ids``, sorted by id, and by partition the names of strange rows.

    Buckets are sorted by bucket id; the caller puts them in deduction order. A strange row has another hash than its
    own, so no commit wrote it as it is.
    """
    wanted = sql.Literal(json.dumps(sorted(set(ids))))
    strange: dict[int, list[str]] = defaultdict(list)
    with database.transaction() as connection:
        # The two statements need no common snapshot: only the owner of the partition changes these rows, and the
        # owner is the caller.
        account_rows, bucket_rows = (
            _rows(connection, COVERED[table], sql.SQL(statement).format(wanted), strange)
            for table, statement in _COPIED.items()
        )
    accounts = {row[0]: _account(row) for row in account_rows}
    for row in bucket_rows:
        accounts[row[0]].buckets.append(_bucket(row))
    return list(accounts.values()), dict(strange)


def _rows(
    connection: Connection, covered: Covered, statement: sql.Composed, strange: dict[int, list[str]]
) -> list[list[str]]:
    """Return the columns of each row, and add the names of strange rows to their partition."""
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        lines = [bytes(line).partition(b"\t") for line in copy]
    by_partition: dict[bytes, list[bytes]] = defaultdict(list)
    for number, _, row in lines:
        by_partition[number].append(row)
    for number, rows in by_partition.items():
        _, differ = check_hashes(covered.table, int(number), b"".join(rows))
        if differ:
            strange[int(number)] += [covered.named(rows[index]) for index in differ]
    return [_columns(row) for _, _, row in lines]


def _columns(row: bytes) -> list[str]:
    """Return the columns of a line of ``COPY`` text, without the hash. Null is ``\\N``."""
    values = row.decode().split("\t")[:-1]
    if b"\\" in row.rpartition(b"\t")[0].replace(b"\\N", b""):
        return [value if value == "\\N" else _ESCAPED.sub(_unescaped, value) for value in values]
    return values


def _unescaped(found: re.Match[str]) -> str:
    return _UNESCAPED.get(found[1], found[1])


def _account(row: list[str]) -> Account:
    account, currency, price_book, payment = row[:4]
    credit_limit_pico, wallet_pico, absorbed_micro, absorbed_pico = map(int, row[4:8])
    status, clock_us, next_due_us, extras = row[8:]
    return Account(
        account,
        currency,
        price_book,
        payment,
        credit_limit_pico,
        wallet_pico,
        absorbed_micro,
        absorbed_pico,
        status,
        int(clock_us),
        _end_us(next_due_us),
        [],
        parse_extras(extras),
    )


def _bucket(row: list[str]) -> Bucket:
    _, grant_id, plan, plan_version, bucket_no, unit = row[:6]
    amount_micro, remaining_micro, liability_pico, valid_from_us = map(int, row[6:10])
    valid_until_us, lapse_at_us, alerts_fired, status, carried_cycles = row[10:]
    return Bucket(
        grant_id,
        plan,
        int(plan_version),
        int(bucket_no),
        unit,
        amount_micro,
        remaining_micro,
        liability_pico,
        valid_from_us,
        _end_us(valid_until_us),
        _end_us(lapse_at_us),
        int(alerts_fired),
        status,
        int(carried_cycles),
    )


def _end_us(value: str) -> int:
    return NO_END_US if value == "\\N" else int(value)


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
    """Return (partition, account) of the account due first, for each partition where one was due before a time."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT p.partition, d.account FROM partition_state AS p CROSS JOIN LATERAL ("
            " SELECT account FROM account AS a WHERE a.partition = p.partition AND a.next_due_us < %s"
            " ORDER BY a.next_due_us, a.account LIMIT 1) AS d ORDER BY p.partition",
            (before_us,),
        )
        return [(partition, account) for partition, account in rows]
