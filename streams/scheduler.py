"""Lets time pass where nothing else happens: sends a command for what is due on a partition whose log stands still.

A command moves the log's time, and the writer then rolls everything that is due by it (DESIGN 12); so one command a
partition and tick is enough, however many accounts are due. Decides nothing; the clock only chooses when to send.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

from confluent_kafka import KafkaError, Message

from schemas.cloudevents import write_structured
from schemas.commands import PassTime
from schemas.topics import COMMAND_TOPIC
from streams.send.emitter import JSON_HEADERS, input_producer

log = logging.getLogger("tokenbill.scheduler")

SOURCE = "urn:tokenbill:scheduler"
TICK_SECONDS = 2.0
PATIENCE_SECONDS = 3
"""What is due for less is left to the writer: on a partition with traffic it comes by itself."""
_FLUSH_SECONDS = 30.0


class DueStore(Protocol):
    """The part of ``billing.store.Store`` that the scheduler uses."""

    def first_due(self, before_us: int, /) -> list[tuple[int, str]]:
        """By partition the account that is due first, where one was due before a time."""


class Scheduler:
    """One at a time is enough; two send twice, which changes nothing."""

    def __init__(self, kafka: str, store: DueStore) -> None:
        self._store = store
        self._producer = input_producer(kafka, self._on_failure)
        self._ended = threading.Event()

    def end(self) -> None:
        """Let :meth:`run` return soon."""
        self._ended.set()

    def run(self) -> None:
        """Tick until :meth:`end`.

        Raises:
            DatabaseDown: the database is away; whoever supervises the process starts it anew.
        """
        while not self._ended.wait(TICK_SECONDS):
            self.tick(time.time_ns() // 1000)
        self._producer.flush(_FLUSH_SECONDS)

    def tick(self, now_us: int) -> int:
        """Send a command to each partition where something has been due for a while; how many were sent."""
        due = self._store.first_due(now_us - PATIENCE_SECONDS * 1_000_000)
        for partition, account in due:
            command = write_structured(PassTime.TYPE, SOURCE, f"{account}@{now_us}", now_us, account, {})
            self._producer.produce(
                COMMAND_TOPIC, command, account.encode(), partition=partition, headers=[*JSON_HEADERS]
            )
        self._producer.flush(_FLUSH_SECONDS)
        return len(due)

    def _on_failure(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            log.warning("a command was not taken, the next tick sends another: %s", error)
