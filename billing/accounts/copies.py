"""Copies of accounts that share no mutable state."""

from dataclasses import fields
from operator import attrgetter

from billing.accounts.account import Account, Bucket
from billing.accounts.extras import copied

_account_values = attrgetter(*(field.name for field in fields(Account)))
_bucket_values = attrgetter(*(field.name for field in fields(Bucket)))


def copied_account(account: Account) -> Account:
    """Return a copy that shares no mutable state.

    It uses neither ``deepcopy`` nor ``replace``: they took a third of a reservation's time.
    """
    copy = Account(*_account_values(account))
    copy.buckets = [Bucket(*_bucket_values(bucket)) for bucket in account.buckets]
    copy.extras = copied(account.extras)
    return copy
