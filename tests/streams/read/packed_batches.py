"""Record batches as a broker stores them, for tests: any codec, transaction and marker, and records of any size."""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import cramjam
import zstandard
from aiokafka.record.util import calc_crc32c, encode_varint

from streams.read.inflate import GZIP, LZ4, NONE, SNAPPY, ZSTD

HEAD = struct.Struct(">qiibIhiqqqhii")
CODECS = {"none": NONE, "gzip": GZIP, "snappy": SNAPPY, "lz4": LZ4, "zstd": ZSTD}
TRANSACTIONAL, CONTROL = 0x10, 0x20
Header = tuple[str, bytes | None]


def varint(value: int) -> bytes:
    written = bytearray()
    encode_varint(value, written.append)
    return bytes(written)


def _part(data: bytes | None) -> bytes:
    return varint(-1) if data is None else varint(len(data)) + data


def record(number: int, value: bytes | None, key: bytes | None = b"k", headers: Sequence[Header] = ()) -> bytes:
    """Return the bytes of the record with an offset delta."""
    body = b"\0" + varint(0) + varint(number) + _part(key) + _part(value) + varint(len(headers))
    body += b"".join(_part(name.encode()) + _part(content) for name, content in headers)
    return varint(len(body)) + body


def large_record(number: int, size: int, key: bytes = b"k") -> Iterator[bytes]:
    """Yield the bytes of a record with ``size`` equal bytes of value, in pieces."""
    head = b"\0" + varint(0) + varint(number) + _part(key) + varint(size)
    yield varint(len(head) + size + 1) + head
    piece = b"x" * (1 << 20)
    for at in range(0, size, len(piece)):
        yield piece[: min(len(piece), size - at)]
    yield varint(0)


def _lz4(parts: Iterable[bytes]) -> bytes:
    """Return a frame of independent blocks of 4 MiB."""
    blocks = bytearray()
    for block in _in_blocks(parts, 4 << 20):
        packed = bytes(cramjam.lz4.compress_block(block, store_size=False))
        blocks += struct.pack("<I", len(packed)) + packed
    # The last byte of the head is a checksum of the two before it.
    return bytes.fromhex("04224d186070") + b"\x73" + bytes(blocks) + b"\0\0\0\0"


def _xerial(parts: Iterable[bytes]) -> bytes:
    blocks = [bytes(cramjam.snappy.compress_raw(block)) for block in _in_blocks(parts, 32 << 10)]
    head = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
    return head + b"".join(struct.pack(">i", len(block)) + block for block in blocks)


def _in_blocks(parts: Iterable[bytes], size: int) -> Iterator[bytes]:
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _zstd(parts: Iterable[bytes]) -> bytes:
    packer = zstandard.ZstdCompressor().compressobj()
    return b"".join(packer.compress(part) for part in parts) + packer.flush()


def _gzip(parts: Iterable[bytes]) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(part) for part in parts) + packer.flush()


PACKERS: dict[int, Callable[[Iterable[bytes]], bytes]] = {
    NONE: b"".join,
    GZIP: _gzip,
    SNAPPY: _xerial,
    LZ4: _lz4,
    ZSTD: _zstd,
}


def batch(
    base: int,
    parts: Iterable[bytes],
    count: int,
    codec: int = NONE,
    *,
    attributes: int = 0,
    producer: int = -1,
    packed: bytes | None = None,
    last_delta: int | None = None,
) -> bytes:
    """Return a record batch with its checksum; ``packed`` replaces the compressed records."""
    body = PACKERS[codec](parts) if packed is None else packed
    delta = count - 1 if last_delta is None else last_delta
    head = bytearray(
        HEAD.pack(base, HEAD.size - 12 + len(body), -1, 2, 0, codec | attributes, delta, 5, 5, producer, 0, 0, count)
    )
    struct.pack_into(">I", head, 17, calc_crc32c(bytes(head[21:]) + body))
    return bytes(head) + body


def values(base: int, *of: bytes | None, codec: int = NONE, attributes: int = 0, producer: int = -1) -> bytes:
    """Return a batch of records with these values."""
    parts = [record(number, value) for number, value in enumerate(of)]
    return batch(base, parts, len(of), codec, attributes=attributes, producer=producer)


def marker(base: int, producer: int, *, committed: bool) -> bytes:
    """Return the control batch that ends a transaction."""
    key = struct.pack(">hh", 0, 1 if committed else 0)
    part = record(0, struct.pack(">hi", 0, 0), key)
    return batch(base, [part], 1, attributes=TRANSACTIONAL | CONTROL, producer=producer)


def gzip_of(*members: bytes) -> bytes:
    return b"".join(gzip.compress(one) for one in members)
