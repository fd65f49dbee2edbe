"""Workers join, leave and die on a real Kafka; a minimal store shows that no record is lost or counted twice."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_ledger import SmallStore

from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC
from streams.send.emitter import Emitter
from streams.send.send_commands import send_commands

ROOT = Path(__file__).parents[3]
PARTITIONS = 6
DATA = b'{"model":"deepseek-v3.2","usage":{"input":1200,"output":640}}'
MakeTopics = Callable[[int], str]


class Worker:
    """A worker process; its log is printed if a test fails."""

    def __init__(self, kafka: str, ledger: Path, prefix: str, name: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = ledger.with_name(f"{name}.log")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("small_ledger.py")), kafka, str(ledger), prefix, name,
             str(self.port)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=self.log.open("w"),
        )  # fmt: skip

    def get(self, page: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{page}", timeout=5) as answer:
            return bytes(answer.read())

    def partitions(self) -> list[int] | None:
        """Return the partitions that this worker has acquired; None while it is not ready."""
        try:
            return list(json.loads(self.get("health"))["partitions"])
        except OSError:
            return None


class Cluster:
    """The store, the topics and the workers of one test."""

    def __init__(self, kafka: str, folder: Path, prefix: str) -> None:
        self.kafka, self.prefix = kafka, prefix
        self.ledger = folder / "ledger.db"
        self.store = SmallStore(self.ledger)
        self.workers: list[Worker] = []
        self.emitter = Emitter(kafka, "urn:test", topic=prefix + USAGE_TOPIC)
        self.sent = 0

    def start(self, count: int) -> None:
        for _ in range(count):
            name = f"w{len(self.workers)}"
            self.workers.append(Worker(self.kafka, self.ledger, self.prefix, name))

    def emit(self, count: int) -> None:
        for number in range(count):
            self.emitter.send(f"acct-{number % 500}", "2026-11-22T01:15:03.412Z", DATA)
        self.emitter.flush()
        self.sent += count

    def wait(self, what: str, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(f"== {one.log.name}\n{one.log.read_text()[-3000:]}" for one in self.workers)
                raise AssertionError(f"{what} did not happen; {self.store.counted()} of {self.sent}\n{logs}")
            time.sleep(0.1)

    def living(self) -> list[Worker]:
        return [one for one in self.workers if one.process.poll() is None]

    def wait_balanced(self) -> None:
        """Wait until every partition has one owner and every worker is ready."""

        def balanced() -> bool:
            crashed = [one for one in self.workers if one.process.poll() not in (None, 0, -signal.SIGKILL)]
            assert not crashed, "\n".join(f"== {one.log.name}\n{one.log.read_text()[-3000:]}" for one in crashed)
            held = [one.partitions() for one in self.living()]
            flat = sorted(number for one in held if one is not None for number in one)
            return None not in held and flat == list(range(PARTITIONS))

        self.wait("a balanced group", balanced)

    def wait_all_counted(self) -> None:
        self.wait("everything in the ledger", lambda: self.store.counted()[0] >= self.sent)
        assert self.store.counted() == (self.sent, self.sent)


@pytest.fixture
def cluster(kafka_address: str, make_topics: MakeTopics, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(kafka_address, tmp_path, make_topics(PARTITIONS))
    yield made
    for worker in made.workers:
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGCONT)
            worker.process.kill()
        worker.process.wait()


def test_records_arrive_in_batches_and_commands_before_usage(cluster: Cluster) -> None:
    send_commands(cluster.kafka, [{"subject": f"acct-{n}"} for n in range(500)], topic=cluster.prefix + COMMAND_TOPIC)
    cluster.emit(30_000)
    cluster.start(1)
    cluster.wait_all_counted()
    assert cluster.store.counted(COMMAND_TOPIC) == (500, 500)
    commands = {before for _, before in cluster.store.values()}
    assert len(commands) <= PARTITIONS, "every event was decided after all commands of its partition"
    assert min(commands) > 0
    metrics = cluster.workers[0].get("metrics").decode()
    commits = next(line for line in metrics.splitlines() if line.startswith("tokenbill_commits_total"))
    assert float(commits.split()[1]) < 60, "30,000 events in a handful of commits"
    assert 'tokenbill_events_total{outcome="rated"} 30000.0' in metrics
    cluster.workers[0].process.terminate()
    assert cluster.workers[0].process.wait(20) == 0


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_nothing_is_lost_while_workers_join_leave_and_die(cluster: Cluster, workers: int) -> None:
    cluster.emit(10_000)
    cluster.start(1)
    cluster.wait_balanced()
    cluster.emit(10_000)
    cluster.start(workers - 1)
    cluster.emit(10_000)
    cluster.wait_balanced()
    held = [one.partitions() or [] for one in cluster.living()]
    assert all(len(one) in (PARTITIONS // workers, -(-PARTITIONS // workers)) for one in held), held
    cluster.emit(10_000)
    cluster.workers[0].process.kill()
    cluster.emit(10_000)
    cluster.workers[1].process.terminate()
    cluster.start(1)
    cluster.emit(10_000)
    cluster.wait_all_counted()
    assert cluster.workers[1].process.wait(20) == 0
    cluster.wait_balanced()


def test_more_workers_than_partitions_are_ready_without_work(kafka_address: str, cluster: Cluster) -> None:
    cluster.start(PARTITIONS + 1)
    cluster.wait_balanced()
    assert sorted(len(one.partitions() or []) for one in cluster.living()) == [0] + [1] * PARTITIONS


def test_a_zombie_cannot_count_what_its_successor_counted(cluster: Cluster) -> None:
    cluster.start(2)
    cluster.wait_balanced()
    cluster.emit(20_000)
    cluster.wait_all_counted()  # A process stopped in a commit keeps SQLite's lock; PostgreSQL aborts such a commit.
    zombie = cluster.workers[0]
    zombie.process.send_signal(signal.SIGSTOP)
    cluster.emit(20_000)
    cluster.wait_all_counted()
    zombie.process.send_signal(signal.SIGCONT)
    cluster.emit(20_000)
    cluster.wait_all_counted()
    cluster.wait_balanced()
