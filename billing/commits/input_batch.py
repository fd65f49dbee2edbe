"""The input of one commit: records and positions of the input topics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Record(Protocol):
    """One Kafka record as the consumer gives it (aiokafka's ``ConsumerRecord`` has this shape)."""

    @property
    def offset(self) -> int:
        """Place in its topic and partition."""

    @property
    def timestamp(self) -> int:
        """LogAppendTime in milliseconds since 1970."""

    @property
    def key(self) -> bytes | None:
        """The record's key."""

    @property
    def value(self) -> bytes | None:
        """The record's value."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes]]:
        """The record's headers."""


@dataclass(frozen=True, slots=True)
class PlainRecord:
    """A record that did not come from Kafka (``simulate``, tests)."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True)
class InputBatch:
    """Consecutive records ``[start, end)`` of one input topic of the partition; dense, in offset order."""

    topic: str
    start: int
    end: int
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class PositionMove:
    """The partition's position in one input topic moves from ``start`` to ``end`` (both are next offsets)."""

    topic: str
    start: int
    end: int
