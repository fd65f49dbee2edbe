"""Replacement for aiokafka's record unpacking: reads fetched record batches without a Python object per record.

aiokafka creates ten Python objects per record; unpacking a fetch of ten thousand records took longer than deciding
them. This module keeps each record batch as bytes: it verifies the checksum, decompresses the batch and reads the
records in place (``cython_ext.records``). It relies on private names of aiokafka's fetcher, as
:mod:`streams.worker.transport` does, and is covered by the same contract test.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException, UnsupportedVersionError
from aiokafka.record.util import calc_crc32c

from billing.calculator.core_records import PackedRecords

_HEAD = struct.Struct(">qiibIhiqqqhii")
"""Kafka's record batch header: base offset, batch length, leader epoch, format (magic), checksum, attributes, last
offset delta, first timestamp, greatest timestamp, producer id, producer epoch, base sequence, number of records."""
_LENGTH = struct.Struct(">i")
_LENGTH_AT, _LENGTH_COUNTS_FROM, _CHECKED_FROM = 8, 12, 21
_FORMAT = 2
_CODEC, _LOG_APPEND_TIME, _CONTROL = 0x07, 0x08, 0x20
_DECODERS: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: gzip_decode,
    2: snappy_decode,
    3: lz4_decode,
    4: zstd_decode,
}


class KeptRecords(fetcher.MemoryRecords):  # type: ignore[misc]
    """aiokafka's record set, extended to keep the bytes it was made from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class PackedFetch:
    """The record batches of one fetch of one partition; replaces aiokafka's ``PartitionRecords``.

    Iteration yields one :class:`PackedRecords` per batch and advances ``next_fetch_offset``. Control batches (Kafka's
    transaction markers) are skipped; on an input topic the skipped offset is a hole, which the writer detects.
    """

    def __init__(self, place: object, data: bytes, fetch_offset: int, check_crcs: bool) -> None:
        self.next_fetch_offset = fetch_offset
        self._batches = _batches(place, data, check_crcs)

    def __iter__(self) -> PackedFetch:
        return self

    def __next__(self) -> PackedRecords:
        for next_offset, records in self._batches:
            wanted, self.next_fetch_offset = self.next_fetch_offset, next_offset
            if len(records) and records[0].offset < wanted:
                # The first batch of a fetch may begin before the requested offset.
                skipped = sum(1 for record in records if record.offset < wanted)
                records = records[skipped:]
            if len(records):
                return records
        raise StopIteration


class PackedResults(dict[Any, Any]):
    """The fetcher's results by partition; each result stored here is unpacked with :class:`PackedFetch`."""

    def __init__(self, results: dict[Any, Any], check_crcs: bool) -> None:
        super().__init__()
        self._check_crcs = check_crcs
        for place, result in results.items():
            self[place] = result

    def __setitem__(self, place: Any, result: Any) -> None:
        if type(result) is fetcher.FetchResult and type(result._partition_records) is fetcher.PartitionRecords:
            found = result._partition_records
            result._partition_records = PackedFetch(
                place, found._records.data, found.next_fetch_offset, self._check_crcs
            )
        super().__setitem__(place, result)


def _batches(place: object, data: bytes, check_crcs: bool) -> Iterator[tuple[int, PackedRecords]]:
    """Yield (offset after the batch, its records) for each complete batch; the broker may truncate the last one.

    Raises:
        CorruptRecordException: a checksum or a length is wrong.
        UnsupportedVersionError: the records have a format older than Kafka 0.11.
    """
    at = 0
    while at + _HEAD.size <= len(data):
        end = at + _LENGTH_COUNTS_FROM + int(_LENGTH.unpack_from(data, at + _LENGTH_AT)[0])
        if end > len(data):
            return
        base, _, _, form, crc, attributes, last_delta, first_ms, greatest_ms, _, _, _, count = _HEAD.unpack_from(
            data, at
        )
        if form != _FORMAT:
            raise UnsupportedVersionError(f"{place} offset {base}: record format {form}, only {_FORMAT} can be read")
        if check_crcs and calc_crc32c(memoryview(data)[at + _CHECKED_FROM : end]) != crc:
            raise CorruptRecordException(f"{place} offset {base}: the record batch does not have its checksum")
        if not attributes & _CONTROL:
            append_ms = greatest_ms if attributes & _LOG_APPEND_TIME else None
            try:
                body = _DECODERS[attributes & _CODEC](data[at + _HEAD.size : end])
                records = PackedRecords.read(body, count, base, first_ms, append_ms)
            except (ValueError, KeyError) as error:
                raise CorruptRecordException(f"{place} offset {base}: {error}") from error
            yield base + last_delta + 1, records
        else:
            yield base + last_delta + 1, PackedRecords.joined([])
        at = end


def install() -> None:
    """Make aiokafka's fetchers keep the bytes they fetch; other consumers behave as before."""
    fetcher.MemoryRecords = KeptRecords


def unpack_results(of: fetcher.Fetcher) -> None:
    """Make one fetcher unpack with :class:`PackedFetch`, including the results it has already fetched."""
    if type(of._records) is not PackedResults:
        of._records = PackedResults(of._records, of._check_crcs)
