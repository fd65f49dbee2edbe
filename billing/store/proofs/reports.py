"""Queries of ``tokenbill report``: balances, bills, usage, revenue and trial balance. Never writes.

Rows are streamed, so a report of a million accounts needs little memory. Values are formatted as in the output events
(:mod:`billing.commits.output_documents`).
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import sqlalchemy
from sqlalchemy import Text, cast, func, select

from billing import ledger
from billing.accounts.account import NO_END_US, Bucket
from billing.accounts.extras import parse_extras
from billing.commits.output_documents import bucket_object, trial_balance_object
from billing.store.database import Database
from billing.store.tables import account, bucket, commit, hold, journal, rollup
from schemas.times import HOUR_US, format_time_us
from schemas.units import MILLION, format_micro, format_pico

ReportRow = dict[str, str | int | None]

BALANCE_COLUMNS = (
    *(
        "account",
        "currency",
        "wallet",
        "absorbed",
        "absorbed_amount",
        "grant_id",
        "plan",
        "unit",
        "amount",
        "remaining",
    ),
    *("reserved", "valid_from", "valid_until", "status"),
)
USAGE_DIMENSIONS = (
    *("model", "hardware_tier", "energy_source", "site", "channel", "service_tier", "outcome", "price_book", "hour"),
)
_USAGE_SUMS = {
    "events": rollup.c.events,
    "tokens": rollup.c.tokens,
    "standard_tokens": rollup.c.standard_micro,
    "amount": rollup.c.amount_pico,
    "net": rollup.c.net_pico,
    "burned": rollup.c.burned_micro,
    "charged": rollup.c.charged_pico,
    "absorbed": rollup.c.absorbed_micro,
    "absorbed_amount": rollup.c.absorbed_pico,
    "revenue": rollup.c.revenue_pico,
}
USAGE_SUMS = tuple(_USAGE_SUMS)
BILL_COLUMNS = ("account", "bill_id", "currency", "amount", "paid", "open", "begin", "end", "due")
REVENUE_COLUMNS = ("kind", "currency", "detail", "amount")
_REVENUE_KINDS = {
    ledger.REVENUE_USAGE: "usage",
    ledger.REVENUE_COMMITMENT: "commitment",
    ledger.REVENUE_TRUE_UP: "true_up",
    ledger.REVENUE_DEBT: "debt",
    ledger.REVENUE_BREAKAGE: "breakage",
}
_NO_BUCKET: ReportRow = dict.fromkeys(BALANCE_COLUMNS[5:])


@contextmanager
def _connected(database_url: str) -> Iterator[sqlalchemy.Connection]:
    database = Database(database_url, pool_size=1, application_name="tokenbill report")
    with closing(database), database.reading() as connection:
        yield connection


def balances(database_url: str, only_account: str | None = None) -> Iterator[ReportRow]:
    """Yield one row per bucket, or one row with null bucket fields for an account without; by account and bucket id."""
    reserved = _reserved()
    statement = (
        select(
            account.c.account,
            func.coalesce(reserved.c.micro, 0),
            *(account.c.currency, account.c.wallet_pico, account.c.absorbed_micro, account.c.absorbed_pico),
            *(bucket.c.grant_id, bucket.c.plan, bucket.c.plan_version, bucket.c.bucket_no, bucket.c.unit),
            *(bucket.c.amount_micro, bucket.c.remaining_micro, bucket.c.liability_pico, bucket.c.valid_from_us),
            *(bucket.c.valid_until_us, bucket.c.lapse_at_us, bucket.c.alerts_fired, bucket.c.status),
        )
        .outerjoin_from(account, bucket, account.c.account == bucket.c.account)
        .outerjoin(
            reserved,
            (reserved.c.account == bucket.c.account) & (reserved.c.grant_id == bucket.c.grant_id),
        )
        .order_by(account.c.account, bucket.c.grant_id)
    )
    if only_account is not None:
        statement = statement.where(account.c.account == only_account)
    with _connected(database_url) as connection:
        for name, held, currency, wallet_pico, absorbed_micro, absorbed_pico, *fields in connection.execute(statement):
            row: ReportRow = {
                "account": name,
                "currency": currency,
                "wallet": format_pico(wallet_pico),
                "absorbed": format_micro(absorbed_micro),
                "absorbed_amount": format_pico(absorbed_pico),
            }
            row.update(_NO_BUCKET if fields[0] is None else bucket_object(_bucket(fields), int(held)))
            yield row


def _reserved() -> sqlalchemy.Subquery:
    """Return the query for the quota that open holds reserve of each bucket now, by the database clock."""
    each = func.jsonb_each_text(hold.c.held_micro).table_valued("key", "value").render_derived()
    now_us = func.extract("epoch", func.clock_timestamp()) * MILLION
    micro = sqlalchemy.cast(each.c.value, hold.c.wallet_pico.type)
    return (
        select(hold.c.account, each.c.key.label("grant_id"), func.sum(micro, type_=micro.type).label("micro"))
        .select_from(hold.join(each, sqlalchemy.true()))
        .where(hold.c.state == "open", hold.c.expires_us > now_us)
        .group_by(hold.c.account, each.c.key)
        .subquery()
    )


def bills(database_url: str, *, only_open: bool = False) -> Iterator[ReportRow]:
    """Yield the bills of postpaid accounts, sorted by account and issue. They are collected with the phone bill."""
    statement = (
        select(account.c.account, account.c.currency, cast(account.c.extras, Text))
        .where(account.c.extras["bills"].is_not(None))
        .order_by(account.c.account)
    )
    with _connected(database_url) as connection:
        for name, currency, document in connection.execute(statement):
            for bill in parse_extras(document).bills:
                if bill.open_pico or not only_open:
                    yield {
                        "account": name,
                        "bill_id": bill.bill_id,
                        "currency": currency,
                        "amount": format_pico(bill.amount_pico),
                        "paid": format_pico(bill.paid_pico),
                        "open": format_pico(bill.open_pico),
                        "begin": format_time_us(bill.from_us),
                        "end": format_time_us(bill.until_us),
                        "due": format_time_us(bill.due_us),
                    }


def _bucket(fields: list[object]) -> Bucket:
    with_ends = [NO_END_US if value is None else value for value in fields]
    return Bucket(*with_ends)  # type: ignore[arg-type]


class InexactBound(ValueError):
    """A time within an hour. Usage is summed by hours of UTC, so a part of an hour has no sum of its own."""

    def __init__(self, time_us: int) -> None:
        begin_us = time_us // HOUR_US * HOUR_US
        self.time_us = time_us
        self.nearest_us = (begin_us, begin_us + HOUR_US)
        super().__init__(f"{format_time_us(time_us)} is not the beginning of an hour")


def usage(database_url: str, by: Sequence[str], from_us: int | None, to_us: int | None) -> Iterator[ReportRow]:
    """Return usage summed by the dimensions ``by`` and currency.

    The time of the events is at or after ``from_us`` and before ``to_us``.

    Raises:
        InexactBound: one of the two is not the beginning of an hour of UTC.
    """
    for bound_us in (from_us, to_us):
        if bound_us is not None and bound_us % HOUR_US:
            raise InexactBound(bound_us)
    return _usage(database_url, by, from_us, to_us)


def _usage(database_url: str, by: Sequence[str], from_us: int | None, to_us: int | None) -> Iterator[ReportRow]:
    keys = {name: rollup.c["hour_us" if name == "hour" else name] for name in by}
    groups = [*keys.values(), rollup.c.currency]
    sums = [func.sum(column, type_=rollup.c.tokens.type) for column in _USAGE_SUMS.values()]
    statement = select(*groups, *sums).group_by(*groups).order_by(*groups)
    if from_us is not None:
        statement = statement.where(rollup.c.hour_us >= from_us)
    if to_us is not None:
        statement = statement.where(rollup.c.hour_us < to_us)
    with _connected(database_url) as connection:
        for found in connection.execute(statement):
            values = list(found)
            row: ReportRow = {name: values.pop(0) for name in (*keys, "currency")}
            if "hour" in row:
                row["hour"] = format_time_us(int(row["hour"] or 0))
            for (name, column), value in zip(_USAGE_SUMS.items(), values, strict=True):
                row[name] = _written(column.name, value)
            yield row


def _written(column: str, value: int) -> str | int:
    if column.endswith("_pico"):
        return format_pico(value)
    return format_micro(value) if column.endswith("_micro") else value


def revenue(database_url: str, from_us: int | None, to_us: int | None) -> Iterator[ReportRow]:
    """Yield revenue without tax by kind, currency and detail (plan or price book).

    The log time of the commits is at or after ``from_us`` and before ``to_us``.
    """
    statement = (
        select(journal.c.account_code, journal.c.currency, journal.c.detail, func.sum(journal.c.amount_pico))
        .where(journal.c.account_code.in_(_REVENUE_KINDS))
        .group_by(journal.c.account_code, journal.c.currency, journal.c.detail)
        .order_by(journal.c.account_code.desc(), journal.c.currency, journal.c.detail)
    )
    if from_us is not None or to_us is not None:
        statement = statement.join_from(journal, commit, _same_commit())
    if from_us is not None:
        statement = statement.where(commit.c.log_time_us >= from_us)
    if to_us is not None:
        statement = statement.where(commit.c.log_time_us < to_us)
    with _connected(database_url) as connection:
        for code, currency, detail, amount_pico in connection.execute(statement):
            yield {
                "kind": _REVENUE_KINDS[code],
                "currency": currency,
                "detail": detail,
                "amount": format_pico(-amount_pico),
            }


def trial_balance(database_url: str, as_of_us: int | None = None) -> tuple[dict[str, str], str]:
    """Return the amount of each control account (debit positive), and the sum of all, which must be "0".

    Only commits with a log time up to ``as_of_us`` count.
    """
    statement = select(journal.c.account_code, journal.c.currency, func.sum(journal.c.amount_pico)).group_by(
        journal.c.account_code, journal.c.currency
    )
    if as_of_us is not None:
        statement = statement.join_from(journal, commit, _same_commit()).where(commit.c.log_time_us <= as_of_us)
    with _connected(database_url) as connection:
        balances_pico = {(code, currency): amount for code, currency, amount in connection.execute(statement) if amount}
    return trial_balance_object(balances_pico), format_pico(sum(balances_pico.values()))


def _same_commit() -> sqlalchemy.ColumnElement[bool]:
    return (journal.c.partition == commit.c.partition) & (journal.c.commit_no == commit.c.commit_no)
