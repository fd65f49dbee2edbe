"""Payload formats of an outbox row.

The core and the engine write each record as a frame: the target partition as a signed integer (-1: the partition of
the commit), the lengths of three parts, then the parts: key, headers (a JSON list of [name, text] pairs) and value.

- Forwarded records each have a target partition of their own. Their row holds the frames, compressed with Zstandard.
- All other output goes to the partition of the commit. Its row holds the record batches (format 2) that Kafka stores,
  compressed once. The sequence of each record replaces :data:`SEQUENCE_MARK`
  (:func:`billing.calculator.core_records.pack_batches`). Only consumers unpack these batches
  (docs/decisions/outbox-as-record-batches.md).
"""

import json
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeAlias

import zstandard

SEQUENCE_MARK = b"\x00SEQ\x00"
"""Placeholder for the sequence of the record in the value of a frame. A JSON text cannot contain NUL."""
MAX_BATCH_RECORDS = 1_000_000
"""Largest packed size of a record batch that holds several records. By default a broker accepts 1,048,588 bytes."""
ZSTANDARD = 4
"""Kafka's number of the Zstandard codec."""
BATCH_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Header of a record batch.

Fields: base offset, length, leader epoch, format, checksum, attributes, last offset delta, first timestamp, greatest
timestamp, producer id, producer epoch, base sequence, number of records.
"""
LENGTH_COUNTS_FROM = 12
"""Offset in a record batch of the first byte that its length field counts."""

_HEAD = struct.Struct("<iIII")
COMPRESSION_LEVEL = 1
"""Zstandard level. Higher levels cost more processor time than the bytes they save are worth."""


FrameHeaders: TypeAlias = tuple[tuple[str, bytes | None], ...]


class Frame(NamedTuple):
    """One record to publish. ``key``, ``value`` and the content of a header may be None, which is null in Kafka."""

    key: bytes | None
    value: bytes | None
    headers: FrameHeaders = ()
    target_partition: int = -1


_NULL = 0xFFFFFFFF


def _part(data: bytes | None) -> tuple[int, bytes]:
    return (_NULL, b"") if data is None else (len(data), data)


def encode_headers(headers: FrameHeaders) -> bytes:
    """Encode the headers of a frame: a JSON list, or no bytes for no headers."""
    pairs = [[name, None if content is None else content.decode("latin-1")] for name, content in headers]
    return json.dumps(pairs).encode() if pairs else b""


def encode_frame(frame: Frame) -> bytes:
    """Encode one frame, uncompressed. The compiled core writes the same bytes."""
    key_length, key = _part(frame.key)
    value_length, value = _part(frame.value)
    headers = encode_headers(frame.headers)
    return b"".join((_HEAD.pack(frame.target_partition, key_length, len(headers), value_length), key, headers, value))


def frame_size(frame: Frame) -> int:
    """Return about the bytes of the record in its topic, uncompressed: key, value and headers with their lengths."""
    headers = sum(len(name) + len(content or b"") + 10 for name, content in frame.headers)
    return len(frame.key or b"") + len(frame.value or b"") + headers + 40


def compress(frames: bytes | memoryview) -> bytes:
    """Compress concatenated frames into the payload of an outbox row."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(frames)


def pack_frames(frames: Iterable[Frame]) -> bytes:
    """Pack frames, in order, into the payload of an outbox row."""
    return compress(b"".join(map(encode_frame, frames)))


def split_batches(payload: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the complete record batches of one payload, in order, each with its number of records.

    Raises:
        ValueError: the payload is truncated.
    """
    at = 0
    while at < len(payload):
        if at + BATCH_HEAD.size > len(payload):
            raise ValueError(f"outbox payload cut off at byte {at}")
        head = BATCH_HEAD.unpack_from(payload, at)
        end = at + LENGTH_COUNTS_FROM + int(head[1])
        if end > len(payload) or int(head[1]) < BATCH_HEAD.size - LENGTH_COUNTS_FROM:
            raise ValueError(f"outbox payload cut off inside the record batch at byte {at}")
        yield payload[at:end], int(head[-1])
        at = end


def unpack_batches(payload: bytes) -> Iterator[Frame]:
    """Yield the records of one payload of record batches, in order, as a consumer reads them.

    Their values hold the sequences.

    Raises:
        ValueError: the payload is truncated.
    """
    for batch, count in split_batches(payload):
        data = zstandard.ZstdDecompressor().decompress(batch[BATCH_HEAD.size :])
        read = _Varints(data)
        for _ in range(count):
            read.number()  # The record's length.
            read.at += 1  # Its attributes.
            read.number(), read.number()  # Its time and offset, counted from those of the batch.
            key, value = read.part(), read.part()
            headers = tuple(((read.part() or b"").decode(), read.part()) for _ in range(read.number()))
            yield Frame(key, value, headers)


class _Varints:
    """Reader of the variable-length fields of a record."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self) -> int:
        """Read an integer in base 128, lowest digits first, in zigzag encoding: the lowest bit is the sign."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def part(self) -> bytes | None:
        """Read bytes that follow their length; a length of -1 means null."""
        length = self.number()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at]


def unpack_frames(payload: bytes) -> Iterator[Frame]:
    """Yield the frames of one payload of forwarded records, in order.

    Raises:
        ValueError: the payload is truncated.
    """
    data = zstandard.ZstdDecompressor().decompress(payload)
    position = 0
    while position < len(data):
        if position + _HEAD.size > len(data):
            raise ValueError(f"outbox payload cut off at byte {position}")
        target, key_length, headers_length, value_length = _HEAD.unpack_from(data, position)
        position += _HEAD.size
        key: bytes | None = None
        if key_length != _NULL:
            key = data[position : position + key_length]
            position += key_length
        headers: tuple[tuple[str, bytes | None], ...] = ()
        if headers_length:
            pairs = json.loads(data[position : position + headers_length])
            headers = tuple((name, None if text is None else text.encode("latin-1")) for name, text in pairs)
            position += headers_length
        value: bytes | None = None
        if value_length != _NULL:
            value = data[position : position + value_length]
            position += value_length
        if position > len(data):
            raise ValueError("outbox payload cut off inside a record")
        yield Frame(key, value, headers, target)
