"""Publishes the outbox: each record once, in commit order, in Kafka transactions that carry the relay's own position.

One thread and one transactional producer per partition. The position (the next commit to publish) is committed in the
same Kafka transaction as the records, so a crash anywhere repeats nothing and skips nothing: what SQL still holds
below Kafka's position is only dropped. Decides nothing and looks into no value: an outbox row is sent as it is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from typing import Protocol

from aiokafka import TopicPartition as Place
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from billing.commits.commit_record import OutboxRow
from billing.commits.outbox_frames import Frame, unpack_frames
from billing.errors import DatabaseDown
from schemas.topics import FORWARD_TOPIC, OUTPUT_TOPICS
from streams.relay.publisher import Publisher, PublisherFailed, PublisherFenced
from streams.relay.relay_metrics import RelayMetrics
from streams.send.emitter import input_producer

log = logging.getLogger("tokenbill.relay")

GROUP = "tokenbill-relay"
POSITION_TOPIC = OUTPUT_TOPICS[0]
"""The group's offset of (this topic, partition) is the next commit number to publish; nobody consumes in the group."""
FORWARD_TOPICS = frozenset(FORWARD_TOPIC.values())
_TIMEOUT_SECONDS = 30.0
_HUNG_MARGIN_SECONDS = 5.0
_WATCH_SECONDS = 1.0


class Wakener(Protocol):
    """``billing.store.outbox_rows.Listener``."""

    def wait(self, timeout_seconds: float) -> set[int]:
        """Partitions with new output, empty after the timeout; raises DatabaseDown."""


class OutboxStore(Protocol):
    """The part of ``billing.store.Store`` that the relay uses; blocking, thread-safe."""

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int, /) -> list[tuple[int, OutboxRow]]:
        """Output of whole commits after a commit, in publishing order."""

    def outbox_delete(self, partition: int, through_commit_no: int, /) -> None:
        """Drop what was published."""

    def published(self, partition: int, /) -> int:
        """The last commit whose output was dropped."""

    def listen(self) -> AbstractContextManager[Wakener]:
        """Hear of commits."""


class Superseded(Exception):
    """Another relay publishes this partition, or the broker says that this one must not go on."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay process runs."""

    kafka: str
    partitions: int
    topic_prefix: str = ""
    max_transaction_bytes: int = 2 << 20
    """As in SQL; one commit may exceed it."""
    transaction_timeout_seconds: float = 10.0
    poll_seconds: float = 1.0
    backoff_seconds: tuple[float, float] = (0.1, 5.0)


class PartitionRelay:
    """Publishes one partition until stopped. Runs in a thread of its own."""

    def __init__(
        self,
        partition: int,
        *,
        settings: RelaySettings,
        store: OutboxStore,
        metrics: RelayMetrics,
        stop: threading.Event,
    ) -> None:
        self.partition = partition
        self.wake = threading.Event()
        self.tried = threading.Event()
        """Set when it has opened its publisher once, or could not."""
        self.why_not_ready = "not started"
        self.in_transaction_since: float | None = None
        """Monotonic time at which the Kafka transaction under way began."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._stop = stop
        self._published = 0
        self._forward_failures: list[KafkaError] = []
        self._forwarder: Producer | None = None
        self._position = TopicPartition(settings.topic_prefix + POSITION_TOPIC, partition)
        self._offsets = Consumer(
            {
                "bootstrap.servers": settings.kafka,
                "group.id": settings.topic_prefix + GROUP,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            },
            logger=log,
        )

    def run(self) -> None:
        """Publish until stopped; waits out a broker or database that is down.

        Raises:
            Superseded: fenced by another relay.
        """
        wait_seconds, longest = self._settings.backoff_seconds
        while not self._stop.is_set():
            try:
                with closing(self._open()) as publisher:
                    self.why_not_ready = ""
                    wait_seconds = self._settings.backoff_seconds[0]
                    self._publish_until_stopped(publisher)
            except DatabaseDown as error:
                self._back_off("database", error, wait_seconds)
            except PublisherFenced as error:
                raise Superseded(f"partition {self.partition}: {error}") from error
            except (PublisherFailed, KafkaException) as error:
                self._back_off("broker", error, wait_seconds)
            wait_seconds = min(2 * wait_seconds, longest)
        self._offsets.close()

    def _back_off(self, what: str, error: Exception, seconds: float) -> None:
        self.why_not_ready = f"{what}: {error}"
        self._metrics.failures.labels(what).inc()
        log.warning("p%d: %s down, retrying in %.1f s: %s", self.partition, what, seconds, error)
        self._stop.wait(seconds)

    def _open(self) -> Publisher:
        """A publisher that has fenced every earlier one, and the position that is certain after that.

        The order matters: opening completes or aborts what an earlier publisher left open.
        """
        publisher = Publisher(
            self._settings.kafka,
            f"{self._settings.topic_prefix}tokenbill-relay-{self.partition}",
            self._settings.transaction_timeout_seconds,
        )
        try:
            publisher.open(_TIMEOUT_SECONDS)
            (found,) = self._offsets.committed([self._position], timeout=_TIMEOUT_SECONDS)
            if found.error is not None:
                raise KafkaException(found.error)
            in_sql = self._store.published(self.partition)
            self._published = max(found.offset - 1, in_sql)
            if self._published > in_sql:
                self._store.outbox_delete(self.partition, self._published)
        except BaseException:  # Whatever it is goes on up; a half-open publisher must not stay.
            publisher.close()
            raise
        finally:
            self.tried.set()
        return publisher

    def _publish_until_stopped(self, publisher: Publisher) -> None:
        while not self._stop.is_set():
            self.wake.clear()
            self._offsets.poll(0)  # Lines of librdkafka's log wait for a poll.
            rows = self._store.outbox_read(self.partition, self._published, self._settings.max_transaction_bytes)
            if rows:
                self._publish(publisher, rows)
            else:
                self.wake.wait(self._settings.poll_seconds)

    def _publish(self, publisher: Publisher, rows: list[tuple[int, OutboxRow]]) -> None:
        """The order of effects of one publication; crash safety is read here.

        Forwards first, at least once: their target drops what it has. Then records and position together or not at
        all. SQL forgets last: a crash before that finds Kafka's position beyond the rows and only drops them.
        """
        begun = time.perf_counter()
        last = rows[-1][0]
        self._forward([row for _, row in rows if row.topic in FORWARD_TOPICS])
        self.in_transaction_since = time.monotonic()
        try:
            publisher.publish(
                [(self._place(row.topic), row.payload) for _, row in rows if row.topic not in FORWARD_TOPICS],
                self._settings.topic_prefix + GROUP,
                {self._place(POSITION_TOPIC): last + 1},
            )
        finally:
            self.in_transaction_since = None
        self._published = last
        self._store.outbox_delete(self.partition, last)
        self._metrics.published(self.partition, rows, time.perf_counter() - begun)

    def _place(self, topic: str) -> Place:
        return Place(self._settings.topic_prefix + topic, self.partition)

    def _forward(self, rows: list[OutboxRow]) -> None:
        if not rows:
            return
        if self._forwarder is None:
            self._forwarder = input_producer(self._settings.kafka, self._forward_failed)
        self._forward_failures.clear()
        for row in rows:
            for frame in unpack_frames(row.payload):
                _send(self._forwarder, self._settings.topic_prefix + row.topic, frame)
        left = self._forwarder.flush(_TIMEOUT_SECONDS)
        if self._forward_failures or left:
            self._forwarder = None  # What it still holds may arrive late and twice; the target drops it.
            raise KafkaException(next(iter(self._forward_failures), KafkaError(KafkaError._MSG_TIMED_OUT)))

    def _forward_failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._forward_failures.append(error)


def _send(producer: Producer, topic: str, frame: Frame) -> None:
    while True:
        try:
            producer.produce(topic, frame.value, frame.key, frame.target_partition, headers=list(frame.headers) or None)
            return
        except BufferError:
            producer.poll(0.05)


class Relay:
    """All partitions of a relay process: threads, wake-ups, and the first failure."""

    def __init__(
        self,
        settings: RelaySettings,
        store: OutboxStore,
        metrics: RelayMetrics,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """``leave`` ends the process at once, without waiting for threads that will never end."""
        self.stop = threading.Event()
        self._leave = leave
        self.failure: BaseException | None = None
        self._store = store
        self._settings = settings
        self.parts = [
            PartitionRelay(number, settings=settings, store=store, metrics=metrics, stop=self.stop)
            for number in range(settings.partitions)
        ]

    def run(self) -> int:
        """Publish until :attr:`stop` is set; returns the exit code."""
        threads = [threading.Thread(target=self._guard, args=(part.run,), name=f"relay-{part.partition}")
                   for part in self.parts]  # fmt: skip
        threads.append(threading.Thread(target=self._guard, args=(self._listen,), name="listen"))
        threads[0].start()
        # A broker that was just made makes the topics of its coordinators when it is first asked for one. A hundred
        # partitions that asked again and again kept it from that for a minute: so one asks, then the others.
        while not self.parts[0].tried.wait(_WATCH_SECONDS) and not self.stop.is_set():
            pass
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(_WATCH_SECONDS)
                self._leave_if_hung()
        return 0 if self.failure is None else 1

    def end(self) -> None:
        """Let the publications under way end, then stop."""
        self.stop.set()
        for part in self.parts:
            part.wake.set()

    def health(self) -> dict[str, object]:
        """Why the relay is not ready; ``ready`` when nothing is missing."""
        missing = [f"partition {part.partition}: {part.why_not_ready}" for part in self.parts if part.why_not_ready]
        return {"ready": not missing, "missing": missing}

    def _leave_if_hung(self) -> None:
        """End the process when a transaction does not end, whatever the client's own time limit says.

        It happened with librdkafka (kill -9 of Kafka under load, in some runs). The broker has aborted such a
        transaction long since, and the next process begins by fencing it.
        """
        # The broker's own limit of a transaction, and the time a publisher takes to give up and to close.
        limit = 2 * self._settings.transaction_timeout_seconds + _HUNG_MARGIN_SECONDS
        for part in self.parts:
            since = part.in_transaction_since
            if since is not None and time.monotonic() - since > limit:
                log.critical("p%d: a transaction has not ended for %.0f s, starting anew", part.partition, limit)
                self._leave(1)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # Whatever it is ends the process; the supervisor starts it anew.
            log.critical("relay stops: %s", error, exc_info=error)
            self.failure = self.failure or error
        finally:
            self.end()

    def _listen(self) -> None:
        while not self.stop.is_set():
            try:
                with self._store.listen() as listener:
                    for part in self.parts:
                        part.wake.set()
                    while not self.stop.is_set():
                        for number in listener.wait(self._settings.poll_seconds):
                            self.parts[number].wake.set()
            except DatabaseDown as error:
                log.warning("not listening, polling instead: %s", error)
                self.stop.wait(self._settings.poll_seconds)
