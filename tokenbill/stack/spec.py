"""Specification of a supervised process as data; the supervisor does not depend on Kafka, PostgreSQL or Faust."""

from __future__ import annotations

import dataclasses
import signal
from dataclasses import dataclass, field
from typing import Any, Literal

ReadyKind = Literal["http", "kafka", "postgresql", "tcp", "none"]


@dataclass(frozen=True)
class ReadyCheck:
    """Readiness check of a process; `target` is a URL (http, postgresql) or `host:port` (kafka, tcp)."""

    kind: ReadyKind = "none"
    target: str = ""
    timeout_seconds: float = 60.0


@dataclass(frozen=True)
class ProcessSpec:
    """Specification of one process of the stack.

    Processes stop in descending order of `phase`. `user` is set if the process must not run as the current user.
    `leftover_cwd` is a folder that only this process uses: after its death, any process still working there is its
    orphaned child, which is waited for and then killed before the process starts again. `stale_files` are then removed.
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
