"""Input of one commit: records of the input topics, and the moves of their positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """Interface of one Kafka record as the consumer returns it. aiokafka's ``ConsumerRecord`` satisfies it."""

    @property
    def offset(self) -> int:
        """Offset of the record in its topic and partition."""

    @property
    def timestamp(self) -> int:
        """LogAppendTime in milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """Key of the record."""

    @property
    def value(self) -> bytes | None:
        """Value of the record."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Headers of the record, in order."""


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """A record of plain values, for input that is not the consumer's: ``simulate``, quotes, replays, tests."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class InputBatch:
    """Consecutive offsets ``[start, end)`` of one input topic of the partition, with their records in offset order.

    Every offset has a record, except the ``skipped`` ones: markers of Kafka's transactions, and aborted records.
    """

    topic: str
    start: int
    end: int
    records: Sequence[Record]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class PositionMove:
    """Move of the partition's position in one input topic from ``start`` to ``end``. Both are next offsets.

    ``skipped`` of the offsets between have no record that was decided (:class:`InputBatch`).
    """

    topic: str
    start: int
    end: int
    skipped: int = 0

    @property
    def records(self) -> int:
        """Number of records that were decided."""
        return self.end - self.start - self.skipped
