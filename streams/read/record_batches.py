"""The record batches of one partition's log, read as steps of its position: records, or offsets without records.

Kafka's transactions leave offsets that hold no record to read: the markers that end a transaction, and the records of
an aborted one. They are steps of the position like any others, and are counted as skipped. So every offset of the log
is accounted for, and an offset that is in no step is missing from the log.

Memory is bounded: an ordinary batch is decompressed at once; one that holds more than
:data:`schemas.record_sizes.LARGEST_RECORD` is decompressed piece by piece and read record by record. A record larger
than that is replaced by one without value, with the header :data:`schemas.topics.RECORD_SIZE_HEADER`; the rules reject
it. No Kafka client is used here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from aiokafka.record.util import calc_crc32c, encode_varint

from billing.calculator.core_records import PackedRecords
from schemas.topics import RECORD_SIZE_HEADER
from streams.read.inflate import inflate, pieces

_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Kafka's record batch header: base offset, batch length, leader epoch, format (magic), checksum, attributes, last
offset delta, first timestamp, greatest timestamp, producer id, producer epoch, base sequence, number of records."""
_LENGTH = struct.Struct(">i")
_LENGTH_AT, _LENGTH_COUNTS_FROM, _CHECKED_FROM = 8, 12, 21
_FORMAT = 2
_CODEC, _LOG_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_MARKER = struct.Struct(">hh")
_ABORTED = 0
_PAUSE_BYTES: Final = 32 << 20
"""Uncompressed bytes of a record that are passed over in one step, so that a reader is never held up for long."""
_MAX_VARINT = 10
_KEY_SHOWN: Final = 1 << 10
"""Longest key that is kept of a record whose bytes are not read."""
_ROW_BYTES: Final = 64
"""Memory of a record beside its bytes."""


class UnreadableBatch(ValueError):
    """A record batch cannot be read: its checksum, its length, its codec or its records are wrong."""


@dataclass(frozen=True, slots=True)
class LogStep:
    """A step of the position from ``start`` to ``end``: records with these offsets, or none.

    A step from ``start`` to ``start`` only says that the reader is still busy with a large record. ``problem`` says why
    the offsets of the step cannot be read.
    """

    start: int
    end: int
    records: PackedRecords
    skipped: int = 0
    """Number of offsets that hold no record to read: transaction markers and aborted records."""
    problem: str | None = None

    @property
    def held_bytes(self) -> int:
        """Memory that the step holds, in bytes."""
        return self.records.held_bytes + _ROW_BYTES * len(self.records)

    def from_offset(self, offset: int) -> LogStep:
        """Return the part of the step from ``offset`` on: a fetch may begin inside a batch."""
        if self.start >= offset or self.start == self.end:
            return self
        before = sum(1 for record in self.records if record.offset < offset)
        skipped = max(0, self.skipped - (offset - self.start))
        return LogStep(offset, self.end, self.records[before:], skipped, self.problem)


_NO_RECORDS = PackedRecords.joined([])


class BatchSteps:
    """The steps of one fetch, from ``fetch_offset`` on; ``next_offset`` is the position after those taken so far.

    ``aborted`` are the aborted transactions that the broker names for the fetched offsets: producer and first offset.
    """

    def __init__(
        self,
        data: bytes,
        fetch_offset: int,
        *,
        largest_record: int,
        check_crcs: bool = True,
        aborted: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.next_offset = fetch_offset
        self.done = False
        self._largest = largest_record
        self._check_crcs = check_crcs
        self._aborted = sorted(aborted, key=lambda one: one[1], reverse=True)
        self._aborting: set[int] = set()
        self._steps = self._read(data)
        self._held: LogStep | None = None

    def take(self, max_steps: int | None, max_bytes: int) -> list[LogStep]:
        """Return the next steps, at most about ``max_bytes``; a step with a problem is returned alone."""
        taken: list[LogStep] = []
        size = 0
        while not self.done and (max_steps is None or len(taken) < max_steps) and size < max_bytes:
            step, self._held = self._held, None
            if step is None:
                step = next(self._steps, None)
            if step is None:
                self.done = True
                break
            if step.problem is not None and taken:
                self._held = step
                break
            taken.append(step)
            self.next_offset = max(self.next_offset, step.end)
            size += step.held_bytes
            if step.start == step.end or step.problem is not None:
                break
        return taken

    def _read(self, data: bytes) -> Iterator[LogStep]:
        at, wanted = 0, self.next_offset
        while at + _HEAD.size <= len(data):
            end = at + _LENGTH_COUNTS_FROM + int(_LENGTH.unpack_from(data, at + _LENGTH_AT)[0])
            if end > len(data):
                return  # The broker cuts off the last batch of a fetch.
            base, last_delta = _HEAD.unpack_from(data, at)[0], _HEAD.unpack_from(data, at)[6]
            try:
                for step in self._batch(data, at, end):
                    if step.end > wanted or step.start == step.end:
                        yield step.from_offset(wanted)
                    wanted = max(wanted, step.end)
            except UnreadableBatch as error:
                # Where the length of the batch is wrong, nothing after it can be read either.
                after = max(base + last_delta + 1, wanted + 1) if last_delta >= 0 else wanted + 1
                yield LogStep(
                    wanted, after, _NO_RECORDS, 0, f"the record batch at offset {base} cannot be read: {error}"
                )
                wanted = after
            if end < at + _HEAD.size:
                return
            at = end

    def _batch(self, data: bytes, at: int, end: int) -> Iterator[LogStep]:
        base, _, _, form, crc, attributes, last_delta, first_ms, greatest_ms, producer, _, _, count = _HEAD.unpack_from(
            data, at
        )
        if form != _FORMAT:
            raise UnreadableBatch(f"its format is {form}, only {_FORMAT} can be read")
        if end < at + _HEAD.size:
            raise UnreadableBatch("its length is wrong")
        if self._check_crcs and calc_crc32c(memoryview(data)[at + _CHECKED_FROM : end]) != crc:
            raise UnreadableBatch("it does not have its checksum")
        append_ms = greatest_ms if attributes & _LOG_APPEND_TIME else None
        codec = attributes & _CODEC
        try:
            if attributes & (_TRANSACTIONAL | _CONTROL) and self._is_skipped(data, at, end, base, attributes, producer):
                yield LogStep(base, base + last_delta + 1, _NO_RECORDS, last_delta + 1)
                return
            body = inflate(codec, data[at + _HEAD.size : end], self._largest)
            if body is not None:
                records = PackedRecords.read(body, count, base, first_ms, append_ms)
                # Offsets that a batch has lost to compaction are holes: input topics are not compacted.
                yield LogStep(base, base + last_delta + 1, records)
                return
            yield from _streamed(
                pieces(codec, data[at + _HEAD.size : end]), count, base, first_ms, append_ms, self._largest
            )
        except ValueError as error:
            raise UnreadableBatch(str(error)) from error

    def _is_skipped(self, data: bytes, at: int, end: int, base: int, attributes: int, producer: int) -> bool:
        """Return True for a marker of a transaction and for a batch of an aborted one."""
        while self._aborted and self._aborted[-1][1] <= base:
            self._aborting.add(self._aborted.pop()[0])
        if attributes & _CONTROL:
            (marker,) = PackedRecords.read(data[at + _HEAD.size : end], 1, base, 0, None)
            if marker.key is not None and _MARKER.unpack(marker.key[: _MARKER.size])[1] == _ABORTED:
                self._aborting.discard(producer)
            return True
        return producer in self._aborting


def _streamed(
    of: Iterator[bytes | memoryview], count: int, base: int, first_ms: int, append_ms: int | None, largest: int
) -> Iterator[LogStep]:
    """Yield the records of a batch that is not held as a whole, in runs of about a piece.

    Raises:
        ValueError: the batch does not hold ``count`` whole records.
    """
    buffer = bytearray()
    wanted, left, at = 1, count, base
    for piece in of:
        buffer += piece
        while left and len(buffer) >= wanted:
            body = bytes(buffer)
            records, used = PackedRecords.read_part(body, left, base, first_ms, append_ms, largest)
            if used:
                del buffer[:used]
                left -= len(records)
                yield LogStep(at, records[-1].offset + 1, records)
                at = records[-1].offset + 1
                wanted = 1
                continue
            size, head = _length(body)
            if size is None:
                wanted = len(buffer) + 1
            elif size > largest:
                wanted = min(head + size, head + 3 * _MAX_VARINT + _KEY_SHOWN)
                if len(buffer) < wanted:
                    continue
                replaced = _replaced(body[head:], size, base, first_ms, append_ms)
                yield from _pass_over(of, buffer, head + size, at)
                left -= 1
                yield LogStep(at, replaced[0].offset + 1, replaced)
                at = replaced[0].offset + 1
                wanted = 1
            elif len(buffer) < head + size:
                wanted = head + size
            else:
                raise ValueError(f"its record at offset {at} is damaged")
    if left or buffer:
        raise ValueError(f"it does not hold {count} whole records")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the zigzag varint at ``at`` and the position after it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7


def _length(body: bytes) -> tuple[int | None, int]:
    """Return the length that a record begins with, and the bytes that it takes; None if it is not complete."""
    try:
        size, head = _varint(body[:_MAX_VARINT], 0)
    except IndexError:
        if len(body) < _MAX_VARINT:
            return None, 0
        raise ValueError("a record has no length") from None
    if size <= 0:
        raise ValueError(f"a record has the length {size}")
    return size, head


def _pass_over(of: Iterator[bytes | memoryview], buffer: bytearray, size: int, at: int) -> Iterator[LogStep]:
    """Drop ``size`` bytes; yield an empty step from time to time."""
    passed = 0
    while len(buffer) < size:
        size -= len(buffer)
        passed += len(buffer)
        buffer.clear()
        piece = next(of, None)
        if piece is None:
            raise ValueError("its last record is cut off")
        buffer += piece
        if passed >= _PAUSE_BYTES:
            passed = 0
            yield LogStep(at, at, _NO_RECORDS)
    del buffer[:size]


def _replaced(read: bytes, size: int, base: int, first_ms: int, append_ms: int | None) -> PackedRecords:
    """Return a record of ``size`` bytes, of which the first are given, without its value and without a long key."""
    time_delta, at = _varint(read, 1)
    offset_delta, at = _varint(read, at)
    key_size, at = _varint(read, at)
    key = read[at : at + key_size] if 0 <= key_size <= _KEY_SHOWN else None
    name, text = RECORD_SIZE_HEADER.encode(), str(size).encode()
    body = bytearray(1)
    for number in (time_delta, offset_delta, -1 if key is None else len(key)):
        encode_varint(number, body.append)
    body += key or b""
    for number in (-1, 1, len(name)):
        encode_varint(number, body.append)
    body += name
    encode_varint(len(text), body.append)
    body += text
    whole = bytearray()
    encode_varint(len(body), whole.append)
    return PackedRecords.read(bytes(whole + body), 1, base, first_ms, append_ms)
