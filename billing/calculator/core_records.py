"""Kafka record batches, read and written by the compiled core.

Holds no rule: the calculators interpret the records, and :mod:`billing.commits.outbox_frames` defines frames.
"""

import zstandard

from billing.commits.outbox_frames import (
    COMPRESSION_LEVEL,
    MAX_BATCH_RECORDS,
    SEQUENCE_MARK,
    ZSTANDARD,
    FrameHeaders,
    encode_headers,
    split_batches,
)
from cython_ext import batches
from cython_ext.records import PackedRecord, PackedRecords
from schemas.record_sizes import BATCH_BYTES

__all__ = ["PackedRecord", "PackedRecords", "pack_batches"]


def pack_batches(frames: bytes | memoryview, first_sequence: int, headers: FrameHeaders = ()) -> bytes:
    """Return the payload of an outbox row: the frames as compressed record batches, with their sequences filled in.

    ``frames`` are concatenated frames; their sequences count from ``first_sequence``. A frame without headers gets
    ``headers``.

    Raises:
        ValueError: a frame is incomplete.
    """
    compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
    batch_bytes, common = BATCH_BYTES, encode_headers(headers)
    while True:
        payload = batches.pack_batches(frames, common, first_sequence, SEQUENCE_MARK, ZSTANDARD, compress, batch_bytes)
        if all(len(batch) <= MAX_BATCH_RECORDS or count == 1 for batch, count in split_batches(payload)):
            return payload
        batch_bytes //= 2  # Bytes of rejected records may not compress.
