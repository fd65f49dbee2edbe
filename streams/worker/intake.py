"""What one fetch brought from one partition, and the buffer that proves that nothing between two fetches is missing.

Knows offsets only: no Kafka client, no SQL. Contiguity is the loss detector of the whole intake: whatever a consumer,
a rebalance or a full queue drops shows here as a start beyond the next offset, and is read again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Protocol

from billing.calculator.core_records import PackedRecords
from billing.commits.input_batch import InputBatch, Record

InputPartition = tuple[str, int]
"""(topic, partition)."""


class BrokerDown(Exception):
    """The broker did not answer; the question may be asked again."""


class Log(Protocol):
    """The partition's logs in Kafka, as :class:`streams.worker.transport.BatchConsumer` gives them."""

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        """Read again from these offsets."""

    async def end_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Log ends, read after the call; raises BrokerDown."""

    async def read_positions(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Where the consumer fetches next."""


def joined(parts: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Several runs of records as one; packed ones stay packed."""
    if len(parts) == 1:
        return parts[0]
    packed = [part for part in parts if isinstance(part, PackedRecords)]
    if len(packed) == len(parts):
        return PackedRecords.joined(packed)
    return [record for part in parts for record in part]


class Batch:
    """Consecutive records of one fetch of one topic partition.

    ``seeks`` is the number of seeks that the consumer had carried out on the partition when it took these records, so
    that records read before a rewind are told from those read after it.
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
        """Whether every offset between start and end is there (input topics have no transactions)."""
        return self.end - self.start == len(self.records)

    def from_offset(self, start: int) -> Batch:
        """The records from ``start`` on; ``start`` lies inside."""
        return Batch(self.records[start - self.start :], self.seeks)


class Offered(Enum):
    """What became of an offered batch."""

    TAKEN = "taken"
    STALE = "stale"
    """Nothing new in it, or read before the last rewind: dropped."""
    GAP = "gap"
    """It begins beyond the next offset: read again from :attr:`Intake.tail`."""
    HOLE = "hole"
    """An offset is missing from the log itself: inside the batch, or still missing after the re-read."""


class Intake:
    """The contiguous, not yet committed records of one input topic of one partition.

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
        """Append what is new in the batch; say why not, if not.

        After GAP the caller rewinds to ``tail``, and only batches read after that seek count.
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
        """The next at most ``limit`` records below ``until``; they stay buffered until :meth:`committed`."""
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
        """Everything below ``end`` is in SQL: forget it."""
        self.next = end
        while self._batches and self._batches[0].end <= end:
            done = self._batches.popleft()
            self.records -= len(done.records)
            self.size_bytes -= done.size_bytes

    def reset(self, position: int) -> None:
        """Forget what is buffered; the partition's position in SQL is ``position``."""
        self._batches.clear()
        self.records = self.size_bytes = 0
        self.next = self.tail = position
        self._rereading = False
