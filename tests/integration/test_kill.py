"""kill -9 of any process under traffic: no total changes, and every process recovers by itself."""

import signal
import time

import pytest
from pipeline_rig import Pipeline, Traffic, until

from tokenbill import stack


@pytest.mark.parametrize("name", ["worker-1", "relay", "kafka", "postgresql", "supervisor"])
def test_killed_mid_stream(pipeline: Pipeline, traffic: Traffic, name: str) -> None:
    traffic.open(24)
    with traffic.streaming():
        traffic.stream_until(500)
        dead = pipeline.kill(name)
        until(f"{name} runs again", lambda: stack.info(pipeline.folder).pids.get(name, dead) != dead, 60)
        time.sleep(1.5)
    traffic.check()


def test_everything_killed_at_once(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(24)
    with traffic.streaming():
        traffic.stream_until(300)
        for name in ("supervisor", "worker-1", "worker-2", "relay", "postgresql", "kafka"):
            pipeline.kill(name)
        time.sleep(3)
    traffic.check()


def test_a_stopped_worker_loses_its_partitions_and_may_not_write_afterwards(
    pipeline: Pipeline, traffic: Traffic
) -> None:
    traffic.open(24)
    with traffic.streaming():
        traffic.stream_until(300)
        zombie = pipeline.signal("worker-2", signal.SIGSTOP)
        try:
            decided = traffic.books.counts().decided
            traffic.stream_until(decided + 4_000)  # The session expires, and the other worker gets all partitions.
        finally:
            pipeline.signal("worker-2", signal.SIGCONT)
        time.sleep(3)
    traffic.check()
    pipeline.wait_serving(2)
    assert zombie > 0


def test_a_worker_stopped_in_the_middle_of_a_commit_is_fenced(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(24)
    traffic.use(300)
    traffic.settle()
    with traffic.streaming():
        with pipeline.locked("bucket"):
            time.sleep(1.0)  # Every partition has a commit in flight that cannot end.
            pipeline.signal("worker-2", signal.SIGSTOP)
        try:
            decided = traffic.books.counts().decided
            traffic.stream_until(decided + 4_000)
            # By now its transactions have ended and another worker owns its partitions; it learns this on SIGCONT.
        finally:
            pipeline.signal("worker-2", signal.SIGCONT)
        time.sleep(3)
    traffic.check()
    pipeline.wait_serving(2)
