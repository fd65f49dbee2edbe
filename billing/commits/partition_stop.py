"""A partition that is stopped: where, why, and since when. It stays stopped until a person resumes it.

A stop never loses a record: nothing from its offset on is committed. No I/O here.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

StopKind = Literal["missing", "deleted", "unreadable", "log_too_short", "forward_lost", "undecided"]
"""Kinds of a stop; docs/reference/command-line.md, "tokenbill partition", gives their meaning."""


@dataclass(frozen=True, slots=True)
class PartitionStop:
    """Why a partition stopped, and where.

    ``offset`` is the first offset of ``topic`` that is not decided, ``last`` the last one that cannot be; each is None
    where it is not known. A lost forward names its ``origin`` and the ``next_number`` that did arrive.
    """

    partition: int
    kind: StopKind
    reason: str
    topic: str | None = None
    offset: int | None = None
    last: int | None = None
    origin: int | None = None
    next_number: int | None = None

    @property
    def resume(self) -> str:
        """The command that goes on, after a person looked at the cause."""
        command = f"tokenbill partition resume {self.partition}"
        if self.topic is not None and self.last is not None:
            command += f" --topic {self.topic} --after {self.last}"
        return f"{command} --reason TEXT --requested-key FILE --approved-key FILE"


@dataclass(frozen=True, slots=True)
class StoppedPartition:
    """A stop as it is recorded: by which worker, and since when."""

    stop: PartitionStop
    worker: str
    since: datetime


def stopped_object(one: StoppedPartition) -> dict[str, Any]:
    """Return the JSON object of a stopped partition, for commands, health pages and webhooks."""
    stop = one.stop
    return {
        "partition": stop.partition,
        "kind": stop.kind,
        "topic": stop.topic,
        "offset": stop.offset,
        "last_offset": stop.last,
        "reason": stop.reason,
        "since": one.since.isoformat().replace("+00:00", "Z"),
        "worker": one.worker,
        "resume": stop.resume,
    }
