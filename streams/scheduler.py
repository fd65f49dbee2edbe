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

from billing.record_keys import RecordKeys, own_header
from schemas.cloudevents import write_structured
from schemas.commands import PassTime
from schemas.topics import COMMAND_TOPIC
from streams.kafka_clients import input_producer
from streams.send.emitter import JSON_HEADERS

log = logging.getLogger("tokenbill.scheduler")

SCHEDULER_SOURCE = "urn:tokenbill:scheduler"
SCHEDULER_TICK_SECONDS = 2.0
OVERDUE_SECONDS = 3
"""An account must be overdue by this long before a command is sent; with traffic, the writer handles it earlier."""
_FLUSH_SECONDS = 30.0


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

    def __init__(self, kafka: str, store: DueStore) -> None:
        self._store = store
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

    def tick(self, now_us: int) -> int:
        """Send a command to each partition with an account overdue by ``OVERDUE_SECONDS``; return the number sent."""
        due = self._store.first_due(now_us - OVERDUE_SECONDS * 1_000_000)
        keys = self._store.record_keys()
        for partition, account in due:
            command = write_structured(PassTime.TYPE, SCHEDULER_SOURCE, f"{account}@{now_us}", now_us, account, {})
            mark = own_header(keys, COMMAND_TOPIC, account.encode(), command, JSON_HEADERS)
            self._producer.produce(
                COMMAND_TOPIC, command, account.encode(), partition=partition, headers=[*JSON_HEADERS, mark]
            )
        self._producer.flush(_FLUSH_SECONDS)
        return len(due)

    def _on_failure(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            log.warning("a command was not taken, the next tick sends another: %s", error)
