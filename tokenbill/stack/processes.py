"""Start a process so that it can be found again, recognise it, end it. The only place that looks at process ids.

A process is recognised by pid, creation time and command line together, so that a pid which the system gave to somebody
else is never touched.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tokenbill.stack.files import read_json
from tokenbill.stack.layout import Layout
from tokenbill.stack.spec import ProcessSpec

# A step of the system clock moves the creation time that the system reports for a process.
CREATE_TIME_TOLERANCE_SECONDS = 2.0
LOG_LIMIT_BYTES = 32 << 20
LEFTOVER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Identity:
    """Which process is meant."""

    pid: int
    create_time: float
    argv: tuple[str, ...]

    @classmethod
    def of_self(cls) -> Identity:
        me = psutil.Process()
        return cls(me.pid, me.create_time(), tuple(me.cmdline()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Identity:
        return cls(int(value["pid"]), float(value["create_time"]), tuple(value["argv"]))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def process(self) -> psutil.Process | None:
        """The living process this names; a zombie is not alive."""
        try:
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.create_time) > CREATE_TIME_TOLERANCE_SECONDS:
                return None
            if found.status() == psutil.STATUS_ZOMBIE or tuple(found.cmdline()) != self.argv:
                return None
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # What we may not look at is not ours.
            return None
        return found

    def alive(self) -> bool:
        return self.process() is not None

    def signal(self, number: int) -> None:
        """Send a signal, if the process is still the one that is meant."""
        found = self.process()
        if found is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.send_signal(number)


def recorded(layout: Layout, name: str) -> Identity | None:
    """What the process called `name` wrote about itself when it started; it may be dead by now."""
    value = read_json(layout.record(name))
    return None if value is None else Identity.from_json(value)


def recorded_names(layout: Layout) -> list[str]:
    return sorted(path.name.removesuffix(".process.json") for path in layout.logs.parent.glob("run/*.process.json"))


def start(layout: Layout, spec: ProcessSpec) -> subprocess.Popen[bytes]:
    """Start the process; its output goes to its log, and it is on record before its program begins.

    The record is written by the new process between fork and exec. At that moment it still shares the supervisor's
    lock (closed by exec), so whoever gets the lock after a crash of the supervisor finds every process on record.
    """
    rotate_log(layout.log(spec.name))
    argv = list(spec.argv)
    record = os.open(layout.record(spec.name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)

    def write_record() -> None:
        born = psutil.Process().create_time()
        os.write(record, json.dumps({"pid": os.getpid(), "create_time": born, "argv": argv}).encode())

    try:
        with layout.log(spec.name).open("ab") as log:
            return subprocess.Popen(
                argv,
                cwd=spec.cwd,
                env={**os.environ, **spec.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=write_record,
                user=spec.user,
                group=spec.group,
                extra_groups=None if spec.user is None else [],
            )
    finally:
        os.close(record)


def rotate_log(log: Path) -> None:
    """Keep one older log beside a full one. Copies and truncates, because the writers keep the file open (append)."""
    try:
        if log.stat().st_size < LOG_LIMIT_BYTES:
            return
    except FileNotFoundError:
        return
    log.with_suffix(".log.1").write_bytes(log.read_bytes())
    os.truncate(log, 0)


def end_leftovers(spec: ProcessSpec) -> list[int]:
    """Wait for, then end, what works in `leftover_cwd` after the main process died; remove its stale files.

    Returns the pids that had to be ended. Only called when the main process is gone.
    """
    ended: list[int] = []
    if spec.leftover_cwd is not None:
        _, alive = psutil.wait_procs(_working_in(spec.leftover_cwd, Path(spec.argv[0]).name), LEFTOVER_PATIENCE_SECONDS)
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                ended.append(process.pid)
        psutil.wait_procs(alive, LEFTOVER_PATIENCE_SECONDS)
    for name in spec.stale_files:
        Path(name).unlink(missing_ok=True)
    return ended


def _working_in(folder: str, program: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter() if _works_in(process, folder, program)]


def _works_in(process: psutil.Process, folder: str, program: str) -> bool:
    try:
        return process.name() == program and process.cwd() == folder and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def wait_gone(identities: list[Identity], timeout_seconds: float) -> Iterator[Identity]:
    """Yield each process as it ends, until all did or the time is up."""
    left = list(identities)
    deadline = time.monotonic() + timeout_seconds
    while left:
        for identity in [one for one in left if not one.alive()]:
            left.remove(identity)
            yield identity
        if not left or time.monotonic() > deadline:
            return
        time.sleep(0.05)


def unprivileged_user() -> tuple[str, str] | None:
    """User and group for a server that refuses to run as root; None where we are not root anyway."""
    if os.getuid() != 0:
        return None
    import grp

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return name, grp.getgrgid(found.pw_gid).gr_name
    raise KeyError("neither the user postgres nor the user nobody exists")
