"""Tests of the situations L1 to L8 in which a plain Faust application loses events.

The situations are listed in docs/reference/kafka-and-faust.md, "Losses". Each test brings the pipeline into a state in
which Faust would have acknowledged unfinished work, with the real database and broker.
"""

import signal
import time

import pytest
from pipeline_rig import Pipeline, Traffic, until

from tokenbill import stack


def break_commits(pipeline: Pipeline, seconds: float) -> int:
    """Terminate committing database sessions repeatedly for some seconds; return the number of terminated sessions."""
    broken = 0
    deadline = time.monotonic() + seconds
    with pipeline.admin() as connection:
        while time.monotonic() < deadline:
            rows = connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name LIKE 'tokenbill commit %' AND state <> 'idle'"
            ).fetchall()
            broken += len(rows)
            time.sleep(0.02)
    return broken


def test_l1_to_l5_a_failing_batch_is_decided_again(pipeline: Pipeline, traffic: Traffic) -> None:
    """L1 to L5: an exception while a batch is processed, with further batches waiting in every partition."""
    traffic.open(24)
    with traffic.streaming(600):
        traffic.stream_until(100)
        broken = break_commits(pipeline, 4)
    assert broken > 0
    traffic.check()


def test_l2_a_commit_that_cannot_be_written_for_a_while_loses_nothing(pipeline: Pipeline, traffic: Traffic) -> None:
    """L2, L3: the whole batch and its repetitions fail, for longer than one attempt takes."""
    traffic.open(24)
    with traffic.streaming(300):
        traffic.stream_until(100)
        with pipeline.locked("journal"):
            break_commits(pipeline, 2)
    traffic.check()


@pytest.mark.parametrize("table", ["account", "outbox"])
def test_l6_sigterm_while_a_batch_is_processed(pipeline: Pipeline, traffic: Traffic, table: str) -> None:
    """L6: shutdown with a batch in flight."""
    traffic.open(24)
    with traffic.streaming(300):
        traffic.stream_until(100)
        with pipeline.locked(table):
            time.sleep(0.5)  # Every partition has a commit in flight.
            dead = pipeline.signal("worker-1", signal.SIGTERM)
            time.sleep(1.5)
        until("the worker is another", lambda: stack.info(pipeline.folder).pids.get("worker-1", dead) != dead, 60)
    traffic.check()


def test_l7_one_slow_partition_while_the_others_go_on(pipeline: Pipeline, traffic: Traffic) -> None:
    """L7: later work finishes first, then the worker dies before the earlier work is finished."""
    traffic.open(24)
    traffic.use(48)
    traffic.settle()
    with traffic.streaming(300), pipeline.admin() as connection, connection.transaction():
        connection.execute("SELECT 1 FROM partition_state WHERE partition = 0 FOR UPDATE")
        traffic.stream_until(48 + 400)
        pipeline.kill("worker-1")
        pipeline.kill("worker-2")
    traffic.check()


def test_l8_what_cannot_be_decoded_is_kept_and_stops_nothing(pipeline: Pipeline, traffic: Traffic) -> None:
    """L8: bad JSON in every batch of every partition."""
    traffic.open(24)
    for number in range(100):
        traffic.use(5)
        account = traffic.accounts[number % 24]
        traffic.send_usage(b'{"bad": %d' % number, account)
    expected = traffic.check()
    assert expected["events"] == {"rated": 500, "duplicate": 0, "rejected": 100}
    assert {one.value for one in traffic.refused()} == {b'{"bad": %d' % number for number in range(100)}


def test_a_rebalance_while_a_commit_is_in_flight(pipeline: Pipeline, traffic: Traffic) -> None:
    """Partitions are reassigned while each has a commit that hangs in the database."""
    traffic.open(24)
    with traffic.streaming(300):
        traffic.stream_until(100)
        with pipeline.locked("bucket"):
            time.sleep(0.5)
            with pipeline.own_worker("joiner", 19_871) as joiner:
                time.sleep(4)
                assert joiner.poll() is None
    traffic.check()
