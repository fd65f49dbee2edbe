"""Supervisors on a disk that takes no more bytes: they live, go on supervising, and write what they could not.

The limit of file sizes stands for the full disk: the kernel refuses every write that makes a file of these processes
longer, and also the space for a new one.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import time

from stack_scripts import Scripts, answer, eventually, is_alive

from tokenbill.stack.files import is_locked

SUPERVISORS = ("supervisor", "supervisor-standby")
SEVERAL_ATTEMPTS_SECONDS = 2.0


def limit_files(pid: int, size_bytes: int) -> None:
    """Limit the size of the files that a process, and what it starts, may write."""
    with contextlib.suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def fill_disk(pids: dict[str, int]) -> None:
    """Let both supervisors write no byte."""
    for name in SUPERVISORS:
        limit_files(pids[name], 0)


def test_a_full_disk_ends_no_supervisor_and_with_space_everything_runs_again(scripts: Scripts) -> None:
    spec, other = scripts.server("one"), scripts.server("two")
    before = scripts.up(spec, other).pids
    fill_disk(before)
    scripts.kill("one")
    eventually(lambda: answer(spec) is None)
    log = scripts.layout.log("supervisor")
    written = log.read_bytes()
    # Several attempts fail: to write the state, and to start the process again.
    eventually(lambda: scripts.now.pids.get("supervisor") == before["supervisor"])
    time.sleep(SEVERAL_ATTEMPTS_SECONDS)
    assert {name: scripts.now.pids.get(name) for name in SUPERVISORS} == {name: before[name] for name in SUPERVISORS}
    assert answer(other) == before["two"]
    assert log.read_bytes() == written
    for name in SUPERVISORS:
        limit_files(before[name], resource.RLIM_INFINITY)
    eventually(lambda: answer(spec) not in (None, before["one"]))
    eventually(lambda: scripts.now.restarts["one"] >= 1)
    assert scripts.now.running
    assert {name: scripts.now.pids.get(name) for name in SUPERVISORS} == {name: before[name] for name in SUPERVISORS}


def test_a_standby_takes_over_on_a_full_disk(scripts: Scripts) -> None:
    spec = scripts.server("one")
    before = scripts.up(spec).pids
    fill_disk(before)
    scripts.kill("supervisor")
    eventually(lambda: is_locked(scripts.layout.supervisor_lock) and is_locked(scripts.layout.standby_lock))
    time.sleep(SEVERAL_ATTEMPTS_SECONDS)
    assert is_alive(before["supervisor-standby"])
    assert answer(spec) == before["one"]
    for name in SUPERVISORS:
        limit_files(before[name], resource.RLIM_INFINITY)
    eventually(lambda: scripts.now.pids.get("supervisor") == before["supervisor-standby"])
    eventually(lambda: "supervisor-standby" in scripts.now.pids)
    scripts.kill("one")
    eventually(lambda: answer(spec) not in (None, before["one"]))
    eventually(lambda: scripts.now.restarts["one"] == 1)


def test_sigterm_on_a_full_disk_ends_the_stack_all_the_same(scripts: Scripts) -> None:
    spec = scripts.server("one")
    pids = scripts.up(spec).pids
    fill_disk(pids)
    os.kill(pids["supervisor"], signal.SIGTERM)
    eventually(lambda: answer(spec) is None)
