"""Reads accounts, and what makes a command or a payment a repetition. Never writes."""

from collections.abc import Iterable, Sequence

from psycopg.rows import TupleRow

from billing.accounts import NO_END_US, Account, Bucket
from billing.commit import HashHour
from billing.store.database import Database


def load_accounts(database: Database, ids: Sequence[str]) -> list[Account]:
    """The accounts that exist among ``ids``, sorted; buckets by grant id (the caller puts them in deduction order)."""
    wanted = list(ids)
    with database.transaction() as connection, connection.pipeline():
        account_rows = connection.execute(
            "SELECT account, currency, price_book, payment, credit_limit_pico, wallet_pico, absorbed_micro,"
            " absorbed_pico, status, clock_us, next_due_us FROM account WHERE account = ANY(%s) ORDER BY account",
            (wanted,),
        )
        bucket_rows = connection.execute(
            "SELECT account, grant_id, plan, plan_version, bucket_no, unit, amount_micro, remaining_micro,"
            " liability_pico, valid_from_us, valid_until_us, lapse_at_us, alerts_fired, status"
            " FROM bucket WHERE account = ANY(%s) ORDER BY account, grant_id",
            (wanted,),
        )
    accounts = {row[0]: _account(row) for row in account_rows}
    for row in bucket_rows:
        accounts[row[0]].buckets.append(_bucket(row))
    return list(accounts.values())


def _account(row: TupleRow) -> Account:
    return Account(*(*row[:10], _end_us(row[10])))


def _bucket(row: TupleRow) -> Bucket:
    return Bucket(*(*row[1:10], _end_us(row[10]), _end_us(row[11]), *row[12:]))


def _end_us(value_us: int | None) -> int:
    return NO_END_US if value_us is None else value_us


def known_commands(database: Database, ids: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Outcome of the commands among (source, id) that were decided before."""
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
    """Those of (account, payment_ref) that were used before."""
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
    """Identities filed under these hours, in commit order; an hour may come in several pieces or not at all."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT hour_us, payload FROM dedupe_hour WHERE partition = %s AND hour_us = ANY(%s)"
            " ORDER BY hour_us, commit_no, row_no",
            (partition, list(hours)),
            binary=True,
        )
        return [HashHour(hour_us, payload) for hour_us, payload in rows]


def due_accounts(database: Database, partition: int, log_time_us: int, limit: int) -> list[str]:
    """At most ``limit`` accounts of the partition that change by themselves at or before a log time, earliest first."""
    with database.transaction() as connection:
        rows = connection.execute(
            "SELECT account FROM account WHERE partition = %s AND next_due_us <= %s"
            " ORDER BY next_due_us, account LIMIT %s",
            (partition, log_time_us, limit),
        )
        return [account for (account,) in rows]
