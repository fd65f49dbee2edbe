"""How one outbox row packs its records.

The core and the engine write frames: four length-prefixed parts: key, headers (a JSON list of [name, text] pairs),
value, and the target partition as a signed integer (-1: the partition of the commit). Where records are forwarded, each
to a partition of its own, a row holds the frames, compressed with Zstandard. Everything else goes to the partition of
the commit, and a row holds what Kafka will store: record batches (format 2), compressed once, their sequences written
where :data:`SEQUENCE_MARK` stood (``billing.calculator.core_records.pack_batches``); nobody unpacks them before a
consumer does
(docs/decisions/outbox-as-record-batches.md).
"""

import json
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import zstandard

SEQUENCE_MARK = b"\x00SEQ\x00"
"""Stands in a frame's value where the record's sequence belongs; a JSON text cannot contain NUL."""
BATCH_BYTES = 1 << 20
"""A record batch ends with the record that reaches this size, uncompressed."""
LARGEST_BATCH = 1_000_000
"""No record batch of several records is larger when it is packed: brokers take 1,048,588 bytes by default."""
ZSTANDARD = 4
"""Kafka's number of the codec."""
BATCH_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Of a record batch: base offset, length, leader epoch, format, checksum, attributes, last offset delta, first and
greatest timestamp, producer, its epoch, base sequence, number of records."""
LENGTH_COUNTS_FROM = 12
"""Where in a record batch the bytes begin that its length counts."""

_HEAD = struct.Struct("<iIII")
COMPRESSION_LEVEL = 1
"""Of Zstandard: higher ones take more time than the bytes they save are worth."""


class Frame(NamedTuple):
    """One record to publish: ``key``, ``value`` or a header's content may be None, a null of Kafka."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    target_partition: int = -1


_NULL = 0xFFFFFFFF


def _part(data: bytes | None) -> tuple[int, bytes]:
    return (_NULL, b"") if data is None else (len(data), data)


def encode_frame(frame: Frame) -> bytes:
    """One frame, uncompressed; the compiled core writes the same bytes."""
    key_length, key = _part(frame.key)
    value_length, value = _part(frame.value)
    pairs = [[name, None if content is None else content.decode("latin-1")] for name, content in frame.headers]
    headers = json.dumps(pairs).encode() if pairs else b""
    return b"".join((_HEAD.pack(frame.target_partition, key_length, len(headers), value_length), key, headers, value))


def compress(frames: bytes) -> bytes:
    """The payload of an outbox row from its concatenated frames."""
    return zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(frames)


def pack_frames(frames: Iterable[Frame]) -> bytes:
    """Pack frames, in order, into one payload."""
    return compress(b"".join(map(encode_frame, frames)))


def split_batches(payload: bytes) -> Iterator[tuple[bytes, int]]:
    """The record batches of one payload, whole and in order, each with the number of its records.

    Raises:
        ValueError: the payload is not whole.
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
    """The records of one payload, in order, their sequences in them: how a consumer reads what was packed.

    Raises:
        ValueError: the payload is not whole.
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
    """Reads the parts of a record one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self) -> int:
        """A number in base 128, the lowest digits first; the lowest bit says whether it is negative."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
            shift += 7

    def part(self) -> bytes | None:
        """Bytes with their length before them; -1 for none."""
        length = self.number()
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at]


def unpack_frames(payload: bytes) -> Iterator[Frame]:
    """The frames of one payload, in order.

    Raises:
        ValueError: the payload is not whole.
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
