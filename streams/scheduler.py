"""Scheduler: sends a time-passed command to each partition that has overdue accounts but receives no records.

The command advances the partition's log time, and the writer then rolls forward every account that is due by then
(docs/reference/principles.md, "Time-driven change"). One command per partition and tick is enough, however many
accounts are due. The scheduler makes no billing decision; the wall clock only determines when it sends.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from confluent_kafka import KafkaError, Message
from prometheus_client import CollectorRegistry, Counter, Gauge

from billing.record_keys import RecordKeys
from schemas.cloudevents import write_structured
from schemas.commands import PassTime
from schemas.topics import COMMAND_TOPIC
from streams.kafka_clients import input_producer
from streams.send.sender import own_headers

log = logging.getLogger("tokenbill.scheduler")

SCHEDULER_SOURCE = "urn:tokenbill:scheduler"
SCHEDULER_TICK_SECONDS = 2.0
OVERDUE_SECONDS = 3
"""An account must be overdue by this long before a command is sent; with traffic, the writer handles it earlier."""
LATE_SECONDS = 60.0
"""Time after the last tick at which the scheduler is not ready: more than a tick takes while Kafka is away."""
_FLUSH_SECONDS = 30.0


class SchedulerMetrics:
    """The Prometheus metrics of one scheduler, in a registry of their own so that a test process can hold several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ticks = Counter("tokenbill_scheduler_ticks", "Looks for overdue accounts", registry=self.registry)
        self.due = Gauge(
            "tokenbill_scheduler_due_partitions", "Partitions with an overdue account", registry=self.registry
        )
        self.commands = Counter("tokenbill_scheduler_commands", "Commands that Kafka took", registry=self.registry)
        self.failures = Counter(
            "tokenbill_scheduler_failures", "Commands that Kafka did not take", registry=self.registry
        )
        self.last_tick = Gauge(
            "tokenbill_scheduler_last_tick_timestamp_seconds", "Time of the last look", registry=self.registry
        )


class DueStore(Protocol):
    """The part of ``billing.store.store.Store`` that the scheduler uses."""

    def first_due(self, before_us: int, /) -> list[tuple[int, str]]:
        """Return (partition, account due first) for each partition with an account due before ``before_us``."""

    def record_keys(self) -> RecordKeys:
        """Return the keys that mark our records."""


class Scheduler:
    """Sends the commands at a fixed interval.

    One scheduler is enough. A second one sends further commands, which do not change any result.
    """

    def __init__(self, kafka: str, store: DueStore, metrics: SchedulerMetrics | None = None) -> None:
        self._store = store
        self._metrics = metrics or SchedulerMetrics()
        self._ticked = 0.0
        self._why_failed = ""
        self._producer = input_producer(kafka, self._on_failure)
        self._ended = threading.Event()

    def end(self) -> None:
        """Make :meth:`run` return after the current tick."""
        self._ended.set()

    def run(self) -> None:
        """Tick until :meth:`end`.

        Raises:
            DatabaseDown: the database is unreachable; the process supervisor restarts the process.
        """
        while not self._ended.wait(SCHEDULER_TICK_SECONDS):
            self.tick(time.time_ns() // 1000)
        self._producer.flush(_FLUSH_SECONDS)

    def health(self) -> dict[str, object]:
        """Return ``ready`` and ``missing``, the reasons why the scheduler is not ready."""
        missing = [self._why_failed] if self._why_failed else []
        if not self._ticked:
            missing.append("it has not looked for overdue accounts yet")
        elif time.monotonic() - self._ticked > LATE_SECONDS:
            missing.append(f"it has not looked for overdue accounts for {time.monotonic() - self._ticked:.0f} s")
        return {"ready": not missing, "missing": missing}

    def tick(self, now_us: int) -> int:
        """Send a command to each partition with an account overdue by ``OVERDUE_SECONDS``; return the number sent."""
        due = self._store.first_due(now_us - OVERDUE_SECONDS * 1_000_000)
        keys = self._store.record_keys()
        self._metrics.ticks.inc()
        self._metrics.due.set(len(due))
        self._why_failed = ""
        for partition, account in due:
            command = write_structured(PassTime.TYPE, SCHEDULER_SOURCE, f"{account}@{now_us}", now_us, account, {})
            key = account.encode()
            headers = own_headers(keys, COMMAND_TOPIC, key, command)
            self._producer.produce(COMMAND_TOPIC, command, key, partition=partition, headers=[*headers])
        left = self._producer.flush(_FLUSH_SECONDS)
        if left:
            self._why_failed = f"Kafka has not taken {left} commands"
        self._ticked = time.monotonic()
        self._metrics.last_tick.set_to_current_time()
        return len(due)

    def _on_failure(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            self._metrics.commands.inc()
        else:
            self._metrics.failures.inc()
            self._why_failed = f"Kafka has not taken a command: {error}"
            log.warning("a command was not taken, the next tick sends another: %s", error)
