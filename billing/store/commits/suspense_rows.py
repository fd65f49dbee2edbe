"""The rows of ``suspense``: rejected records as ``COPY`` text, and what their columns hold back again.

No rules, no statements; :mod:`billing.store.suspense_records` reads what is written here.
"""

import base64
import json
from binascii import hexlify
from collections.abc import Iterable, Sequence

import zstandard

from billing.commits.commit_record import Suspended
from billing.commits.copy_text import copy_rows

PLAIN, ZSTANDARD = "plain", "zstandard"
"""How a value holds the bytes of a record."""
PACKED_ABOVE_BYTES = 1 << 20
"""Larger values are packed: what a broker takes in a few bytes, compressed, may be more than a field can hold."""
_LEVEL = 1
Headers = Sequence[tuple[str, bytes | None]]


def suspense_text(partition: int, commit_no: int, suspense: Iterable[Suspended]) -> bytes:
    """The rows that one commit appends, numbered from 1.

    Raises:
        BrokenInvariant: as :func:`billing.commits.copy_text.copy_rows`.
    """
    parts: list[bytes] = []
    known: Headers = ()
    headers = headers_text(known)
    for number, one in enumerate(suspense, 1):
        record, why = one.record, one.rejection
        if record.headers != known:  # A flood has the same ones again and again.
            known, headers = record.headers, headers_text(record.headers)
        packing, value = _packed(record.value)
        row = (
            *(partition, commit_no, number, one.topic, record.offset, record.timestamp * 1000, why.code, why.detail),
            *(why.source, why.id, why.sequence, why.account, record.key, headers, len(record.value or b""), packing),
        )
        parts += (copy_rows([row])[:-1], b"\t", b"\\N" if value is None else b"\\\\x" + hexlify(value), b"\n")
    return b"".join(parts)


def _packed(value: bytes | None) -> tuple[str, bytes | None]:
    if value is None or len(value) <= PACKED_ABOVE_BYTES:
        return PLAIN, value
    return ZSTANDARD, zstandard.ZstdCompressor(level=_LEVEL).compress(value)


def read_value(packing: str, value: bytes | None) -> bytes | None:
    """The bytes of a record, as it came."""
    if value is None or packing == PLAIN:
        return value
    return zstandard.ZstdDecompressor().decompress(value)


def headers_text(headers: Headers) -> str:
    """Headers as JSON: a list of [name, base64 or null]; ASCII, so that a column of text can hold any name."""
    return json.dumps(
        [[name, None if content is None else base64.b64encode(content).decode()] for name, content in headers]
    )


def read_headers(text: str) -> tuple[tuple[str, bytes | None], ...]:
    """What :func:`headers_text` wrote."""
    return tuple((name, None if content is None else base64.b64decode(content)) for name, content in json.loads(text))
