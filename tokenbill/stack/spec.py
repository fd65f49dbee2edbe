"""What a supervised process is, as data: the supervisor knows nothing about Kafka, PostgreSQL or our workers."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import dataclass, field
from typing import Any, Literal

ReadyKind = Literal["http", "kafka", "postgresql", "tcp", "none"]


@dataclass(frozen=True)
class ReadyCheck:
    """How to see that a process serves: `target` is a URL (http, postgresql) or `host:port` (kafka, tcp)."""

    kind: ReadyKind = "none"
    target: str = ""
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class ProcessSpec:
    """One process of the stack.

    `phase` orders starting (upwards) and stopping (downwards). `user` is set where the process must not run as us.
    `leftover_cwd` names a folder that belongs to this process alone: what still works there after its death is its
    orphaned child, and is waited for and ended before the process starts again; `stale_files` are then removed.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str] = field(default_factory=dict)
    user: str | None = None
    group: str | None = None
    ready: ReadyCheck = ReadyCheck()
    stop_signal: int = signal.SIGTERM
    stop_timeout_seconds: float = 20.0
    phase: int = 1
    leftover_cwd: str | None = None
    stale_files: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProcessSpec:
        fields = dict(value)
        fields["argv"] = tuple(fields["argv"])
        fields["stale_files"] = tuple(fields["stale_files"])
        fields["ready"] = ReadyCheck(**fields["ready"])
        return cls(**fields)
