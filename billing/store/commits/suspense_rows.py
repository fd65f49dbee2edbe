"""Rows of ``suspense``, ``conflict`` and ``foreign_record``: records as ``COPY`` text, and decoding of the columns.

Contains no rules and no statements; :mod:`billing.store.suspense_records`, ``conflict_records`` and
``foreign_records`` read these rows.
"""

import base64
import json
from binascii import hexlify
from collections.abc import Iterable, Sequence

import zstandard

from billing.commits.commit_record import ConflictRecord, ForeignRecord, SuspenseRecord
from billing.commits.copy_text import copy_rows
from billing.commits.input_batch import Record

ENCODED_PLAIN, ENCODED_ZSTANDARD = "plain", "zstandard"
"""Values of the column ``packing``: encodings of the value of a record."""
PACKED_ABOVE_BYTES = 1 << 20
"""Size above which values are compressed: a small compressed record may expand beyond the limit of a column."""
_LEVEL = 1
StoredHeaders = Sequence[tuple[str, bytes | None]]


def suspense_text(partition: int, commit_no: int, suspense: Iterable[SuspenseRecord]) -> bytes:
    """Return the rows of ``suspense`` that one commit appends (:func:`_kept_records`)."""
    return _kept_records(
        partition,
        commit_no,
        (
            (one.topic, one.record, (why.code, why.detail, why.source, why.id, why.sequence, why.account))
            for one in suspense
            for why in (one.rejection,)
        ),
    )


def foreign_text(partition: int, commit_no: int, foreign: Iterable[ForeignRecord]) -> bytes:
    """Return the rows of ``foreign_record`` that one commit appends (:func:`_kept_records`)."""
    return _kept_records(partition, commit_no, ((one.topic, one.record, (one.fault,)) for one in foreign))


def conflict_text(partition: int, commit_no: int, conflicts: Iterable[ConflictRecord]) -> bytes:
    """Return the rows of ``conflict`` that one commit appends (:func:`_kept_records`)."""
    return _kept_records(
        partition,
        commit_no,
        ((one.topic, one.record, (one.account, one.source, one.id, one.sequence)) for one in conflicts),
    )


def _kept_records(
    partition: int, commit_no: int, kept: Iterable[tuple[str, Record, Sequence[str | int | None]]]
) -> bytes:
    """Return rows, numbered from 1, of records that are kept as received: (topic, record, the table's own columns).

    Raises:
        BrokenInvariant: as :func:`billing.commits.copy_text.copy_rows`.
    """
    parts: list[bytes] = []
    known: StoredHeaders = ()
    headers = headers_text(known)
    for number, (topic, record, own) in enumerate(kept, 1):
        if record.headers != known:  # Records of a flood repeat the same headers.
            known, headers = record.headers, headers_text(record.headers)
        packing, value = _packed(record.value)
        row = (
            *(partition, commit_no, number, topic, record.offset, record.timestamp * 1000),
            *own,
            *(record.key, headers, len(record.value or b""), packing),
        )
        text = b"\\N" if value is None else b"\\\\x" + hexlify(value)
        parts += (copy_rows([row])[:-1], b"\t", text, b"\n")
    return b"".join(parts)


def _packed(value: bytes | None) -> tuple[str, bytes | None]:
    """Return how the value of a record is packed, and the packed value."""
    if value is None or len(value) <= PACKED_ABOVE_BYTES:
        return ENCODED_PLAIN, value
    return ENCODED_ZSTANDARD, zstandard.ZstdCompressor(level=_LEVEL).compress(value)


def read_value(packing: str, value: bytes | None) -> bytes | None:
    """Return the value of a record as it was received."""
    if value is None or packing == ENCODED_PLAIN:
        return value
    return zstandard.ZstdDecompressor().decompress(value)


def headers_text(headers: StoredHeaders) -> str:
    """Encode headers as JSON: a list of [name, base64 or null]. It is ASCII, so a text column can hold any name."""
    return json.dumps(
        [[name, None if content is None else base64.b64encode(content).decode()] for name, content in headers]
    )


def read_headers(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """Decode the result of :func:`headers_text`."""
    return tuple((name, None if content is None else base64.b64decode(content)) for name, content in json.loads(text))
