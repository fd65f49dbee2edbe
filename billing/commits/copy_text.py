"""Rows as PostgreSQL ``COPY`` text, byte for byte as the server writes them.

The digest of a commit covers these bytes. ``audit`` computes it again from the output of ``COPY … TO STDOUT``.
"""

from collections.abc import Iterable

from billing.accounts.account import Account, Bucket
from billing.commits.columns import account_values, bucket_values
from billing.errors import BrokenInvariant

_ESCAPES = str.maketrans({"\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"})


def copy_field(value: str | int | bytes | None) -> str:
    """Return the text of one column.

    Raises:
        BrokenInvariant: the value contains NUL, which PostgreSQL cannot store; the decoder must reject such input.
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
    """Return the text of rows, each terminated by a newline.

    Raises:
        BrokenInvariant: a string is not valid Unicode (a lone surrogate) or contains NUL.
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
