"""Hashes of stored rows, and their sum by table: the plain rule.

Each row of a summed table has a hash of its ``COPY`` text. The sum of a table counts every row once, in any order, so
a commit changes it by the rows it writes: minus the old row, plus the new one. A row that is changed, inserted or
deleted in any other way makes the sum of the rows differ from the sum that the commits carried forward
(docs/decisions/sums-of-rows.md). The compiled twin is :mod:`billing.calculator.core_row_hashes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Self

from billing.commits.copy_text import copy_rows

HASH_BYTES = 32
SUM_BYTES = 64
_MODULUS = 1 << 8 * SUM_BYTES
_SALT_BYTES = 16
_MARK = b"\t\\\\x"
"""The bytes between a row and its hash in ``COPY`` text."""


def row_hash(table: str, partition: int, row: bytes) -> bytes:
    """Return the BLAKE2b-256 hash of a row's ``COPY`` text without the newline.

    The table and the partition are the parameters "person" and "salt": equal rows of other places have other hashes.
    """
    salt = partition.to_bytes(_SALT_BYTES, "little", signed=True)
    return blake2b(row, digest_size=HASH_BYTES, person=table.encode(), salt=salt).digest()


def weight(hashed: bytes) -> int:
    """Return what a row with this hash counts in the sum of its table: BLAKE2b-512 of the hash, as a number.

    A sum of 256 bits could be kept while a few hundred rows are changed (docs/decisions/sums-of-rows.md).
    """
    return int.from_bytes(blake2b(hashed, digest_size=SUM_BYTES, person=b"row sum").digest(), "little")


@dataclass(frozen=True, slots=True)
class RowSum:
    """Number of rows, and the sum of their weights modulo 2**512; of changes, both may count down."""

    rows: int = 0
    total: int = 0

    def __add__(self, other: Self) -> "RowSum":
        return RowSum(self.rows + other.rows, (self.total + other.total) % _MODULUS)

    def __sub__(self, other: Self) -> "RowSum":
        return RowSum(self.rows - other.rows, (self.total - other.total) % _MODULUS)

    @classmethod
    def read(cls, rows: int, total: bytes) -> "RowSum":
        """Return the sum that :meth:`to_bytes` wrote. Bytes that it cannot have written are the sum of no rows."""
        if len(total) != SUM_BYTES:
            total = blake2b(total, digest_size=SUM_BYTES, person=b"no sum").digest()
        return cls(rows, int.from_bytes(total, "little"))

    def to_bytes(self) -> bytes:
        """Return the sum as it is stored: 64 bytes, the least first."""
        return self.total.to_bytes(SUM_BYTES, "little")


NO_ROWS = RowSum()
"""The sum of no rows."""


def sum_of_hashes(hashes: bytes) -> RowSum:
    """Return the sum of rows whose hashes are given one behind the other.

    Raises:
        ValueError: the length is not a multiple of 32 bytes.
    """
    if len(hashes) % HASH_BYTES:
        raise ValueError(f"{len(hashes)} bytes are not hashes of {HASH_BYTES} bytes")
    each = [hashes[start : start + HASH_BYTES] for start in range(0, len(hashes), HASH_BYTES)]
    return RowSum(len(each), sum(map(weight, each)) % _MODULUS)


def with_hashes(table: str, partition: int, rows: bytes) -> tuple[bytes, RowSum]:
    """Return ``COPY`` text with the hash of each row as one more column, and the sum of the rows."""
    parts, hashes = [], []
    for row in rows.split(b"\n")[:-1]:
        hashed = row_hash(table, partition, row)
        hashes.append(hashed)
        parts.append(row + _MARK + hashed.hex().encode() + b"\n")
    return b"".join(parts), sum_of_hashes(b"".join(hashes))


def check_hashes(table: str, partition: int, rows: bytes) -> tuple[RowSum, list[int]]:
    """Compare rows with the hashes in their last column.

    Returns the sum of the rows as they are, and the indexes of those whose hash is missing or is another row's.
    """
    hashes, differ = [], []
    for index, line in enumerate(rows.split(b"\n")[:-1]):
        row, _, stored = line.rpartition(b"\t")
        hashed = row_hash(table, partition, row)
        hashes.append(hashed)
        if b"\t" + stored != _MARK + hashed.hex().encode():
            differ.append(index)
    return sum_of_hashes(b"".join(hashes)), differ


def check_values(table: str, rows: Sequence[tuple[Any, ...]]) -> list[int]:
    """Return the indexes of rows, given as values, whose hash is missing or is another row's.

    The last two values of a row are its partition and its hash.
    """
    return [
        index
        for index, (*values, partition, stored) in enumerate(rows)
        if stored != row_hash(table, partition, copy_rows([values])[:-1])
    ]
