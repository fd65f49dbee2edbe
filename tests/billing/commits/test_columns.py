"""Columns of account and bucket rows: one list, which the rows, the loader and the classes agree with."""

import inspect
from dataclasses import fields

import pytest

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.commits import columns, stored_accounts
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, ChangedBy, Form, column_names
from billing.commits.copy_text import account_row, bucket_row
from billing.commits.stored_accounts import plain_accounts
from billing.store import account_rows

ACCOUNT = Account("a", "CNY", "book", "postpaid", 1, -2, 3, 4, "open", 5, 6)
BUCKET = Bucket("g/1", "plan", 7, 1, "STD_TOKEN", 8, 9, 10, 11, 12, 13, 14, "active", 15)


def test_an_account_has_the_listed_columns_in_their_order() -> None:
    assert column_names(ACCOUNT_COLUMNS) == tuple(field.name for field in fields(Account) if field.name != "buckets")


def test_a_bucket_has_the_listed_columns_in_their_order() -> None:
    assert column_names(BUCKET_COLUMNS) == ("account", *(field.name for field in fields(Bucket)))


def test_every_column_is_a_key_or_changed_by_something() -> None:
    for listed in (ACCOUNT_COLUMNS, BUCKET_COLUMNS):
        parts = [column_names(listed, one) for one in ChangedBy]
        assert sorted(sum(parts, ())) == sorted(column_names(listed)) and all(parts)


def test_a_row_holds_the_listed_values_and_is_loaded_again() -> None:
    account_text, bucket_text = account_row(ACCOUNT), bucket_row("a", BUCKET)
    assert account_text == b"a\tCNY\tbook\tpostpaid\t1\t-2\t3\t4\topen\t5\t6\t{}\n"
    assert bucket_text == b"a\tg/1\tplan\t7\t1\tSTD_TOKEN\t8\t9\t10\t11\t12\t13\t14\tactive\t15\n"
    [loaded] = plain_accounts([columns.account_values(ACCOUNT)], [columns.bucket_values("a", BUCKET)])
    assert (loaded.buckets, loaded) == ([BUCKET], Account(**_of(ACCOUNT) | {"buckets": [BUCKET]}))


def _of(account: Account) -> dict[str, object]:
    return {field.name: getattr(account, field.name) for field in fields(Account)}


@pytest.mark.parametrize("column", [one.name for one in BUCKET_COLUMNS if one.form is Form.END])
def test_no_end_is_null(column: str) -> None:
    setattr(endless := Bucket(*(getattr(BUCKET, field.name) for field in fields(Bucket))), column, NO_END_US)
    row = dict(zip(column_names(BUCKET_COLUMNS), bucket_row("a", endless).rstrip(b"\n").split(b"\t"), strict=True))
    assert row[column] == b"\\N" and list(row.values()).count(b"\\N") == 1


def test_the_loader_takes_the_listed_columns_in_their_order() -> None:
    assert tuple(inspect.signature(stored_accounts._account).parameters) == column_names(ACCOUNT_COLUMNS)
    assert ("account", *inspect.signature(stored_accounts._bucket).parameters) == column_names(BUCKET_COLUMNS)


def test_the_loader_asks_for_the_listed_columns() -> None:
    for statement, listed in ((account_rows.ACCOUNTS, ACCOUNT_COLUMNS), (account_rows.BUCKETS, BUCKET_COLUMNS)):
        asked = statement.partition("FROM")[0].replace("SELECT", "").replace("::text", "").split(",")
        assert tuple(one.strip() for one in asked) == column_names(listed)
