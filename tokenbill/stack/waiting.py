"""Waiting for a supervisor to take charge and for processes to become ready, with progress and error reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from tokenbill.stack import processes
from tokenbill.stack.control import read_desired, spawn_supervisor, write_desired
from tokenbill.stack.down import kill_supervisors
from tokenbill.stack.files import is_locked, read_json
from tokenbill.stack.info import supervisor_in_charge
from tokenbill.stack.layout import Layout
from tokenbill.stack.progress import Progress
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ProcessSpec, ReadyCheck
from tokenbill.user_errors import UserError

SUPERVISOR_START_SECONDS = 30.0
# Restarts during one wait after which the process is considered unable to start.
TOO_MANY_RESTARTS = 5
# Longer than the supervisor's patience with any process; after that it kills.
END_SECONDS = 60.0
LOG_TAIL_LINES = 20
POLL_SECONDS = 0.1


class NotReady(UserError):
    """A process did not become ready; the message contains the end of its log."""


def supervisor_runs(layout: Layout) -> bool:
    """Return True if a supervisor is in charge; wait while a standby takes over."""
    if read_desired(layout) is None:
        return False
    deadline = time.monotonic() + SUPERVISOR_START_SECONDS
    while is_locked(layout.supervisor_lock) or is_locked(layout.standby_lock):
        if supervisor_in_charge(layout) is not None:
            return True
        if time.monotonic() > deadline:
            # The supervisor hangs, for example after SIGSTOP: it neither supervises nor releases its lock.
            kill_supervisors(layout)
        time.sleep(POLL_SECONDS)
    return False


def supervise(layout: Layout, specs: list[ProcessSpec]) -> None:
    """Make exactly these processes the desired ones and ensure a supervisor; do not wait until they are ready."""
    write_desired(layout, specs)
    ensure_supervisor(layout)


def ensure_supervisor(layout: Layout) -> None:
    """Return when a supervisor is in charge; start one if none is running or taking over."""
    if supervisor_runs(layout):
        return
    spawn_supervisor(layout, detach=True).wait()
    deadline = time.monotonic() + SUPERVISOR_START_SECONDS
    while supervisor_in_charge(layout) is None:
        if time.monotonic() > deadline:
            raise _not_ready(layout, "supervisor", "it did not take charge")
        time.sleep(POLL_SECONDS)


def wait_ready(layout: Layout, specs: Iterable[ProcessSpec], progress: Progress) -> None:
    """Return when every process is ready; raise `NotReady` if one takes too long or keeps dying."""
    # Each round ensures a supervisor again, in case the one found before was just being killed.
    wait_for(layout, {spec.name: spec.ready for spec in specs}, progress, lambda: ensure_supervisor(layout))


def wait_for(layout: Layout, checks: dict[str, ReadyCheck], progress: Progress, meanwhile: Callable[[], None]) -> None:
    began = time.monotonic()
    before = _restarts(layout)
    left = dict(checks)
    while left:
        for name, check in list(left.items()):
            why = why_not_ready(check)
            waited = time.monotonic() - began
            if why is None:
                del left[name]
                progress.done(f"{name:<12} ready after {waited:.1f} s")
                continue
            progress.waiting(f"{name}: {waited:.0f} s, {why}")
            if waited > check.timeout_seconds:
                raise _not_ready(layout, name, f"not within {check.timeout_seconds:.0f} s ({why})")
            if _restarts(layout).get(name, 0) - before.get(name, 0) >= TOO_MANY_RESTARTS:
                raise _not_ready(layout, name, "it keeps ending")
        meanwhile()
        if left:
            time.sleep(POLL_SECONDS)


def wait_ended(layout: Layout, kept: Iterable[ProcessSpec]) -> None:
    """Return when every process that is no longer desired has ended; raise `UserError` if one does not."""
    names = {spec.name for spec in kept}
    deadline = time.monotonic() + END_SECONDS
    while left := {name for name in processes.recorded_names(layout) if name not in names and _lives(layout, name)}:
        if time.monotonic() > deadline:
            name = min(left)
            why = f"it still runs {END_SECONDS:.0f} s after it was told to"
            raise UserError(f"{name} does not end", why, f"Its log: {layout.log(name)}")
        ensure_supervisor(layout)
        time.sleep(POLL_SECONDS)


def _lives(layout: Layout, name: str) -> bool:
    identity = processes.recorded(layout, name)
    return identity is not None and identity.alive()


def _restarts(layout: Layout) -> dict[str, int]:
    state = read_json(layout.state) or {"processes": {}}
    return {name: int(item["restarts"]) for name, item in state["processes"].items()}


def _not_ready(layout: Layout, name: str, why: str) -> NotReady:
    log = layout.log(name)
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    tail = "\n".join(f"  {line}" for line in lines[-LOG_TAIL_LINES:])
    return NotReady(f"{name} did not become ready", why, f"The end of {log}:\n{tail}" if tail else f"Its log: {log}")
