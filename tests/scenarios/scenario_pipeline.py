"""A pipeline for the scenarios: topics, a worker and a relay as in production, and a database.

The producer sets the log times of the topics. This module is independent of the scenarios and never looks into the
processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaError, Message, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    OffsetSpec,
)
from own_database import PreparedDatabase
from scenario_files import Record

from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC, INPUT_TOPICS, OUTPUT_TOPICS, USAGE_TOPIC
from streams.send.emitter import input_producer
from streams.topic_setup import ensure_topics
from tokenbill.stack.config import free_port
from tokenbill.stack.control import python_environment
from tokenbill.stack.ready import why_not_ready
from tokenbill.stack.spec import ReadyCheck

WAIT_SECONDS = 240.0
_FOR_EVER_MS = str(2**63 - 1)
_LOG_TIMES = {
    "message.timestamp.type": "CreateTime",
    "message.timestamp.after.max.ms": _FOR_EVER_MS,
    "message.timestamp.before.max.ms": _FOR_EVER_MS,
    "retention.ms": "-1",
    # Otherwise Kafka starts a new segment file wherever a week passes in the log.
    "segment.ms": _FOR_EVER_MS,
}


@contextmanager
def own_topics(kafka: str, partitions: int) -> Iterator[None]:
    """Create the pipeline's topics on a broker that has none. The producer sets the log time of usage and commands.

    The topics are created as always and changed afterwards, because production refuses such topics. Forwarded records
    keep the broker's clock, because the relay sends them. Where a partition's log is far in the future of that clock,
    the partition's own log time counts.
    """
    ensure_topics(kafka, partitions)
    admin = AdminClient({"bootstrap.servers": kafka})
    changes = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
                for name, value in _LOG_TIMES.items()
            ],
        )
        for topic in (USAGE_TOPIC, COMMAND_TOPIC)
    ]
    try:
        for changed in admin.incremental_alter_configs(changes).values():
            changed.result()
        yield
    finally:
        for deleted in admin.delete_topics([*INPUT_TOPICS, *OUTPUT_TOPICS]).values():
            deleted.result()


@dataclass
class Pipeline:
    """A pipeline with one worker and one relay."""

    kafka: str
    partitions: int
    database: PreparedDatabase
    folder: Path
    _failures: list[KafkaError] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._admin = AdminClient({"bootstrap.servers": self.kafka})
        self._producer = input_producer(self.kafka, self._failed)
        self._places = [TopicPartition(topic, n) for topic in INPUT_TOPICS for n in range(self.partitions)]
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._sent = 0

    @contextmanager
    def processes(self) -> Iterator[None]:
        """Run the worker and the relay inside the ``with`` block."""
        ports: set[int] = set()
        try:
            for name in ("worker", "relay"):
                port = free_port(ports)
                ports.add(port)
                self._running[name] = self._start(name, port)
            pages = [ReadyCheck("http", f"http://127.0.0.1:{port}/health") for port in ports]
            self._until("worker and relay serve", lambda: not any(map(why_not_ready, pages)))
            yield
        finally:
            for process in self._running.values():
                process.terminate()
            for process in self._running.values():
                process.wait(60)

    def decide(self, records: Sequence[Record]) -> None:
        """Send commands, then usage. Returns when all of it and everything that follows is decided and published."""
        for topic in (COMMAND_TOPIC, USAGE_TOPIC):
            for record in records:
                if record.topic == topic:
                    where = partition_of(record.account, self.partitions)
                    key, log_ms = record.account.encode(), record.log_us // 1000
                    self._sent += 1
                    self._producer.produce(topic, record.value, key, where, timestamp=log_ms)
            assert self._producer.flush(WAIT_SECONDS) == 0 and not self._failures, self._failures
        with self.database.connect() as connection:

            def is_idle() -> bool:
                # One SQL snapshot, then the log ends: what was committed before it is in the outbox or in Kafka.
                query = "SELECT (SELECT sum(next_offset) FROM position), (SELECT count(*) FROM outbox)"
                decided, unpublished = connection.execute(query).fetchone() or (0, 0)
                return unpublished == 0 and decided >= self._sent and decided == self._log_ends()

            self._until("everything is decided and published", is_idle)

    def _log_ends(self) -> int:
        asked = self._admin.list_offsets(dict.fromkeys(self._places, OffsetSpec.latest()))  # type: ignore[no-untyped-call]
        return sum(int(answer.result().offset) for answer in asked.values())

    def _start(self, name: str, port: int) -> subprocess.Popen[bytes]:
        servers = {"TOKENBILL_KAFKA": self.kafka, "TOKENBILL_DATABASE_URL": self.database.app_url}
        with (self.folder / f"{name}.log").open("wb") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tokenbill", name, "--web-port", str(port)],
                env={**os.environ, **servers, **python_environment()},
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not ready():
            ended = [name for name, process in self._running.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = {path.name: path.read_text()[-3_000:] for path in self.folder.glob("*.log")}
                raise AssertionError(f"not within {WAIT_SECONDS:.0f} s: {what}; ended: {ended}; {logs}")
            time.sleep(0.1)

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
