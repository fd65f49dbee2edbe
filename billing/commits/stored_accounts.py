"""Accounts as their rows in SQL; plain values are made of them only where someone asks."""

from collections.abc import Iterable, Sequence
from typing import Any, overload

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.extras import parse_extras
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS

_Row = tuple[Any, ...]
_ACCOUNT_VALUES, _BUCKET_VALUES = len(ACCOUNT_COLUMNS), len(BUCKET_COLUMNS)


class StoredAccounts(Sequence[Account]):
    """Accounts, sorted by id, in the order and form of their columns.

    A row of ``account_rows`` begins with the values of :data:`billing.commits.columns.ACCOUNT_COLUMNS`, one of
    ``bucket_rows`` with those of :data:`billing.commits.columns.BUCKET_COLUMNS`; numbers of 128 bits are text, as
    extras are, and what follows them is ignored. Bucket rows have the order of their accounts.

    A worker that starts loads every account that is used. The core reads the rows as they are
    (:meth:`cython_ext.accounts.AccountStore.put_rows`); plain values would take most of the time.
    """

    __slots__ = ("_plain", "account_rows", "bucket_rows")

    def __init__(self, account_rows: list[_Row], bucket_rows: list[_Row]) -> None:
        self.account_rows = account_rows
        self.bucket_rows = bucket_rows
        self._plain: list[Account] | None = None

    def __len__(self) -> int:
        return len(self.account_rows)

    @overload
    def __getitem__(self, index: int) -> Account: ...
    @overload
    def __getitem__(self, index: slice) -> list[Account]: ...
    def __getitem__(self, index: int | slice) -> Account | list[Account]:
        if self._plain is None:
            self._plain = plain_accounts(self.account_rows, self.bucket_rows)
        return self._plain[index]


def plain_accounts(account_rows: Iterable[_Row], bucket_rows: Iterable[_Row]) -> list[Account]:
    """Return the accounts of rows as :class:`StoredAccounts` has them; buckets have the order of their rows."""
    accounts = {row[0]: _account(*row[:_ACCOUNT_VALUES]) for row in account_rows}
    for row in bucket_rows:
        accounts[row[0]].buckets.append(_bucket(*row[1:_BUCKET_VALUES]))
    return list(accounts.values())


def _account(
    account: str,
    currency: str,
    price_book: str,
    payment: str,
    credit_limit_pico: str,
    wallet_pico: str,
    absorbed_micro: str,
    absorbed_pico: str,
    status: str,
    clock_us: int,
    next_due_us: int | None,
    extras: str,
) -> Account:
    return Account(
        account,
        currency,
        price_book,
        payment,
        int(credit_limit_pico),
        int(wallet_pico),
        int(absorbed_micro),
        int(absorbed_pico),
        status,
        clock_us,
        _end_us(next_due_us),
        [],
        parse_extras(extras),
    )


def _bucket(
    grant_id: str,
    plan: str,
    plan_version: int,
    bucket_no: int,
    unit: str,
    amount_micro: str,
    remaining_micro: str,
    liability_pico: str,
    valid_from_us: int,
    valid_until_us: int | None,
    lapse_at_us: int | None,
    alerts_fired: int,
    status: str,
    carried_cycles: int,
) -> Bucket:
    return Bucket(
        grant_id,
        plan,
        plan_version,
        bucket_no,
        unit,
        int(amount_micro),
        int(remaining_micro),
        int(liability_pico),
        valid_from_us,
        _end_us(valid_until_us),
        _end_us(lapse_at_us),
        alerts_fired,
        status,
        carried_cycles,
    )


def _end_us(value_us: int | None) -> int:
    return NO_END_US if value_us is None else value_us
