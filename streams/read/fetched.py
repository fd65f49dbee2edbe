"""Replacement for aiokafka's record unpacking: reads fetched record batches without a Python object per record.

aiokafka creates ten Python objects per record; unpacking a fetch of ten thousand records took longer than deciding
them. With :func:`unpack_results` a consumer returns the :class:`~streams.read.record_batches.LogStep` objects of each
partition instead of records. This module relies on private names of aiokafka's fetcher and is covered by the contract
test of the transport.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aiokafka.consumer import fetcher

from schemas.record_sizes import LARGEST_INPUT
from streams.read.record_batches import BatchSteps, LogStep

_TAKEN_BYTES = 32 << 20
"""Uncompressed bytes that one poll returns of a partition; a single step may exceed it."""

LargestRecord = Callable[[str], int]
"""Returns the largest record of a topic, by its name in Kafka."""


class KeptRecords(fetcher.MemoryRecords):  # type: ignore[misc]
    """aiokafka's record set, extended to keep the bytes it was made from."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.data = data


class PackedFetch:
    """The steps of one fetch of one partition; replaces aiokafka's ``PartitionRecords``."""

    def __init__(self, found: fetcher.PartitionRecords, largest_record: int) -> None:
        self.steps = BatchSteps(
            found._records.data,
            found.next_fetch_offset,
            largest_record=largest_record,
            check_crcs=found._check_crcs,
            aborted=found._aborted_transactions,
        )

    @property
    def next_fetch_offset(self) -> int:
        """The position after the steps taken so far; the name is aiokafka's."""
        return self.steps.next_offset


def _take(result: fetcher.FetchResult, max_records: int | None = None) -> list[LogStep]:
    """Return the next steps of a fetch; replaces ``FetchResult.getall``, which would read the fetch to its end."""
    if not result.check_assignment(result._topic_partition) or not result.has_more():
        return []
    fetch: PackedFetch = result._partition_records
    steps = fetch.steps.take(max_records, _TAKEN_BYTES)
    result._update_position()
    if fetch.steps.done:
        result._partition_records = None
    return steps


class PackedResults(dict[Any, Any]):
    """The fetcher's results by partition; each result stored here is unpacked with :class:`PackedFetch`."""

    def __init__(self, results: dict[Any, Any], largest_record: LargestRecord) -> None:
        super().__init__()
        self._largest_record = largest_record
        for place, result in results.items():
            self[place] = result

    def __setitem__(self, place: Any, result: Any) -> None:
        if type(result) is fetcher.FetchResult and type(result._partition_records) is fetcher.PartitionRecords:
            result._partition_records = PackedFetch(result._partition_records, self._largest_record(place.topic))
            result.getall = partial(_take, result)
        super().__setitem__(place, result)


def install() -> None:
    """Make aiokafka's fetchers keep the bytes they fetch; other consumers behave as before."""
    fetcher.MemoryRecords = KeptRecords


def unpack_results(of: fetcher.Fetcher, largest_record: LargestRecord = lambda topic: LARGEST_INPUT) -> None:
    """Make one fetcher unpack with :class:`PackedFetch`, including the results it has already fetched."""
    if type(of._records) is not PackedResults:
        of._records = PackedResults(of._records, largest_record)
