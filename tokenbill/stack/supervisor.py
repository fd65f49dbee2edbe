"""Supervisor of the processes of one data folder: `python -m tokenbill.stack.supervisor --data-dir D`.

Two supervisors run. Each begins as a standby that waits for the lock of the one in charge. If that one is killed, the
standby takes over: it adopts the running processes and starts a new standby. The desired processes are read from one
file (`desired`), and the running ones are written to another (`state`). A supervisor checks only that a process is
alive, not that it is ready.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from tokenbill.stack import processes
from tokenbill.stack.control import Child, read_desired, spawn_supervisor, stop_all, write_desired
from tokenbill.stack.files import is_locked, open_lock, read_json, try_lock, write_holder, write_json
from tokenbill.stack.layout import Layout
from tokenbill.stack.processes import ProcessIdentity
from tokenbill.stack.spec import ProcessSpec

TICK_SECONDS = 0.1
STANDBY_CHECK_TICKS = 5
LOG_CHECK_TICKS = 100
STATE_RETRY_TICKS = 10
PID_WIDTH, IDENTITY_WIDTH = 20, 4000
FIRST_BACKOFF_SECONDS = 0.2
MAX_BACKOFF_SECONDS = 5.0
# A process that lived this long started successfully, so its next restart is immediate again.
STEADY_SECONDS = 10.0

log = logging.getLogger("tokenbill.supervisor")


class Supervisor:
    """The supervisor in charge; its caller holds the supervisor lock, whose handle is ``lock``."""

    def __init__(self, layout: Layout, lock: int) -> None:
        self.layout = layout
        self.lock = lock
        self.children: dict[str, Child] = {}
        self.restarts: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.start_at: dict[str, float] = {}
        self.desired: dict[str, ProcessSpec] = {}
        self.standby: subprocess.Popen[bytes] | None = None
        self.terminated = False
        self.desired_stamp: int | None = None
        self.refused: dict[str, str] = {}
        """Reason by step, for the steps that failed at the last attempt."""
        self.state_is_old = False
        self.state_every_ticks = 1

    def run(self) -> None:
        """Supervise until the file `desired` stops the stack, the data folder is removed, or SIGTERM arrives."""
        signal.signal(signal.SIGTERM, self._on_terminate)
        self._adopt()
        tick = 0
        while self._read_desired():
            # Each step by itself, so that a disk that is full for one of them does not stop the others.
            if tick % STANDBY_CHECK_TICKS == 0:
                self._attempt("start a standby", self._keep_standby)
            if tick % LOG_CHECK_TICKS == 0:
                for name in (*self.children, "supervisor"):
                    self._attempt(f"rotate the log of {name}", partial(processes.rotate_log, self.layout.log(name)))
            if self.reconcile():
                self.state_is_old = True
            if self.state_is_old and tick % self.state_every_ticks == 0:
                self.write_state()
            tick += 1
            time.sleep(TICK_SECONDS)
        self._end_standby()
        if self.terminated:
            stop_all(self.layout)
        log.info("supervisor ends")

    def _attempt(self, what: str, step: Callable[[], None]) -> bool:
        """Take a step that the disk or the system may refuse; return False, and log the reason once, if it does.

        A supervisor must not die of the causes that its processes die of. The caller takes the step again later.
        """
        try:
            step()
        except (OSError, subprocess.SubprocessError, psutil.Error) as error:
            if self.refused.get(what) != str(error):
                log.error("cannot %s, trying again: %s", what, error)
            self.refused[what] = str(error)
            return False
        if self.refused.pop(what, None) is not None:
            log.info("it is possible again to %s", what)
        return True

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        self.terminated = True

    def _read_desired(self) -> bool:
        if self.terminated:
            self._attempt("write that the stack should not run", lambda: write_desired(self.layout, None))
            return False
        try:
            stamp = self.layout.desired.stat().st_mtime_ns
            wanted = read_desired(self.layout) if stamp != self.desired_stamp else self.desired
        except FileNotFoundError:
            log.error("the data folder is gone: ending what worked in it")
            for child in self.children.values():
                child.identity.signal(signal.SIGKILL)
            return False
        except OSError as error:
            log.error("cannot read which processes should run, trying again: %s", error)
            return True
        self.desired_stamp = stamp
        if wanted is None:
            return False
        self.desired = wanted
        return True

    def _adopt(self) -> None:
        wanted = read_desired(self.layout) or {}
        state = read_json(self.layout.state) or {"processes": {}}
        self.restarts = {name: int(item["restarts"]) for name, item in state["processes"].items()}
        for name in processes.recorded_names(self.layout):
            identity = processes.recorded(self.layout, name)
            if identity is None:
                continue
            if identity.alive():
                spec = wanted.get(name) or ProcessSpec(name, identity.argv, cwd="/")
                self.children[name] = Child(spec, identity, None, time.monotonic())
                log.info("adopted %s, pid %d", name, identity.pid)
            elif name in wanted and name in state["processes"]:
                # It died while no supervisor ran, so starting it counts as a restart.
                self.restarts[name] = self.restarts.get(name, 0) + 1
        self.write_state()

    def reconcile(self) -> bool:
        """Take one step from the running towards the desired processes; return True if anything changed."""
        changed = False
        for name, child in list(self.children.items()):
            if not child.alive():
                self._bury(name, child)
                changed = True
            elif name not in self.desired and child.kill_at is None:
                log.info("stopping %s, pid %d", name, child.identity.pid)
                child.stop()
            else:
                child.kill_if_late()
        for name, spec in self.desired.items():
            if name not in self.children and time.monotonic() >= self.start_at.get(name, 0.0):
                if not self._attempt(f"start {name}", partial(self._start, spec)):
                    self.start_at[name] = time.monotonic() + MAX_BACKOFF_SECONDS
                    self.restarts[name] = self.restarts.get(name, 0) + 1
                changed = True
        return changed

    def _bury(self, name: str, child: Child) -> None:
        del self.children[name]
        code = child.popen.returncode if child.popen is not None else None
        if name not in self.desired:
            log.info("%s has ended", name)
            self._attempt(f"delete the record of {name}", partial(self.layout.record(name).unlink, missing_ok=True))
            self.restarts.pop(name, None)
            return
        steady = time.monotonic() - child.started > STEADY_SECONDS
        self.failures[name] = 0 if steady else self.failures.get(name, 0) + 1
        # The first restart is immediate, because most deaths are isolated.
        tries = self.failures[name]
        pause = 0.0 if tries < 2 else min(FIRST_BACKOFF_SECONDS * 2.0 ** (tries - 2), MAX_BACKOFF_SECONDS)
        self.start_at[name] = time.monotonic() + pause
        self.restarts[name] = self.restarts.get(name, 0) + 1
        log.warning("%s, pid %d, died (exit %s); starting it in %.1f s", name, child.identity.pid, code, pause)

    def _start(self, spec: ProcessSpec) -> None:
        for pid in processes.end_leftovers(spec):
            log.warning("ended pid %d, a leftover of %s", pid, spec.name)
        self.restarts.setdefault(spec.name, 0)
        popen = processes.start(self.layout, spec)
        identity = processes.recorded(self.layout, spec.name)
        if identity is None:
            raise RuntimeError(f"{spec.name} started without putting itself on record")
        self.children[spec.name] = Child(spec, identity, popen, time.monotonic())
        log.info("started %s, pid %d", spec.name, popen.pid)

    def write_state(self) -> None:
        """Write the running processes to their file. If that is impossible, it is tried again soon."""
        self.state_is_old = not self._attempt("write the state", self._write_state)
        self.state_every_ticks = STATE_RETRY_TICKS if self.state_is_old else 1

    def _write_state(self) -> None:
        write_holder(self.lock, json.dumps(ProcessIdentity.of_self().to_json()), IDENTITY_WIDTH)
        listed: dict[str, Any] = {
            name: {
                **(self.children[name].identity.to_json() if name in self.children else {"pid": None}),
                "restarts": self.restarts.get(name, 0),
            }
            for name in sorted({*self.desired, *self.children})
        }
        write_json(self.layout.state, {"processes": listed})

    def _keep_standby(self) -> None:
        own_is_gone = self.standby is None or self.standby.poll() is not None
        if own_is_gone and not is_locked(self.layout.standby_lock):
            self.standby = spawn_supervisor(self.layout)

    def _end_standby(self) -> None:
        if self.standby is not None:
            self.standby.kill()
            self.standby.wait()


def main() -> None:
    """Wait as standby for the supervisor lock, then supervise."""
    parser = argparse.ArgumentParser(prog="python -m tokenbill.stack.supervisor", description=__doc__)
    parser.add_argument("--data-dir", required=True, type=Path)
    parser.add_argument("--detach", action="store_true", help="return at once and go on in the background")
    options = parser.parse_args()
    layout = Layout.of(options.data_dir)
    if options.detach and os.fork() > 0:
        os._exit(0)
    logging.basicConfig(level=logging.INFO, format=f"%(asctime)s [{os.getpid()}] %(message)s")
    standby = open_lock(layout.standby_lock)
    if not try_lock(standby):
        return
    try:
        write_holder(standby, str(os.getpid()), PID_WIDTH)
    except OSError as error:
        log.error("cannot write which process is the standby, for `status`: %s", error)
    lock = open_lock(layout.supervisor_lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if read_desired(layout) is None:
        return
    log.info("supervisor in charge of %s", layout.root)
    os.close(standby)
    Supervisor(layout, lock).run()


if __name__ == "__main__":
    main()
