"""The supervisor, with small scripts: it restarts processes, is replaced if killed, and leaves other programs alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import psutil
import pytest
from stack_scripts import Scripts, answer, eventually, is_alive

from tokenbill.stack import NotReady, down, stop
from tokenbill.stack.files import is_locked, write_json
from tokenbill.stack.processes import ProcessIdentity
from tokenbill.stack.spec import ProcessSpec, ReadyCheck


def test_a_process_that_dies_is_started_again_on_its_address(scripts: Scripts) -> None:
    spec = scripts.server("one")
    before = scripts.up(spec).pids["one"]
    scripts.kill("one")
    eventually(lambda: answer(spec) not in (None, before))
    eventually(lambda: scripts.now.restarts["one"] == 1)
    assert scripts.now.running


def test_a_killed_supervisor_is_replaced_and_its_processes_live_on(scripts: Scripts) -> None:
    spec = scripts.server("one")
    before = scripts.up(spec).pids
    scripts.kill("supervisor")
    eventually(lambda: scripts.now.pids.get("supervisor") == before["supervisor-standby"])
    assert answer(spec) == before["one"]
    eventually(lambda: scripts.now.pids.get("supervisor-standby") not in (None, before["supervisor-standby"]))
    # The new supervisor also restarts processes that it did not start.
    scripts.kill("one")
    eventually(lambda: answer(spec) not in (None, before["one"]))
    eventually(lambda: scripts.now.restarts["one"] == 1)


def test_a_killed_standby_is_replaced(scripts: Scripts) -> None:
    before = scripts.up(scripts.server("one")).pids
    scripts.kill("supervisor-standby")
    eventually(lambda: scripts.now.pids.get("supervisor-standby") not in (None, before["supervisor-standby"]))
    assert scripts.now.pids["supervisor"] == before["supervisor"]


def test_without_supervisors_no_process_holds_their_lock_and_the_next_up_adopts(scripts: Scripts) -> None:
    one, two = scripts.server("one"), scripts.server("two")
    before = scripts.up(one, two).pids
    scripts.kill("supervisor-standby", "supervisor", "two")
    assert answer(one) == before["one"]
    eventually(lambda: not is_locked(scripts.layout.supervisor_lock), 2.0)
    after = scripts.up(one, two)
    assert after.pids["one"] == before["one"]
    assert after.pids["two"] != before["two"]
    assert after.restarts == {"one": 0, "two": 1, "supervisor": 0, "supervisor-standby": 0}


def test_what_an_up_no_longer_wants_is_ended_even_if_it_is_an_orphan(scripts: Scripts) -> None:
    one, two, three = scripts.server("one"), scripts.server("two"), scripts.server("three")
    scripts.up(one, two, three)
    scripts.up(one, two)
    eventually(lambda: answer(three) is None)
    scripts.kill("supervisor-standby", "supervisor")
    scripts.up(one)
    eventually(lambda: answer(two) is None)
    assert set(scripts.now.pids) == {"one", "supervisor", "supervisor-standby"}


def test_down_ends_later_phases_first_insists_and_can_be_repeated(scripts: Scripts) -> None:
    server = scripts.server("server", phase=0)
    stubborn = scripts.server("worker", "stubborn", stop_timeout_seconds=0.5)
    pids = scripts.up(server, stubborn).pids
    said = stop(scripts.layout.root)
    assert [line.split(" after")[0] for line in said] == [
        f"worker (pid {pids['worker']}) killed",
        f"server (pid {pids['server']}) stopped",
    ]
    assert not any(is_alive(pid) for pid in pids.values())
    assert stop(scripts.layout.root) == [f"nothing was running in {scripts.layout.root}"]
    assert scripts.now.processes == ()


def test_down_ends_what_lost_its_supervisors(scripts: Scripts) -> None:
    spec = scripts.server("one")
    scripts.up(spec)
    scripts.kill("supervisor-standby", "supervisor")
    assert stop(scripts.layout.root)[0].startswith("one (pid ")
    assert answer(spec) is None


def test_down_ends_supervisors_that_do_not_react(scripts: Scripts, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = scripts.server("one")
    pids = scripts.up(spec).pids
    os.kill(pids["supervisor"], signal.SIGSTOP)
    os.kill(pids["supervisor-standby"], signal.SIGSTOP)
    monkeypatch.setattr(down, "SUPERVISOR_END_SECONDS", 1.0)
    stop(scripts.layout.root)
    assert answer(spec) is None
    assert not is_locked(scripts.layout.supervisor_lock)


def test_sigterm_to_the_supervisor_ends_the_stack_in_order(scripts: Scripts) -> None:
    spec = scripts.server("one")
    pids = scripts.up(spec).pids
    os.kill(pids["supervisor"], signal.SIGTERM)
    eventually(lambda: not is_locked(scripts.layout.supervisor_lock))
    assert answer(spec) is None
    assert scripts.now.processes == ()


def test_a_stranger_whose_pid_is_on_record_is_not_touched(scripts: Scripts) -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(600)"]
    stranger = subprocess.Popen(argv)
    try:
        born = psutil.Process(stranger.pid).create_time()
        for number, identity in enumerate(
            (
                ProcessIdentity(stranger.pid, born - 60.0, tuple(argv)),
                ProcessIdentity(stranger.pid, born, ("another", "program")),
            )
        ):
            write_json(scripts.layout.record(f"old-{number}"), identity.to_json())
        scripts.up(scripts.server("one"))
        stop(scripts.layout.root)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_that_keeps_dying_is_reported_with_the_end_of_its_log(scripts: Scripts) -> None:
    spec = ProcessSpec(
        name="broken",
        argv=(sys.executable, "-c", "print('the price book is missing'); raise SystemExit(1)"),
        cwd=str(scripts.layout.root),
        ready=ReadyCheck("tcp", "127.0.0.1:9", 30.0),
    )
    with pytest.raises(NotReady) as caught:
        scripts.up(spec)
    assert "broken did not become ready: it keeps ending" in caught.value.message
    assert "the price book is missing" in caught.value.hint
    assert str(scripts.layout.log("broken")) in caught.value.hint


def test_removing_the_folder_of_a_running_stack_leaves_no_process(scripts: Scripts) -> None:
    pids = scripts.up(scripts.server("one")).pids
    shutil.rmtree(scripts.layout.root)
    eventually(lambda: not any(is_alive(pid) for pid in pids.values()))
    scripts.layout.create()
