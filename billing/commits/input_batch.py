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
    """Consecutive records ``[start, end)`` of one input topic of the partition, in offset order and without gaps."""

    topic: str
    start: int
    end: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class PositionMove:
    """Move of the partition's position in one input topic from ``start`` to ``end``. Both are next offsets."""

    topic: str
    start: int
    end: int
