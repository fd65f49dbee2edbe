"""Batches of fetched records, and the buffer that checks that consecutive batches leave no gap.

This module works with offsets only; it uses neither a Kafka client nor SQL. Contiguous offsets are how the whole input
path detects loss: if a consumer, a rebalance or a full queue drops records, the next batch starts beyond the expected
offset, and the missing records are read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from billing.calculator.core_records import PackedRecords
from billing.commits.input_batch import InputBatch, Record

InputPartition = tuple[str, int]
"""(topic, partition); the topic without the installation's prefix."""


class BrokerDown(Exception):
    """The broker did not answer; the request may be retried."""


class Log(Protocol):
    """The partition's logs in Kafka; implemented by :class:`streams.worker.transport.BatchConsumer`."""

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        """Read again from these offsets."""

    async def end_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Return log end offsets, read after the call began; raises BrokerDown."""

    async def read_positions(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Return the offsets that the consumer fetches next."""


def joined(parts: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Return several runs of records as one; packed records stay packed."""
    if len(parts) == 1:
        return parts[0]
    packed = [part for part in parts if isinstance(part, PackedRecords)]
    if len(packed) == len(parts):
        return PackedRecords.joined(packed)
    return [record for part in parts for record in part]


class Batch:
    """Consecutive records of one fetch of one topic partition.

    ``seeks`` is the number of seeks the consumer had done on the partition when it took these records. It
    distinguishes records read before a rewind from records read after it.
    """

    __slots__ = ("end", "records", "seeks", "size_bytes", "start")

    def __init__(self, records: Sequence[Record], seeks: int = 0) -> None:
        self.records = records
        self.start = records[0].offset
        self.end = records[-1].offset + 1
        self.seeks = seeks
        self.size_bytes = (
            records.size_bytes
            if isinstance(records, PackedRecords)
            else sum(len(record.value or b"") for record in records)
        )

    @property
    def dense(self) -> bool:
        """True if every offset from start to end is present (input topics have no transactions)."""
        return self.end - self.start == len(self.records)

    def from_offset(self, start: int) -> Batch:
        """Return the records from offset ``start`` on; ``start`` must be inside the batch."""
        return Batch(self.records[start - self.start :], self.seeks)


class Offered(Enum):
    """Result of offering a batch to an :class:`Intake`."""

    TAKEN = "taken"
    STALE = "stale"
    """The batch was dropped: it holds no new records, or it was read before the last rewind."""
    GAP = "gap"
    """The batch begins beyond the next offset; the caller must read again from :attr:`Intake.tail`."""
    HOLE = "hole"
    """The log itself lacks an offset: inside the batch, or still missing after the records were read again."""


class Intake:
    """Buffer of the contiguous, uncommitted records of one input topic of one partition.

    ``next`` is the position in SQL, ``tail`` the offset after the last buffered record.
    """

    def __init__(self, topic: str, position: int) -> None:
        self.topic = topic
        self.next = position
        self.tail = position
        self.records = 0
        self.size_bytes = 0
        self._batches: deque[Batch] = deque()
        self._seeks_wanted = 0
        self._rereading = False

    def offer(self, batch: Batch) -> Offered:
        """Append the new records of the batch and return the result.

        After GAP the caller must rewind to ``tail``; batches read before that seek are then stale.
        """
        if batch.seeks < self._seeks_wanted or batch.end <= self.tail:
            return Offered.STALE
        if not batch.dense:
            return Offered.HOLE
        if batch.start > self.tail:
            if self._rereading:
                return Offered.HOLE
            self._seeks_wanted, self._rereading = batch.seeks + 1, True
            return Offered.GAP
        self._rereading = False
        if batch.start < self.tail:
            batch = batch.from_offset(self.tail)
        self._batches.append(batch)
        self.tail = batch.end
        self.records += len(batch.records)
        self.size_bytes += batch.size_bytes
        return Offered.TAKEN

    def peek(self, limit: int, until: int | None = None) -> InputBatch | None:
        """Return up to ``limit`` next records below offset ``until``; they stay buffered until :meth:`committed`."""
        end = min(self.tail if until is None else until, self.next + limit)
        if end <= self.next:
            return None
        parts: list[Sequence[Record]] = []
        for batch in self._batches:
            if batch.start >= end:
                break
            if batch.end <= end and batch.start >= self.next:
                parts.append(batch.records)
            else:
                parts.append(batch.records[max(0, self.next - batch.start) : end - batch.start])
        return InputBatch(self.topic, self.next, end, joined(parts))

    def committed(self, end: int) -> None:
        """Drop the records below ``end``, which are committed in SQL."""
        self.next = end
        while self._batches and self._batches[0].end <= end:
            done = self._batches.popleft()
            self.records -= len(done.records)
            self.size_bytes -= done.size_bytes

    def reset(self, position: int) -> None:
        """Drop all buffered records and start from ``position``, the partition's position in SQL."""
        self._batches.clear()
        self.records = self.size_bytes = 0
        self.next = self.tail = position
        self._rereading = False
