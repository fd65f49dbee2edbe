"""Rows as PostgreSQL ``COPY`` text, byte for byte as the server writes them back.

The digest of a commit is taken over these bytes, and ``audit`` takes it again over what ``COPY … TO STDOUT`` returns.
"""

from collections.abc import Iterable

from billing.accounts.account import Account, Bucket
from billing.commits.columns import account_values, bucket_values
from billing.errors import BrokenInvariant

_ESCAPES = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})


def copy_field(value: str | int | bytes | None) -> str:
    """One column.

    Raises:
        BrokenInvariant: a NUL, which PostgreSQL cannot hold; whatever decoded the input must have rejected it.
    """
    if value is None:
        return "\\N"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, bytes):
        return "\\\\x" + value.hex()
    if "\0" in value:
        raise BrokenInvariant(f"a text to be stored contains NUL: {value!r}")
    return value.translate(_ESCAPES) if not value.isprintable() or "\\" in value else value


def copy_rows(rows: Iterable[Iterable[str | int | bytes | None]]) -> bytes:
    """Rows, each ended by a newline.

    Raises:
        BrokenInvariant: a text that is not Unicode (a lone surrogate), or has a NUL.
    """
    text = "".join("\t".join(map(copy_field, row)) + "\n" for row in rows)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise BrokenInvariant(f"a text to be stored is not Unicode: {error}") from error


def account_row(account: Account) -> bytes:
    """One row of ``AccountChanges.accounts_*``."""
    return copy_rows([account_values(account)])


def bucket_row(account: str, bucket: Bucket) -> bytes:
    """One row of ``AccountChanges.buckets_*``."""
    return copy_rows([bucket_values(account, bucket)])
