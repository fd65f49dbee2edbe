"""State of the stack of a data folder, read from its files and the process table; nothing is changed."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from tokenbill.stack import processes
from tokenbill.stack.config import StackConfig
from tokenbill.stack.control import read_desired
from tokenbill.stack.files import is_locked, read_json
from tokenbill.stack.layout import Layout
from tokenbill.stack.processes import ProcessIdentity
from tokenbill.stack.spec import ProcessSpec

API = "api"
SUPERVISOR, STANDBY = "supervisor", "supervisor-standby"


@dataclass(frozen=True)
class ProcessInfo:
    """A process of the stack; `pid` is None if it is not running at this moment."""

    name: str
    pid: int | None
    restarts: int


@dataclass(frozen=True)
class StackInfo:
    """State of a stack at one moment.

    `database_url` is the application's URL of the database; None before the database is prepared. Both URLs name the
    stack's password file instead of a password.
    """

    data_dir: Path
    kafka: str | None
    database_url: str | None
    admin_database_url: str | None
    partitions: int | None
    parts: dict[str, str]
    ports: dict[str, int]
    processes: tuple[ProcessInfo, ...]

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each running process, by name."""
        return {one.name: one.pid for one in self.processes if one.pid is not None}

    @property
    def api(self) -> str | None:
        """The URL of the HTTP API; None if the stack does not run it."""
        wanted = any(one.name == API for one in self.processes)
        return f"http://127.0.0.1:{self.ports[API]}" if wanted else None

    @property
    def restarts(self) -> dict[str, int]:
        return {one.name: one.restarts for one in self.processes}

    @property
    def running(self) -> bool:
        """True if a supervisor is in charge and every desired process runs, whether or not it is ready."""
        return bool(self.processes) and all(one.pid is not None for one in self.processes if one.name != STANDBY)


def info(data_dir: Path | str | None = None) -> StackInfo:
    """Return the state of a data folder's stack; it has no processes if it was never started or was stopped."""
    layout = Layout.of(data_dir)
    config = StackConfig.load(layout)
    return StackInfo(
        data_dir=layout.root,
        kafka=config.kafka if config else None,
        database_url=config.database_url if config else None,
        admin_database_url=config.admin_database_url if config else None,
        partitions=config.partitions if config else None,
        parts=dict(config.parts) if config else {},
        ports=dict(config.ports) if config else {},
        processes=_processes(layout),
    )


def _processes(layout: Layout) -> tuple[ProcessInfo, ...]:
    wanted = read_desired(layout)
    if wanted is None:
        return ()
    state = read_json(layout.state) or {"processes": {}}
    listed = [
        ProcessInfo(
            name, _pid(processes.recorded(layout, name)), int(state["processes"].get(name, {}).get("restarts", 0))
        )
        for name in wanted
    ]
    standby = standby_pid(layout)
    listed.append(ProcessInfo(SUPERVISOR, _pid(supervisor_in_charge(layout)), 0))
    if standby is not None:
        listed.append(ProcessInfo(STANDBY, standby, 0))
    return tuple(listed)


def _pid(identity: ProcessIdentity | None) -> int | None:
    return identity.pid if identity is not None and identity.alive() else None


def supervisor_in_charge(layout: Layout) -> ProcessIdentity | None:
    """Return the supervisor that holds the lock and has written so into its file, or None."""
    if not is_locked(layout.supervisor_lock):
        return None
    holder = read_json(layout.supervisor_lock)
    if holder is None:
        return None
    identity = ProcessIdentity.from_json(holder)
    return identity if identity.alive() else None


def standby_pid(layout: Layout) -> int | None:
    """Return the pid of the standby supervisor, or None."""
    if not is_locked(layout.standby_lock):
        return None
    with contextlib.suppress(ValueError):
        return int(layout.standby_lock.read_text(encoding="utf-8"))
    return None


def specs_of_living(layout: Layout) -> dict[str, ProcessSpec]:
    """Return the specs of the living processes by name, whether or not a supervisor watches them."""
    value = read_json(layout.desired) or {"specs": []}
    specs = [ProcessSpec.from_json(item) for item in value["specs"]]
    return {spec.name: spec for spec in specs if _pid(processes.recorded(layout, spec.name)) is not None}
