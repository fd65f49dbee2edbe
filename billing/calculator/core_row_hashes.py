"""Hashes of stored rows, computed by the compiled core: :mod:`billing.commits.row_hashes` is the plain rule."""

from billing.commits.row_hashes import RowSum
from cython_ext import row_hashes

__all__ = ["check_hashes", "check_values", "sum_of_hashes", "with_hashes"]


def sum_of_hashes(hashes: bytes) -> RowSum:
    """Return the sum of rows whose hashes are given (:func:`billing.commits.row_hashes.sum_of_hashes`).

    Raises:
        ValueError: the length is not a multiple of 32 bytes.
    """
    return RowSum.read(*row_hashes.sum_of_hashes(hashes))


def with_hashes(table: str, partition: int, rows: bytes) -> tuple[bytes, RowSum]:
    """Return rows with their hashes, and their sum (:func:`billing.commits.row_hashes.with_hashes`).

    Raises:
        ValueError: the last row does not end with a newline.
    """
    text, number, total = row_hashes.with_hashes(table, partition, rows)
    return text, RowSum.read(number, total)


def check_hashes(table: str, partition: int, rows: bytes) -> tuple[RowSum, list[int]]:
    """Return the sum of rows, and the rows that differ (:func:`billing.commits.row_hashes.check_hashes`).

    Raises:
        ValueError: the last row does not end with a newline, or a row has one column.
    """
    number, total, differ = row_hashes.check_hashes(table, partition, rows)
    return RowSum.read(number, total), differ


def check_values(table: str, rows: list[tuple[object, ...]]) -> list[int]:
    """Return the rows that differ from their hash (:func:`billing.commits.row_hashes.check_values`).

    Raises:
        TypeError, OverflowError: a value is not text, an integer of 64 bits, or None.
    """
    return row_hashes.check_values(table, rows)
