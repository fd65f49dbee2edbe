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
from streams.read.record_batches import LogStep

InputPartition = tuple[str, int]
"""(topic, partition); the topic without the installation's prefix."""


class Log(Protocol):
    """The partition's logs in Kafka; implemented by :class:`streams.worker.transport.BatchConsumer`."""

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        """Read again from these offsets."""

    async def end_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Return log end offsets, read after the call began; raises BrokerDown."""

    async def start_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        """Return the first offsets that the logs still hold; raises BrokerDown."""

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


OffsetRange = tuple[int, int]
"""A half-open range of offsets."""


class Batch:
    """Consecutive offsets of one fetch of one topic partition, with their records.

    ``skips`` are the offsets that hold no record to read: transaction markers and aborted records. ``seeks`` is the
    number of seeks the consumer had done on the partition when it took these records. It distinguishes records read
    before a rewind from records read after it. ``problem`` says why the offsets cannot be read; then there are no
    records.
    """

    __slots__ = ("end", "problem", "records", "seeks", "size_bytes", "skips", "start")

    def __init__(
        self,
        records: Sequence[Record],
        seeks: int = 0,
        *,
        skips: Sequence[OffsetRange] = (),
        problem: str | None = None,
        span: OffsetRange | None = None,
    ) -> None:
        """``span`` is given where there are no records."""
        self.records = records
        self.skips = skips
        self.problem = problem
        starts = [first for first, _ in skips[:1]]
        ends = [last for _, last in skips[-1:]]
        if len(records):
            starts.append(records[0].offset)
            ends.append(records[-1].offset + 1)
        self.start, self.end = (min(starts), max(ends)) if span is None else span
        self.seeks = seeks
        self.size_bytes = (
            records.held_bytes
            if isinstance(records, PackedRecords)
            else sum(len(record.value or b"") for record in records)
        )

    @classmethod
    def of_steps(cls, steps: Sequence[LogStep], seeks: int) -> Batch:
        """Return the steps of one fetch, at least one, as one batch."""
        records = joined([step.records for step in steps])
        skips = tuple((step.start, step.end) for step in steps if step.skipped)
        return cls(records, seeks, skips=skips, problem=steps[-1].problem, span=(steps[0].start, steps[-1].end))

    @property
    def dense(self) -> bool:
        """True if every offset from start to end has a record or is skipped."""
        return self.problem is None and self.end - self.start == len(self.records) + self.skipped(self.start, self.end)

    def skipped(self, start: int, end: int) -> int:
        """Return the number of skipped offsets from ``start`` up to ``end``."""
        if not self.skips:
            return 0
        return sum(max(0, min(last, end) - max(first, start)) for first, last in self.skips)

    def missing(self, expected: int) -> OffsetRange:
        """Return the first run of offsets, from ``expected`` on, that the batch does not have (inclusive)."""
        held = sorted([*self.skips, *((one.offset, one.offset + 1) for one in self.records)])
        for first, last in held:
            if first > expected:
                return expected, first - 1
            expected = max(expected, last)
        return expected, max(expected, self.end - 1)

    def part(self, start: int, end: int) -> Sequence[Record]:
        """Return the records with offsets from ``start`` up to ``end``; the batch must be dense."""
        if start <= self.start and end >= self.end:
            return self.records
        return self.records[self._index(start) : self._index(end)]

    def _index(self, offset: int) -> int:
        """Return the number of records before ``offset``."""
        within = min(max(offset, self.start), self.end)
        return within - self.start - self.skipped(self.start, within)

    def from_offset(self, start: int) -> Batch:
        """Return the part from offset ``start`` on; ``start`` must be inside the batch."""
        skips = tuple((max(first, start), last) for first, last in self.skips if last > start)
        return Batch(self.part(start, self.end), self.seeks, skips=skips, span=(start, self.end))


class Offered(Enum):
    """Result of offering a batch to an :class:`Intake`."""

    TAKEN = "taken"
    STALE = "stale"
    """The batch was dropped: it holds no new records, or it was read before the last rewind."""
    GAP = "gap"
    """The batch begins beyond the next offset or cannot be read; the caller must read again from the tail."""
    HOLE = "hole"
    """The log itself lacks an offset or cannot be read: inside the batch, or still after it was read again."""


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
        if batch.problem is None and not batch.dense:
            return Offered.HOLE
        if batch.start > self.tail or batch.problem is not None:
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

    @property
    def pending(self) -> bool:
        """True if offsets are buffered that are not committed, with or without records."""
        return self.tail > self.next

    def peek(self, limit: int, until: int | None = None) -> InputBatch | None:
        """Return the next ``limit`` offsets below ``until``; they stay buffered until :meth:`committed`."""
        end = min(self.tail if until is None else until, self.next + limit)
        if end <= self.next:
            return None
        parts: list[Sequence[Record]] = []
        skipped = 0
        for batch in self._batches:
            if batch.start >= end:
                break
            parts.append(batch.part(self.next, end))
            skipped += batch.skipped(self.next, end)
        return InputBatch(self.topic, self.next, end, joined(parts), skipped)

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
