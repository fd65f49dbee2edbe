"""Shutdown of a stack: first the supervisors, then workers and relay, then broker and database; and its removal."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from pathlib import Path

from tokenbill.stack import processes
from tokenbill.stack.config import StackConfig
from tokenbill.stack.control import stop_all, write_desired
from tokenbill.stack.files import locked
from tokenbill.stack.info import standby_pid, supervisor_in_charge
from tokenbill.stack.layout import Layout
from tokenbill.stack.progress import Progress, Silent
from tokenbill.user_errors import UserError

COMMAND_SECONDS = 900.0
SUPERVISOR_END_SECONDS = 15.0


def stop(data_dir: Path | str | None = None, progress: Progress | None = None) -> list[str]:
    """Stop the stack of the data folder and return one line per stopped process; a repeated call is no error.

    Raises:
        UserError: another `up` or `down` is running, or a supervisor cannot be stopped.
    """
    layout = Layout.of(data_dir)
    reporter = progress or Silent()
    if not layout.config.exists():
        reporter.done(f"no stack in {layout.root}")
        return [f"no stack in {layout.root}"]
    waiting = lambda: reporter.waiting("waiting for another `tokenbill up` or `down` to finish")  # noqa: E731
    with locked(layout.command_lock, COMMAND_SECONDS, waiting) as held:
        if not held:
            raise UserError(f"The stack in {layout.root} is busy", "another `up` or `down` is at work", "Try later.")
        return stop_locked(layout, reporter)


def remove(data_dir: Path | str) -> None:
    """Stop the stack of the data folder and delete all its data, with a database that lies outside the folder."""
    stop(data_dir)
    layout = Layout.of(data_dir)
    if layout.postgresql_pointer.exists():
        data = Path(layout.postgresql_pointer.read_text(encoding="utf-8").strip())
        shutil.rmtree(data.parent, ignore_errors=True)
    shutil.rmtree(layout.root, ignore_errors=True)


def stop_locked(layout: Layout, progress: Progress) -> list[str]:
    """Do the work of `stop` for a caller that holds the command lock."""
    progress.waiting("stopping")
    try:
        write_desired(layout, None)
    except OSError:
        # On a full disk the supervisors cannot be told to end. Stopped processes may free some space.
        kill_supervisors(layout)
        said = _stop_with_supervisor_lock(layout, SUPERVISOR_END_SECONDS)
        write_desired(layout, None)
    else:
        said = _stop_with_supervisor_lock(layout, SUPERVISOR_END_SECONDS)
    if said is None:
        kill_supervisors(layout)
        said = _stop_with_supervisor_lock(layout, SUPERVISOR_END_SECONDS)
    if said is None:
        raise UserError(
            "The supervisor does not end", f"its lock {layout.supervisor_lock} is held", "Restart the machine."
        )
    said += _stop_containers(layout)
    said = said or [f"nothing was running in {layout.root}"]
    for line in said:
        progress.done(line)
    return said


def _stop_with_supervisor_lock(layout: Layout, timeout_seconds: float) -> list[str] | None:
    with locked(layout.supervisor_lock, timeout_seconds) as held:
        return stop_all(layout) if held else None


def kill_supervisors(layout: Layout) -> None:
    """Kill supervisors that do not react, for example because they were stopped with SIGSTOP."""
    standby = standby_pid(layout)
    if standby is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(standby, signal.SIGKILL)
    identity = supervisor_in_charge(layout)
    if identity is not None:
        identity.signal(signal.SIGKILL)
        list(processes.wait_gone([identity], SUPERVISOR_END_SECONDS))


def _stop_containers(layout: Layout) -> list[str]:
    config = StackConfig.load(layout)
    if config is None or not config.containers:
        return []
    from tokenbill.stack import docker

    said = docker.stop(config.containers)
    config.containers = {}
    config.save(layout)
    return said
