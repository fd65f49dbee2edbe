"""Starting, identifying and stopping processes. Only this module works with process ids.

A process is identified by pid, creation time and command line together, so that an unrelated process with a reused pid
is never signalled.
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

from tokenbill.stack.files import PRIVATE_UMASK, open_private, read_json
from tokenbill.stack.layout import Layout
from tokenbill.stack.spec import ProcessSpec

# A step of the system clock changes the creation time that the system reports for a process.
CREATE_TIME_TOLERANCE_SECONDS = 2.0
MAX_LOG_BYTES = 32 << 20
RECORD_BYTES = 200
"""Size of a record without its command line, at most."""
LEFTOVER_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class ProcessIdentity:
    """Identity of a process: pid, creation time in seconds since 1970, and command line."""

    pid: int
    create_time: float
    argv: tuple[str, ...]

    @classmethod
    def of_self(cls) -> ProcessIdentity:
        me = psutil.Process()
        return cls(me.pid, me.create_time(), tuple(me.cmdline()))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ProcessIdentity:
        return cls(int(value["pid"]), float(value["create_time"]), tuple(value["argv"]))

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def process(self) -> psutil.Process | None:
        """Return the process if it is alive; None otherwise, also for a zombie."""
        try:
            found = psutil.Process(self.pid)
            if abs(found.create_time() - self.create_time) > CREATE_TIME_TOLERANCE_SECONDS:
                return None
            if found.status() == psutil.STATUS_ZOMBIE or tuple(found.cmdline()) != self.argv:
                return None
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            # A process that we have no access to is not ours.
            return None
        return found

    def alive(self) -> bool:
        return self.process() is not None

    def signal(self, number: int) -> None:
        """Send a signal if the process still has this identity."""
        found = self.process()
        if found is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                found.send_signal(number)


def recorded(layout: Layout, name: str) -> ProcessIdentity | None:
    """Return the recorded identity of the process `name`, which may have ended since; None if there is no record."""
    value = read_json(layout.record(name))
    return None if value is None else ProcessIdentity.from_json(value)


def recorded_names(layout: Layout) -> list[str]:
    return sorted(path.name.removesuffix(".process.json") for path in layout.logs.parent.glob("run/*.process.json"))


def start(layout: Layout, spec: ProcessSpec) -> subprocess.Popen[bytes]:
    """Start the process with its output in its log file; its identity is recorded before its program begins.

    The new process writes the record between fork and exec. At that moment it still shares the supervisor's lock, which
    exec closes. Therefore the supervisor that gets the lock after a crash finds a record of every process.

    Raises:
        OSError, subprocess.SubprocessError: it cannot be started, or there is no space for its record.
    """
    with contextlib.suppress(OSError):
        rotate_log(layout.log(spec.name))
    argv = list(spec.argv)
    record = open_private(layout.record(spec.name), os.O_WRONLY | os.O_TRUNC)

    def write_record() -> None:
        born = psutil.Process().create_time()
        text = json.dumps({"pid": os.getpid(), "create_time": born, "argv": argv}).encode()
        os.ftruncate(record, os.pwrite(record, text, 0))

    try:
        # The space is taken first: a process must not run whose record is missing or cut off.
        os.posix_fallocate(record, 0, len(json.dumps(argv)) + RECORD_BYTES)
        with os.fdopen(open_private(layout.log(spec.name), os.O_WRONLY | os.O_APPEND), "ab") as log:
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
                umask=PRIVATE_UMASK,
            )
    except BaseException:  # Raised again; an empty record says that nothing was started.
        os.ftruncate(record, 0)
        raise
    finally:
        os.close(record)


def rotate_log(log: Path) -> None:
    """Move a full log to `.log.1` by copying and truncating, because processes keep the file open for appending.

    Raises:
        OSError: there is no space for the copy; the log stays as it is.
    """
    try:
        if log.stat().st_size < MAX_LOG_BYTES:
            return
    except FileNotFoundError:
        return
    copy = log.with_suffix(".log.1")
    try:
        with os.fdopen(open_private(copy, os.O_WRONLY | os.O_TRUNC), "wb") as file:
            file.write(log.read_bytes())
    except OSError:
        copy.unlink(missing_ok=True)
        raise
    os.truncate(log, 0)


def end_leftovers(spec: ProcessSpec) -> list[int]:
    """End the remaining processes in `leftover_cwd` after the main process died, and remove its stale files.

    The processes get `LEFTOVER_PATIENCE_SECONDS` to end by themselves. Returns the pids that were killed. Must be
    called only when the main process has ended.
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


def wait_gone(identities: list[ProcessIdentity], timeout_seconds: float) -> Iterator[ProcessIdentity]:
    """Yield each process when it ends, until all have ended or the time is up."""
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
    """Return user and group for a server that refuses to run as root; None if the current user is not root."""
    if os.getuid() != 0:
        return None
    import grp

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return name, grp.getgrgid(found.pw_gid).gr_name
    raise KeyError("neither the user postgres nor the user nobody exists")
