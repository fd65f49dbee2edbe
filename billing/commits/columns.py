"""Columns of the account and bucket rows, listed once.

Made from these lists: the ``COPY`` text of the plain calculator, the table definitions, the SQL that loads and updates
the rows, and the sets of columns that usage and commands change. Checked against them: the loader, the migrated schema
and the compiled core's rows (tests/billing/commits/test_columns.py, tests/billing/store/test_schema.py).
"""

from collections.abc import Callable, Iterable
from enum import Enum
from operator import attrgetter
from typing import NamedTuple

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.extras import extras_json


class Form(Enum):
    """Form of a column's value."""

    TEXT = "text"
    INTEGER = "integer"
    BIGINT = "bigint"
    EXACT = "numeric"
    """128-bit integer: money in pico, quota in micro."""
    END = "bigint or null"
    """Microseconds UTC; null for no end."""
    EXTRAS = "json"


class ChangedBy(Enum):
    """Cause that changes a column of an existing row."""

    KEY = "nothing: it is part of the key"
    SALE = "nothing: it is fixed when the row is made"
    USAGE = "usage, time and commands"
    TERMS = "commands and cycles: the whole row is then replaced"


class Column(NamedTuple):
    """One column: its name in SQL, which is the attribute's name, its form, and what changes it."""

    name: str
    form: Form
    changed_by: ChangedBy


ACCOUNT_COLUMNS = (
    Column("account", Form.TEXT, ChangedBy.KEY),
    Column("currency", Form.TEXT, ChangedBy.SALE),
    Column("price_book", Form.TEXT, ChangedBy.SALE),
    Column("payment", Form.TEXT, ChangedBy.SALE),
    Column("credit_limit_pico", Form.EXACT, ChangedBy.TERMS),
    Column("wallet_pico", Form.EXACT, ChangedBy.USAGE),
    Column("absorbed_micro", Form.EXACT, ChangedBy.USAGE),
    Column("absorbed_pico", Form.EXACT, ChangedBy.USAGE),
    Column("status", Form.TEXT, ChangedBy.USAGE),
    Column("clock_us", Form.BIGINT, ChangedBy.USAGE),
    Column("next_due_us", Form.END, ChangedBy.USAGE),
    Column("extras", Form.EXTRAS, ChangedBy.TERMS),
)
BUCKET_COLUMNS = (
    Column("account", Form.TEXT, ChangedBy.KEY),
    Column("grant_id", Form.TEXT, ChangedBy.KEY),
    Column("plan", Form.TEXT, ChangedBy.SALE),
    Column("plan_version", Form.INTEGER, ChangedBy.SALE),
    Column("bucket_no", Form.INTEGER, ChangedBy.SALE),
    Column("unit", Form.TEXT, ChangedBy.SALE),
    Column("amount_micro", Form.EXACT, ChangedBy.TERMS),
    Column("remaining_micro", Form.EXACT, ChangedBy.USAGE),
    Column("liability_pico", Form.EXACT, ChangedBy.USAGE),
    Column("valid_from_us", Form.BIGINT, ChangedBy.TERMS),
    Column("valid_until_us", Form.END, ChangedBy.TERMS),
    Column("lapse_at_us", Form.END, ChangedBy.TERMS),
    Column("alerts_fired", Form.INTEGER, ChangedBy.USAGE),
    Column("status", Form.TEXT, ChangedBy.USAGE),
    Column("carried_cycles", Form.INTEGER, ChangedBy.TERMS),
)


def column_names(columns: tuple[Column, ...], *changed_by: ChangedBy) -> tuple[str, ...]:
    """Return the names of the columns, in order; only those that one of ``changed_by`` changes, if any is given."""
    return tuple(column.name for column in columns if not changed_by or column.changed_by in changed_by)


def account_values(account: Account) -> list[str | int | None]:
    """Return the values of an account's row."""
    return _ACCOUNT(account)


def bucket_values(account: str, bucket: Bucket) -> list[str | int | None]:
    """Return the values of a bucket's row."""
    return [account, *_BUCKET(bucket)]


def account_terms(account: Account) -> list[str | int | None]:
    """Return the values that usage does not change: the row is replaced where they differ."""
    return _ACCOUNT_TERMS(account)


def bucket_terms(bucket: Bucket) -> list[str | int | None]:
    """Return the values that usage does not change: the row is replaced where they differ."""
    return _BUCKET_TERMS(bucket)


def _getter(columns: Iterable[Column]) -> Callable[[Account | Bucket], list[str | int | None]]:
    """Return a function from an account or bucket to the values of these columns.

    It runs for every row of a commit of the plain calculator, so the columns that need a conversion are found once.
    """
    listed = tuple(columns)
    attributes = attrgetter(*(column.name for column in listed))
    ends = [place for place, column in enumerate(listed) if column.form is Form.END]
    extras = [place for place, column in enumerate(listed) if column.form is Form.EXTRAS]

    def values(of: Account | Bucket) -> list[str | int | None]:
        found = list(attributes(of))
        for place in ends:
            if found[place] >= NO_END_US:
                found[place] = None
        for place in extras:
            found[place] = extras_json(found[place])
        return found

    return values


def _of_terms(columns: Iterable[Column]) -> Iterable[Column]:
    return (column for column in columns if column.changed_by is ChangedBy.TERMS)


_ACCOUNT, _ACCOUNT_TERMS = _getter(ACCOUNT_COLUMNS), _getter(_of_terms(ACCOUNT_COLUMNS))
_BUCKET, _BUCKET_TERMS = _getter(BUCKET_COLUMNS[1:]), _getter(_of_terms(BUCKET_COLUMNS))
