"""A small demo: its checks hold when broker and database are killed, and its last line has the documented form."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tokenbill import stack
from tokenbill.stack.control import python_environment

EVENTS = 20_000


def test_the_demo_holds_when_broker_and_database_are_killed_on_the_way() -> None:
    folder = Path(tempfile.mkdtemp(prefix="tokenbill-demo-"))
    try:
        options = ["--data-dir", str(folder), "--json", "--events", str(EVENTS), "--accounts", "200"]
        demo = subprocess.Popen(
            [sys.executable, "-m", "tokenbill", "demo", *options],
            stdout=subprocess.PIPE,
            env={**os.environ, **python_environment()},
            text=True,
        )
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if "commands sent" in line:
                time.sleep(2)
                for name in ("kafka", "postgresql"):
                    os.kill(stack.info(folder).pids[name], signal.SIGKILL)
        assert demo.wait() == 0, "".join(said)
    finally:
        stack.remove(folder)
    last = json.loads(said[-1])
    events = last["events"]
    assert set(last) == {"events", "trial_balance_sum", "balance_topic_equals_database", "events_per_second"}
    assert set(events) == {"sent", "rated", "duplicate", "rejected"}
    assert events["sent"] == events["rated"] + events["duplicate"] + events["rejected"] >= EVENTS
    assert (last["trial_balance_sum"], last["balance_topic_equals_database"]) == ("0", True)
    assert last["events_per_second"] > 0
