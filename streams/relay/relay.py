"""Relay: publishes the outbox, each record exactly once and in commit order, in Kafka transactions.

Each partition has one thread and one transactional producer. The position (the number of the next commit to publish) is
committed in the same Kafka transaction as the records, so a crash at any point neither repeats nor skips a record: rows
that SQL still holds below Kafka's position are deleted without being sent (docs/reference/principles.md,
"Publishing"). The relay makes no decisions and does not read the payload: an outbox row is sent as it is.
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
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from billing.commits.commit_record import OutboxRow
from billing.commits.outbox_frames import Frame, unpack_frames
from billing.errors import DatabaseDown
from schemas.topics import FORWARD_TOPIC, OUTPUT_TOPICS
from streams.kafka_clients import input_producer, offset_reader
from streams.relay.publisher import Publisher
from streams.relay.relay_metrics import RelayMetrics
from streams.stream_errors import OutputTooLarge, PublisherFailed, PublisherFenced, RelayFenced

log = logging.getLogger("tokenbill.relay")

RELAY_GROUP = "tokenbill-relay"
POSITION_TOPIC = OUTPUT_TOPICS[0]
"""Topic of the relay's position: the group's committed offset on (this topic, partition) is the number of the next
commit to publish. No consumer belongs to the group."""
FORWARD_TOPICS = frozenset(FORWARD_TOPIC.values())
_TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
_TIMEOUT_SECONDS = 30.0
_HUNG_MARGIN_SECONDS = 5.0
_WATCH_SECONDS = 1.0


class CommitListener(Protocol):
    """Notification of new output; implemented by ``billing.store.outbox_rows.Listener``."""

    def wait(self, timeout_seconds: float) -> set[int]:
        """Return the partitions with new output, empty after the timeout; raises DatabaseDown."""


class OutboxStore(Protocol):
    """The part of ``billing.store.store.Store`` that the relay uses; blocking, thread-safe."""

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int, /) -> list[tuple[int, OutboxRow]]:
        """Return (commit number, row) of the whole commits after ``after_commit_no``, in publishing order."""

    def outbox_delete(self, partition: int, through_commit_no: int, /) -> None:
        """Delete the output of all commits up to ``through_commit_no``."""

    def published(self, partition: int, /) -> int:
        """Return the number of the last commit whose output was deleted."""

    def listen(self) -> AbstractContextManager[CommitListener]:
        """Subscribe to notifications of commits."""


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """Settings of a relay process."""

    kafka: str
    partitions: int
    topic_prefix: str = ""
    max_transaction_bytes: int = 2 << 20
    """Limit of payload bytes per transaction, as stored in SQL; a single commit may exceed it."""
    transaction_timeout_seconds: float = 10.0
    poll_seconds: float = 1.0
    backoff_seconds: tuple[float, float] = (0.1, 5.0)


class PartitionRelay:
    """Publisher of one partition's outbox; runs in a thread of its own until stopped."""

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
        """Set after the first attempt to open a publisher, whether or not it succeeded."""
        self.why_not_ready = "not started"
        self.in_transaction_since: float | None = None
        """Monotonic time at which the current Kafka transaction began, or None."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._stop = stop
        self._published = 0
        self._forward_failures: list[tuple[KafkaError, str]] = []
        self._forwarder: Producer | None = None
        self._position = TopicPartition(settings.topic_prefix + POSITION_TOPIC, partition)
        self._offsets = offset_reader(settings.kafka, settings.topic_prefix + RELAY_GROUP, log)

    def run(self) -> None:
        """Publish until stopped; retry while the broker or the database is down, or a topic takes no batch so large.

        Raises:
            RelayFenced: another relay fenced this one.
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
                raise RelayFenced(f"partition {self.partition}: {error}") from error
            except OutputTooLarge as error:
                self._back_off("too_large", error, wait_seconds)
            except (PublisherFailed, KafkaException) as error:
                self._back_off("broker", error, wait_seconds)
            wait_seconds = min(2 * wait_seconds, longest)
        self._offsets.close()

    def _back_off(self, what: str, error: Exception, seconds: float) -> None:
        self.why_not_ready = f"{what}: {error}"
        self._metrics.failures.labels(what).inc()
        trouble = "output too large" if what == "too_large" else f"{what} down"
        log.warning("p%d: %s, retrying in %.1f s: %s", self.partition, trouble, seconds, error)
        self._stop.wait(seconds)

    def _open(self) -> Publisher:
        """Open a publisher, which fences every earlier one, and then read the position.

        The order matters: opening commits or aborts a transaction that an earlier publisher left open, and only then is
        the position final.
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
        except BaseException:  # Re-raised; on any error the publisher must be closed.
            publisher.close()
            raise
        finally:
            self.tried.set()
        return publisher

    def _publish_until_stopped(self, publisher: Publisher) -> None:
        while not self._stop.is_set():
            self.wake.clear()
            self._offsets.poll(0)  # librdkafka delivers its log lines only during a poll.
            rows = self._store.outbox_read(self.partition, self._published, self._settings.max_transaction_bytes)
            if rows:
                self._publish(publisher, rows)
            else:
                self.wake.wait(self._settings.poll_seconds)

    def _publish(self, publisher: Publisher, rows: list[tuple[int, OutboxRow]]) -> None:
        """Publish the rows. This method fixes the order of effects on which crash safety rests.

        First the forwarded records are sent at least once; their target partition drops repeats. Then the records and
        the position are committed in one Kafka transaction. The rows in SQL are deleted last: after a crash before
        that, Kafka's position is beyond the rows, and they are deleted without being sent.
        """
        begun = time.perf_counter()
        last = rows[-1][0]
        self._forward([row for _, row in rows if row.topic in FORWARD_TOPICS])
        self.in_transaction_since = time.monotonic()
        try:
            publisher.publish(
                [(self._place(row.topic), row.payload) for _, row in rows if row.topic not in FORWARD_TOPICS],
                self._settings.topic_prefix + RELAY_GROUP,
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
            self._forwarder = None  # Records it still holds may arrive late or twice; the target drops repeats.
            for error, topic in self._forward_failures:
                raise OutputTooLarge(topic) if error.code() == _TOO_LARGE else KafkaException(error)
            raise KafkaException(KafkaError(KafkaError._MSG_TIMED_OUT))

    def _forward_failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._forward_failures.append((error, message.topic() or "?"))


def _send(producer: Producer, topic: str, frame: Frame) -> None:
    while True:
        try:
            producer.produce(topic, frame.value, frame.key, frame.target_partition, headers=list(frame.headers) or None)
            return
        except BufferError:
            producer.poll(0.05)


class Relay:
    """The partition relays of one process: their threads, wake-ups, and the first failure."""

    def __init__(
        self,
        settings: RelaySettings,
        store: OutboxStore,
        metrics: RelayMetrics,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        """``leave`` ends the process at once, without waiting for threads that hang."""
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
        """Publish until :attr:`stop` is set; return the exit code."""
        threads = [threading.Thread(target=self._guard, args=(part.run,), name=f"relay-{part.partition}")
                   for part in self.parts]  # fmt: skip
        threads.append(threading.Thread(target=self._guard, args=(self._listen,), name="listen"))
        threads[0].start()
        # A new broker creates its internal coordinator topics at the first request for a coordinator. Repeated requests
        # of a hundred partitions delayed this by a minute, so one partition asks first and the others follow.
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
        """Stop after the publications in progress."""
        self.stop.set()
        for part in self.parts:
            part.wake.set()

    def health(self) -> dict[str, object]:
        """Return ``ready`` and ``missing``, the reasons why the relay is not ready."""
        missing = [f"partition {part.partition}: {part.why_not_ready}" for part in self.parts if part.why_not_ready]
        return {"ready": not missing, "missing": missing}

    def _leave_if_hung(self) -> None:
        """End the process if a transaction does not end, in spite of the client's own time limit.

        This happened with librdkafka, in some runs, after a kill -9 of Kafka under load. The broker has already aborted
        such a transaction, and the next process fences it when it starts.
        """
        # The broker's transaction timeout, plus the time a publisher takes to give up and to close.
        limit = 2 * self._settings.transaction_timeout_seconds + _HUNG_MARGIN_SECONDS
        for part in self.parts:
            since = part.in_transaction_since
            if since is not None and time.monotonic() - since > limit:
                log.critical("p%d: a transaction has not ended for %.0f s, starting anew", part.partition, limit)
                self._leave(1)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # Any error ends the process; the supervisor restarts it.
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
