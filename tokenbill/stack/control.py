"""Functions shared by supervisor, `up` and `down`: desired processes, supervised children, orderly shutdown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tokenbill.stack import processes
from tokenbill.stack.files import PRIVATE_UMASK, open_private, read_json, write_json
from tokenbill.stack.layout import Layout
from tokenbill.stack.processes import ProcessIdentity
from tokenbill.stack.spec import ProcessSpec


@dataclass
class Child:
    """A supervised process: started by this supervisor (`popen` is set), or adopted from one that died."""

    spec: ProcessSpec
    identity: ProcessIdentity
    popen: subprocess.Popen[bytes] | None
    started: float
    kill_at: float | None = None

    def alive(self) -> bool:
        # Only the parent can call poll(), which also reaps the zombie.
        return self.popen.poll() is None if self.popen is not None else self.identity.alive()

    def stop(self) -> None:
        """Send the stop signal once and start the time limit that `kill_if_late` enforces."""
        if self.kill_at is None:
            self.kill_at = time.monotonic() + self.spec.stop_timeout_seconds
            self.identity.signal(self.spec.stop_signal)

    def kill_if_late(self) -> bool:
        """Kill the process if its time limit has passed; return True if it was killed."""
        if self.kill_at is None or time.monotonic() < self.kill_at:
            return False
        self.identity.signal(signal.SIGKILL)
        return True


def read_desired(layout: Layout) -> dict[str, ProcessSpec] | None:
    """Return the processes that should run, by name; None if the stack should not run."""
    value = read_json(layout.desired)
    if value is None or not value["run"]:
        return None
    return {item["name"]: ProcessSpec.from_json(item) for item in value["specs"]}


def write_desired(layout: Layout, specs: list[ProcessSpec] | None) -> None:
    """Write which processes should run.

    None makes the supervisors exit and leave the processes to the caller; the recorded specs are kept.
    """
    items = (read_json(layout.desired) or {"specs": []})["specs"] if specs is None else [s.to_json() for s in specs]
    write_json(layout.desired, {"run": specs is not None, "specs": items})


def spawn_supervisor(layout: Layout, detach: bool = False) -> subprocess.Popen[bytes]:
    """Start a supervisor in a session of its own; it begins as standby.

    With `detach` the returned process exits at once and the supervisor runs on without a parent. Callers that live on
    use this, so that they need not reap the supervisor.
    """
    options = ["--detach"] if detach else []
    with os.fdopen(open_private(layout.log("supervisor"), os.O_WRONLY | os.O_APPEND), "ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "tokenbill.stack.supervisor", "--data-dir", str(layout.root), *options],
            cwd=layout.root,
            env={**os.environ, **python_environment()},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=PRIVATE_UMASK,
        )


def python_environment() -> dict[str, str]:
    """Return the environment with which a Python process imports this checkout, whatever its working directory."""
    ours = str(Path(__file__).resolve().parents[2])
    paths = [ours, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path and path != ours)]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def stop_all(layout: Layout) -> list[str]:
    """Stop every recorded process, servers last; return one line per process that describes the result.

    The caller holds the supervisor lock or is the supervisor.
    """
    value = read_json(layout.desired) or {"specs": []}
    specs = {item["name"]: ProcessSpec.from_json(item) for item in value["specs"]}
    children: list[Child] = []
    for name in processes.recorded_names(layout):
        identity = processes.recorded(layout, name)
        if identity is not None and identity.alive():
            spec = specs.get(name) or ProcessSpec(name, identity.argv, cwd="/")
            children.append(Child(spec, identity, None, time.monotonic()))
    said: list[str] = []
    for phase in sorted({child.spec.phase for child in children}, reverse=True):
        said += _stop_phase([child for child in children if child.spec.phase == phase])
    for name in processes.recorded_names(layout):
        if name in specs:
            processes.end_leftovers(specs[name])
        layout.record(name).unlink(missing_ok=True)
    layout.state.unlink(missing_ok=True)
    return said


def _stop_phase(children: list[Child]) -> list[str]:
    said: list[str] = []
    killed: set[str] = set()
    began = time.monotonic()
    for child in children:
        child.stop()
    left = list(children)
    while left:
        for child in list(left):
            name = child.spec.name
            if not child.alive():
                left.remove(child)
                how = "killed" if name in killed else "stopped"
                said.append(f"{name} (pid {child.identity.pid}) {how} after {time.monotonic() - began:.1f} s")
            elif child.kill_if_late():
                killed.add(name)
        time.sleep(0.05)
    return said
