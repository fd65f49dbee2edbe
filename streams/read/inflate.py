"""Decompression of record batches in bounded memory: Kafka's codecs none, gzip, snappy, lz4 and zstd.

A batch of a few kilobytes may hold gigabytes. :func:`inflate` first bounds the uncompressed size by the headers of the
compressed blocks, which costs a microsecond, and decompresses at once only what is within a limit. :func:`pieces`
decompresses any batch piece by piece. One piece has at most :data:`PIECE_BYTES`; while it is made, at most one
compressed block is held beside it. A block of snappy is the largest: a broker takes at most 16 MiB, and snappy's format
cannot grow by more than 22 times.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import cramjam
import zstandard
from aiokafka.codec import lz4_decode, snappy_decode, zstd_decode

PIECE_BYTES: Final = 1 << 20
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
"""Kafka's numbers of the codecs."""

_GZIP_WINDOW = 31
_XERIAL = b"\x82SNAPPY\x00"
_XERIAL_HEADER = 16
_SNAPPY_GROWTH = 22
_LZ4_MAGIC, _ZSTD_MAGIC, _SKIPPABLE = 0x184D2204, 0xFD2FB528, 0x184D2A50
_LZ4_BLOCK_BYTES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_ZSTD_BLOCK_BYTES = 128 << 10
_ZSTD_WINDOW = 1 << 27


def inflate(codec: int, data: bytes, limit: int) -> bytes | None:
    """Return the uncompressed bytes, or None if there may be more than ``limit``.

    The bytes belong to the caller, as ``data`` does: without a codec they are ``data`` itself.

    Raises:
        ValueError: the data is damaged, or the codec is not one of Kafka's.
    """
    try:
        if codec == NONE:
            return data if len(data) <= limit else None
        if codec == GZIP:
            return _gunzip(data, limit)
        if codec == SNAPPY:
            return snappy_decode(data) if sum(_snappy_sizes(data)) <= limit else None
        if codec == LZ4:
            return lz4_decode(data) if _lz4_bound(data) <= limit else None
        if codec == ZSTD:
            return zstd_decode(data) if _zstd_bound(data) <= limit else None
    except (cramjam.DecompressionError, zlib.error, IndexError) as error:
        raise ValueError(f"{_NAMES[codec]}: {error}") from error
    raise ValueError(f"codec {codec} is not one of Kafka's")


_NAMES = {NONE: "no codec", GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}


Pieces = Iterator[bytes | memoryview]


def pieces(codec: int, data: bytes) -> Pieces:
    """Yield the uncompressed bytes in order, at most :data:`PIECE_BYTES` at a time.

    Raises:
        ValueError: the data is damaged, or the codec is not one of Kafka's; pieces before the damage were yielded.
    """
    makers: dict[int, Callable[[bytes], Iterator[Any]]] = {
        NONE: _cut,
        GZIP: _gzip_pieces,
        SNAPPY: _snappy_pieces,
        LZ4: _lz4_pieces,
        ZSTD: _zstd_pieces,
    }
    if codec not in makers:
        raise ValueError(f"codec {codec} is not one of Kafka's")
    try:
        yield from makers[codec](data)
    except (cramjam.DecompressionError, zlib.error, zstandard.ZstdError, IndexError) as error:
        raise ValueError(f"{_NAMES[codec]}: {error}") from error


def _cut(data: bytes | bytearray | memoryview) -> Iterator[memoryview]:
    view = memoryview(data)
    for at in range(0, len(view), PIECE_BYTES):
        yield view[at : at + PIECE_BYTES]


def _number(data: bytes, at: int, size: int = 4) -> int:
    if at + size > len(data):
        raise ValueError("the data ends too early")
    return int.from_bytes(data[at : at + size], "little")


# gzip: zlib itself limits what one call returns.


def _gunzip(data: bytes, limit: int) -> bytes | None:
    found = b""
    for member in _gzip_members(data, limit + 1):
        found = found + member if found else member
        if len(found) > limit:
            return None
    return found


def _gzip_members(data: bytes, limit: int) -> Iterator[bytes]:
    """Yield runs of uncompressed bytes of at most ``limit``; a gzip file may have several members."""
    while data:
        member = zlib.decompressobj(_GZIP_WINDOW)
        while not member.eof:
            found = member.decompress(data, limit)
            data = member.unused_data if member.eof else member.unconsumed_tail
            if not found and not member.eof and not data:
                raise ValueError("gzip: the data ends too early")
            if found:
                yield found


def _gzip_pieces(data: bytes) -> Iterator[bytes]:
    return _gzip_members(data, PIECE_BYTES)


# snappy: one block, or Xerial's sequence of blocks, each with its uncompressed size.


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_XERIAL):
        yield data
        return
    at = _XERIAL_HEADER
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + size > len(data):
            raise ValueError("the data ends too early")
        yield data[at + 4 : at + 4 + size]
        at += 4 + size


def _snappy_sizes(data: bytes) -> Iterator[int]:
    for block in _snappy_blocks(data):
        size = int(cramjam.snappy.decompress_raw_len(block))
        if size > _SNAPPY_GROWTH * len(block) + PIECE_BYTES:
            raise ValueError(f"snappy: {len(block)} bytes cannot hold {size}")
        yield size


def _snappy_pieces(data: bytes) -> Iterator[memoryview]:
    for size, block in zip(_snappy_sizes(data), _snappy_blocks(data), strict=True):
        found = bytearray(size)
        cramjam.snappy.decompress_raw_into(block, found)
        yield from _cut(found)


# lz4: frames of independent blocks; a broker refuses blocks that refer to each other.


def _lz4_blocks(data: bytes) -> Iterator[tuple[memoryview, bool, int]]:
    """Yield each block: its bytes, whether it is compressed, and the largest size it can have uncompressed."""
    view = memoryview(data)
    at = 0
    while at < len(data):
        if _number(data, at) != _LZ4_MAGIC:
            raise ValueError("lz4: not a frame")
        flags = _number(data, at + 4, 1)
        largest = _LZ4_BLOCK_BYTES.get(_number(data, at + 5, 1) >> 4 & 7)
        if largest is None or flags >> 6 != 1 or flags & 0x01 or not flags & 0x20:
            raise ValueError("lz4: not a frame of independent blocks")
        at += 7 + (8 if flags & 0x08 else 0)
        while size := _number(data, at):
            compressed, size = size < 1 << 31, size & 0x7FFFFFFF
            if at + 4 + size > len(data):
                raise ValueError("lz4: the data ends too early")
            yield view[at + 4 : at + 4 + size], compressed, largest
            at += 4 + size + (4 if flags & 0x10 else 0)
        at += 4 + (4 if flags & 0x04 else 0)


def _lz4_bound(data: bytes) -> int:
    return sum(largest if compressed else len(block) for block, compressed, largest in _lz4_blocks(data))


def _lz4_pieces(data: bytes) -> Iterator[bytes | memoryview]:
    room = bytearray()
    for block, compressed, largest in _lz4_blocks(data):
        if not compressed:
            yield from _cut(block)
            continue
        room = room if len(room) == largest else bytearray(largest)
        size = int(cramjam.lz4.decompress_block_into(block, room, output_len=largest))
        for piece in _cut(memoryview(room)[:size]):
            yield bytes(piece)


# zstd: frames of blocks; each block has at most 128 KiB uncompressed, or says how often it repeats one byte.


def _zstd_bound(data: bytes) -> int:
    at = bound = 0
    while at < len(data):
        magic = _number(data, at)
        if magic & ~0xF == _SKIPPABLE:
            at += 8 + _number(data, at + 4)
            continue
        if magic != _ZSTD_MAGIC:
            raise ValueError("zstd: not a frame")
        flags = _number(data, at + 4, 1)
        single = flags & 0x20
        at += 5 + (0 if single else 1) + (0, 1, 2, 4)[flags & 3] + ((1 if single else 0), 2, 4, 8)[flags >> 6]
        last = False
        while not last:
            head = _number(data, at, 3)
            last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            bound += _ZSTD_BLOCK_BYTES if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
        at += 4 if flags & 4 else 0
    return bound


def _zstd_pieces(data: bytes) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).stream_reader(data, read_across_frames=True)
    while piece := reader.read(PIECE_BYTES):
        yield piece
