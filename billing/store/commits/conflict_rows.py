"""Rows of the table ``conflict``: encoding of usage sent again with other content as ``COPY`` text.

Contains no rules and no statements; :mod:`billing.store.conflict_records` reads these rows.
"""

from collections.abc import Iterable

from billing.commits.commit_record import ConflictRecord
from billing.commits.copy_text import copy_rows
from billing.store.commits.suspense_rows import headers_text, pack_value, value_text


def conflict_text(partition: int, commit_no: int, conflicts: Iterable[ConflictRecord]) -> bytes:
    """Return the rows that one commit appends, numbered from 1.

    Raises:
        BrokenInvariant: as :func:`billing.commits.copy_text.copy_rows`.
    """
    parts: list[bytes] = []
    for number, one in enumerate(conflicts, 1):
        record = one.record
        packing, value = pack_value(record.value)
        row = (
            *(partition, commit_no, number, one.topic, record.offset, record.timestamp * 1000),
            *(one.account, one.source, one.id, one.sequence, record.key, headers_text(record.headers)),
            *(len(record.value or b""), packing),
        )
        parts += (copy_rows([row])[:-1], b"\t", value_text(value), b"\n")
    return b"".join(parts)
