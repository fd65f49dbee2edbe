"""What aiokafka's fetcher keeps of a fetch, unpacked without an object for each record.

aiokafka makes ten Python objects of a record; a fetch of ten thousand took longer than deciding them. Here the batches
of a fetch stay as they are: checked, decompressed, and read in place (``cython_ext.records``). Stands on private names
of aiokafka's fetcher, like :mod:`streams.worker.transport`, and is tested with it.
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
"""Base offset, length, leader epoch, format, checksum, attributes, last offset delta, first and greatest timestamp,
producer, its epoch, base sequence, number of records."""
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
    """aiokafka's record set, which also keeps the bytes it was made from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class PackedFetch:
    """The batches of one fetch of one partition, in the place of aiokafka's ``PartitionRecords``.

    Iterating gives :class:`PackedRecords`, one for each batch, and moves ``next_fetch_offset``. Batches of Kafka itself
    (the ends of transactions) are left out; on an input topic that is a hole, which the writer finds.
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
                # The first batch of a fetch begins before what was asked for.
                skipped = sum(1 for record in records if record.offset < wanted)
                records = records[skipped:]
            if len(records):
                return records
        raise StopIteration


class PackedResults(dict[Any, Any]):
    """The fetcher's results by partition: what is put in is unpacked our way when it is taken."""

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
    """(the offset after it, its records) of each batch that is whole: the broker cuts the last one off where it likes.

    Raises:
        CorruptRecordException: a checksum or a length is wrong.
        UnsupportedVersionError: records of a format before Kafka 0.11.
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
    """Let aiokafka's fetchers keep the bytes of what they fetch; nothing else changes for another consumer."""
    fetcher.MemoryRecords = KeptRecords


def unpack_results(of: fetcher.Fetcher) -> None:
    """Let one fetcher unpack our way from now on, what it has fetched already included."""
    if type(of._records) is not PackedResults:
        of._records = PackedResults(of._records, of._check_crcs)
