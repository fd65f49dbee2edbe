"""Kafka's record batches, read and written by the compiled core: a door to ``cython_ext`` beside
:mod:`billing.calculator.compiled`.

Holds no rule: what the records mean is the calculators', what a frame is :mod:`billing.commits.outbox_frames` says.
"""

import zstandard

from billing.commits.outbox_frames import (
    BATCH_BYTES,
    COMPRESSION_LEVEL,
    LARGEST_BATCH,
    SEQUENCE_MARK,
    ZSTANDARD,
    split_batches,
)
from cython_ext import batches
from cython_ext.records import PackedRecord, PackedRecords

__all__ = ["PackedRecord", "PackedRecords", "pack_batches"]


def pack_batches(frames: bytes, first_sequence: int) -> bytes:
    """The payload of an outbox row from concatenated frames: record batches, compressed, sequences in their places.

    Raises:
        ValueError: a frame is not whole.
    """
    compress = zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress
    batch_bytes = BATCH_BYTES
    while True:
        payload = batches.pack_batches(frames, first_sequence, SEQUENCE_MARK, ZSTANDARD, compress, batch_bytes)
        if all(len(batch) <= LARGEST_BATCH or count == 1 for batch, count in split_batches(payload)):
            return payload
        batch_bytes //= 2  # What was rejected may be noise that does not compress.
