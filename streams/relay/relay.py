"""Relay: publishes the outbox, each record exactly once and in commit order, in Kafka transactions.

Each partition has one thread and one transactional producer. The position (the number of the next commit to publish) is
committed in the same Kafka transaction as the records, so a crash at any point neither repeats nor skips a record: rows
that SQL still holds below Kafka's position are deleted without being sent (docs/reference/principles.md,
"Publishing"). The position holds the digest of the last published commit. While the database has another commit of that
number, or none, the partition is stopped: nothing of it is published or deleted (docs/decisions/older-database.md). The
relay makes no decisions and does not read the payload: an outbox row is sent as it is.
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
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from billing.commits.commit_record import OutboxPage, OutboxRow
from billing.commits.outbox_frames import Frame, unpack_frames
from billing.errors import DatabaseDown, OutboxDamaged
from schemas.topics import FORWARD_TOPIC
from streams.kafka_clients import input_producer, offset_reader
from streams.relay.published_position import PublishedPosition, differs, group_of, metadata_of, place_of, read_position
from streams.relay.publisher import Publisher
from streams.relay.relay_metrics import RelayMetrics
from streams.stream_errors import HistoryDiffers, OutputTooLarge, PublisherFailed, PublisherFenced, RelayFenced

log = logging.getLogger("tokenbill.relay")

FORWARD_TOPICS = frozenset(FORWARD_TOPIC.values())
_TOO_LARGE = KafkaError.MSG_SIZE_TOO_LARGE
_TIMEOUT_SECONDS = 30.0
_HUNG_MARGIN_SECONDS = 5.0
_WATCH_SECONDS = 1.0
RECONCILE_HINT = "run `tokenbill relay reconcile`"


def transactional_id_of(partition: int, topic_prefix: str) -> str:
    """Return the transactional id under which the output of a partition is published."""
    return f"{topic_prefix}tokenbill-relay-{partition}"


class CommitListener(Protocol):
    """Notification of new output; implemented by ``billing.store.outbox_rows.Listener``."""

    def wait(self, timeout_seconds: float) -> set[int]:
        """Return the partitions with new output, empty after the timeout; raises DatabaseDown."""


class OutboxStore(Protocol):
    """The part of ``billing.store.store.Store`` that the relay uses; blocking, thread-safe."""

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int, /) -> OutboxPage:
        """Return the whole commits after ``after_commit_no``, in publishing order; raises OutboxDamaged."""

    def outbox_delete(self, partition: int, through_commit_no: int, /) -> None:
        """Delete the output of all commits up to ``through_commit_no``."""

    def commit_digest(self, partition: int, commit_no: int, /) -> bytes | None:
        """Return the digest of a commit; None if the database has no such commit."""

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
        self.stopped = False
        """True while publishing waits for a person; ``why_not_ready`` gives the reason."""
        self.in_transaction_since: float | None = None
        """Monotonic time at which the current Kafka transaction began, or None."""
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._stop = stop
        self._published = PublishedPosition(0)
        self._forward_failures: list[tuple[KafkaError, str]] = []
        self._forwarder: Producer | None = None
        self._position = place_of(partition, settings.topic_prefix)
        self._offsets = offset_reader(settings.kafka, group_of(settings.topic_prefix), log)

    def run(self) -> None:
        """Publish until stopped; retry while the broker or the database is down, or a topic takes no batch so large.

        Raises:
            RelayFenced: another relay fenced this one.
        """
        wait_seconds, longest = self._settings.backoff_seconds
        while not self._stop.is_set():
            try:
                with closing(self._open()) as publisher:
                    self._go_on()
                    wait_seconds = self._settings.backoff_seconds[0]
                    self._publish_until_stopped(publisher)
            except (HistoryDiffers, OutboxDamaged) as error:
                self._stand_still(error)
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

    def _go_on(self) -> None:
        if self.stopped:
            log.info("p%d: publishing goes on after commit %d", self.partition, self._published.commit_no)
        self.why_not_ready, self.stopped = "", False
        self._metrics.stopped.labels(str(self.partition)).set(0)

    def _stand_still(self, error: Exception) -> None:
        """Say that the partition is stopped, and wait, without a publisher, until its position is that of the database.

        A publisher of ours would fence that of ``tokenbill relay reconcile``.
        """
        damaged = isinstance(error, OutboxDamaged)
        why = f"{error}; nothing of this partition is published or deleted" + ("" if damaged else f"; {RECONCILE_HINT}")
        if why != self.why_not_ready:
            log.critical("p%d: stopped: %s", self.partition, why)
        self.why_not_ready, self.stopped = why, True
        self._metrics.stopped.labels(str(self.partition)).set(1)
        while not self._stop.wait(self._settings.poll_seconds):
            try:
                self._check(self._read_position())
                if damaged:
                    self._store.outbox_read(self.partition, self._published.commit_no, 1)
            except (HistoryDiffers, OutboxDamaged):
                continue
            return

    def _read_position(self) -> PublishedPosition:
        return read_position(self._offsets, self._position, _TIMEOUT_SECONDS)

    def _check(self, position: PublishedPosition) -> None:
        """Raise HistoryDiffers if this position is not one of the database."""
        digest = self._store.commit_digest(self.partition, position.commit_no)
        why = differs(position, digest, self._store.published(self.partition))
        if why is not None:
            raise HistoryDiffers(why)

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
            transactional_id_of(self.partition, self._settings.topic_prefix),
            self._settings.transaction_timeout_seconds,
        )
        try:
            publisher.open(_TIMEOUT_SECONDS)
            position = self._read_position()
            in_sql = self._store.published(self.partition)
            if position.known:
                self._check(position)
                self._published = position
            else:
                digest = self._store.commit_digest(self.partition, in_sql)
                if digest is None:
                    raise HistoryDiffers(f"the database says that commit {in_sql} is published, and has no such commit")
                self._published = PublishedPosition(in_sql, digest.hex())
            if self._published.commit_no > in_sql:
                self._store.outbox_delete(self.partition, self._published.commit_no)
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
            after, most = self._published, self._settings.max_transaction_bytes
            page = self._store.outbox_read(self.partition, after.commit_no, most)
            why = differs(after, page.before, 0)
            if why is not None:
                raise HistoryDiffers(why)
            if page.rows:
                self._publish(publisher, page)
            else:
                self.wake.wait(self._settings.poll_seconds)

    def _publish(self, publisher: Publisher, page: OutboxPage) -> None:
        """Publish the rows. This method fixes the order of effects on which crash safety rests.

        First the forwarded records are sent at least once; their target partition drops repeats. Then the records and
        the position are committed in one Kafka transaction. The rows in SQL are deleted last: after a crash before
        that, Kafka's position is beyond the rows, and they are deleted without being sent.
        """
        begun = time.perf_counter()
        rows = page.rows
        last = PublishedPosition(rows[-1][0], page.last.hex())
        self.forward([row for _, row in rows if row.topic in FORWARD_TOPICS])
        self.in_transaction_since = time.monotonic()
        try:
            publisher.publish(
                [(self._place(row.topic), row.payload) for _, row in rows if row.topic not in FORWARD_TOPICS],
                group_of(self._settings.topic_prefix),
                {Place(self._position.topic, self.partition): metadata_of(last)},
            )
        finally:
            self.in_transaction_since = None
        self._published = last
        self._store.outbox_delete(self.partition, last.commit_no)
        self._metrics.published(self.partition, rows, time.perf_counter() - begun)

    def _place(self, topic: str) -> Place:
        return Place(self._settings.topic_prefix + topic, self.partition)

    def forward(self, rows: list[OutboxRow]) -> None:
        """Send forwarded records at least once; raises KafkaException if some were not acknowledged."""
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
        """Return ``ready`` and ``missing``, the reasons why the relay is not ready, and its ``stopped`` partitions.

        ``serving`` is true if every partition is published or stopped: the process itself lacks nothing.
        """
        missing = [f"partition {part.partition}: {part.why_not_ready}" for part in self.parts if part.why_not_ready]
        stopped = [{"partition": part.partition, "why": part.why_not_ready} for part in self.parts if part.stopped]
        return {"ready": not missing, "missing": missing, "serving": len(missing) == len(stopped), "stopped": stopped}

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
