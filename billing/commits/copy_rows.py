"""Accounts and buckets as rows of PostgreSQL ``COPY`` text.

The columns are those of :class:`billing.commits.commit_record.AccountChanges`.
"""

from billing.accounts.account import NO_END_US, Account, Bucket
from billing.accounts.extras import extras_json

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_text(value: str) -> str:
    """Escape a string for one column of ``COPY`` text."""
    return value.translate(_ESCAPES)


def _row(*columns: str | int | None) -> bytes:
    return (
        "\t".join("\\N" if c is None else copy_text(c) if isinstance(c, str) else str(c) for c in columns) + "\n"
    ).encode()


def account_row(account: Account) -> bytes:
    """Return one row of ``AccountChanges.accounts_*``."""
    return _row(
        account.account,
        account.currency,
        account.price_book,
        account.payment,
        account.credit_limit_pico,
        account.wallet_pico,
        account.absorbed_micro,
        account.absorbed_pico,
        account.status,
        account.clock_us,
        None if account.next_due_us >= NO_END_US else account.next_due_us,
        extras_json(account.extras),
    )


def bucket_row(account_id: str, bucket: Bucket) -> bytes:
    """Return one row of ``AccountChanges.buckets_*``."""
    return _row(
        account_id,
        bucket.grant_id,
        bucket.plan,
        bucket.plan_version,
        bucket.bucket_no,
        bucket.unit,
        bucket.amount_micro,
        bucket.remaining_micro,
        bucket.liability_pico,
        bucket.valid_from_us,
        None if bucket.valid_until_us >= NO_END_US else bucket.valid_until_us,
        None if bucket.lapse_at_us >= NO_END_US else bucket.lapse_at_us,
        bucket.alerts_fired,
        bucket.status,
        bucket.carried_cycles,
    )


def account_terms(account: Account) -> tuple[int, str]:
    """Return the columns that usage does not change. A row in which they differ is *replaced* (``AccountChanges``)."""
    return account.credit_limit_pico, extras_json(account.extras)


def bucket_terms(bucket: Bucket) -> tuple[int, int, int, int, int]:
    """Return the columns of a bucket that usage does not change, as :func:`account_terms` does for an account."""
    validity = bucket.valid_from_us, bucket.valid_until_us, bucket.lapse_at_us
    return bucket.amount_micro, *validity, bucket.carried_cycles
