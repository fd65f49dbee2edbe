"""How one outbox row packs its records: frames, compressed with Zstandard.

A frame is four length-prefixed parts: key, headers (a JSON list of [name, text] pairs), value, and the target
partition as a signed integer (-1: the partition of the commit). The relay unpacks; it never looks inside a value
except to put the sequence where :data:`SEQUENCE_MARK` stands.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import zstandard

SEQUENCE_MARK = b"\x00SEQ\x00"
"""Stands in a value where the relay writes the record's sequence; a JSON text cannot contain NUL."""

_HEAD = struct.Struct("<iIII")
_LEVEL = 1


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
    return zstandard.ZstdCompressor(level=_LEVEL).compress(frames)


def pack_frames(frames: Iterable[Frame]) -> bytes:
    """Pack frames, in order, into one payload."""
    return compress(b"".join(map(encode_frame, frames)))


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
