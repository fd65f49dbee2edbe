"""Reconciliation: publish what consumers lack after the database was replaced by an older copy.

The relay has stopped the partition, because the last published commit is not in the database. The workers have decided
the same input again. This module reads what was published after the last common commit, compares it with what the
database decided since (:mod:`billing.commits.published_output`), and publishes the rest under a new history. The
position moves in the last transaction, so an interrupted reconciliation is repeated: what it published is then found
published.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from aiokafka import TopicPartition as Place
from confluent_kafka import Consumer

from billing.calculator.core_records import pack_batches
from billing.commits.commit_record import OutboxPage, OutboxRow, OutputHistory
from billing.commits.outbox_frames import Frame, encode_frame, unpack_batches
from billing.commits.published_output import Anchor, PublishedOutput
from schemas.topics import BALANCE_TOPIC, FORWARD_TOPIC, OUTPUT_TOPICS
from streams.kafka_clients import offset_reader, whole_topic_reader
from streams.read.published import PublishedRecord, read_backwards
from streams.relay.published_position import PublishedPosition, differs, group_of, metadata_of, place_of, read_position
from streams.relay.publisher import Publisher
from streams.relay.relay import transactional_id_of
from streams.stream_errors import HistoryDiffers

log = logging.getLogger("tokenbill.relay")

_TIMEOUT_SECONDS = 30.0
_CHUNK_BYTES = 1 << 20
_PAGE_BYTES = 8 << 20


class HistoryStore(Protocol):
    """The part of ``billing.store.store.Store`` that a reconciliation uses; blocking."""

    def outbox_read(self, partition: int, after_commit_no: int, max_bytes: int, /) -> OutboxPage:
        """Return the whole commits after ``after_commit_no``, in publishing order."""

    def outbox_delete(self, partition: int, through_commit_no: int, /) -> None:
        """Delete the output of all commits up to ``through_commit_no``."""

    def commit_digest(self, partition: int, commit_no: int, /) -> bytes | None:
        """Return the digest of a commit; None if the database has no such commit."""

    def published(self, partition: int, /) -> int:
        """Return the number of the last commit whose output was deleted."""

    def last_commit(self, partition: int, /) -> int:
        """Return the number of the last commit."""

    def last_history(self, partition: int, /) -> OutputHistory | None:
        """Return the newest history of the partition; None in the first one."""

    def begin_histories(self, wanted: Sequence[OutputHistory], begun_by: str, /) -> list[OutputHistory]:
        """Begin histories and return them with the last commits of their partitions."""


@dataclass(slots=True)
class Reconciled:
    """Result for one partition: the number of records or usage events published by topic, and what does not agree."""

    partition: int
    why: str
    common_commit_no: int
    published_commit_no: int
    through_commit_no: int
    history: int
    published: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Difference:
    """A stopped partition: the history to begin, and what consumers have after the last common commit."""

    why: str
    wanted: OutputHistory
    seen: PublishedOutput


class OutputReconciliation:
    """Reconciliation of the stopped partitions of one installation."""

    def __init__(self, kafka: str, partitions: int, store: HistoryStore, topic_prefix: str = "") -> None:
        self._kafka = kafka
        self._partitions = partitions
        self._store = store
        self._prefix = topic_prefix

    def run(self, begun_by: str, dry_run: bool, forward: Callable[[list[OutboxRow]], None]) -> list[Reconciled]:
        """Reconcile every stopped partition; with ``dry_run`` only compare. Return one result per stopped partition.

        Every input record that the published output came from must be decided; the caller checks that. ``forward``
        sends forwarded records at least once. After an error of the broker run it again: nothing is published twice.

        Raises:
            HistoryDiffers: what is published cannot be compared with the database.
        """
        found = list(self._differences())
        if not found:
            return []
        if dry_run:
            begun = [
                replace(one.wanted, after_commit_no=self._store.last_commit(one.wanted.partition)) for one in found
            ]
        else:
            begun = self._store.begin_histories([one.wanted for one in found], begun_by)
        return [self._reconcile(one, history, dry_run, forward) for one, history in zip(found, begun, strict=True)]

    def _differences(self) -> Iterator[_Difference]:
        with (
            closing(offset_reader(self._kafka, group_of(self._prefix))) as offsets,
            closing(whole_topic_reader(self._kafka)) as reader,
        ):
            for partition in range(self._partitions):
                position = read_position(offsets, place_of(partition, self._prefix), _TIMEOUT_SECONDS)
                digest = self._store.commit_digest(partition, position.commit_no)
                why = differs(position, digest, self._store.published(partition))
                if why is not None:
                    yield self._compare(reader, partition, position, why)

    def _compare(self, reader: Consumer, partition: int, position: PublishedPosition, why: str) -> _Difference:
        before, in_sql = self._store.last_history(partition), self._store.published(partition)
        if in_sql > position.commit_no:
            raise HistoryDiffers(f"partition {partition}: {why}; Kafka has lost output that the database no longer has")
        published = bytes.fromhex(position.digest)
        interrupted = before is not None and (before.published_commit_no, before.published_digest) == (
            position.commit_no,
            published,
        )
        tails = {}
        if before is not None and interrupted:
            common = (before.history - 1, before.common_commit_no)
            for topic in OUTPUT_TOPICS:
                tails[topic] = self._tail(reader, topic, partition, lambda one: _at_or_before(one, common))
        else:
            common = (-1, -1)
            for topic in OUTPUT_TOPICS:
                tails[topic], last = self._tail_to_common(reader, topic, partition)
                common = max(common, last, key=lambda one: one[1])
                known = 0 if before is None else before.history
                self._check_same(partition, in_sql, known, tails[topic], why)
            # Commits without output leave no record. What the database knows to be published is common in any case.
            common = max(common, (0 if before is None else before.history, in_sql), key=lambda one: one[1])
        seen, newest = PublishedOutput(), 0
        settled = _settled(common, [one.anchor for records in tails.values() for one in records])
        for topic, records in tails.items():
            for record in records:
                number = record.anchor.history if record.anchor is not None else 0
                newest = max(newest, number)
                if number >= settled and not _at_or_before(record, common):
                    seen.add(topic, record.frame)
        history = max(newest, 0 if before is None else before.history) + 1
        wanted = OutputHistory(partition, history, 0, common[1], position.commit_no, published)
        return _Difference(why, wanted, seen)

    def _check_same(
        self, partition: int, in_sql: int, history: int, records: Sequence[PublishedRecord], why: str
    ) -> None:
        """Raise HistoryDiffers if a record follows another commit than the one that the database has published."""
        for record in records:
            anchor = record.anchor
            if anchor is None or anchor.previous_digest is None or anchor.commit_no - 1 > in_sql:
                continue
            if anchor.history < history:
                continue  # Replaced by a history that the database knows.
            digest = self._store.commit_digest(partition, anchor.commit_no - 1)
            if digest is None or digest.hex() != anchor.previous_digest:
                raise HistoryDiffers(
                    f"partition {partition}: {why}; and {record.topic} offset {record.offset} follows another commit "
                    f"{anchor.commit_no - 1} than this database has, so the two do not belong together"
                )

    def _tail(
        self, reader: Consumer, topic: str, partition: int, enough: Callable[[PublishedRecord], bool]
    ) -> list[PublishedRecord]:
        return read_backwards(reader, topic, partition, enough, self._prefix)

    def _tail_to_common(
        self, reader: Consumer, topic: str, partition: int
    ) -> tuple[list[PublishedRecord], tuple[int, int]]:
        """Return the last records back to a common commit, and (history, number) of the last common commit seen."""
        common = (-1, -1)

        def enough(record: PublishedRecord) -> bool:
            nonlocal common
            anchor = record.anchor
            if anchor is None or anchor.previous_digest is None:
                return False
            digest = self._store.commit_digest(partition, anchor.commit_no - 1)
            if digest is not None and digest.hex() == anchor.previous_digest:
                common = max(common, (anchor.history, anchor.commit_no - 1), key=lambda one: one[1])
            return _at_or_before(record, common)

        return self._tail(reader, topic, partition, enough), common

    def _reconcile(
        self, one: _Difference, history: OutputHistory, dry_run: bool, forward: Callable[[list[OutboxRow]], None]
    ) -> Reconciled:
        partition, through = history.partition, history.after_commit_no
        done = Reconciled(
            *(partition, one.why, history.common_commit_no, history.published_commit_no, through, history.history)
        )
        chunks = self._missing(one.seen, history, done, forward if not dry_run else lambda rows: None)
        if dry_run:
            for _ in chunks:
                pass
        else:
            self._publish(history, chunks)
            self._store.outbox_delete(partition, through)
        done.differences = one.seen.differences + one.seen.only_published()
        return done

    def _missing(
        self,
        seen: PublishedOutput,
        history: OutputHistory,
        done: Reconciled,
        forward: Callable[[list[OutboxRow]], None],
    ) -> Iterator[list[tuple[str, bytes]]]:
        """Yield the missing records in chunks of (topic, payload), in the order of their commits."""
        after, through = history.common_commit_no, history.after_commit_no
        while after < through:
            page = self._store.outbox_read(history.partition, after, _PAGE_BYTES)
            rows = [row for commit_no, row in page.rows if commit_no <= through]
            if not rows:
                break
            forward([row for row in rows if row.topic in FORWARD_TOPIC.values()])
            chunk = []
            for row in rows:
                if row.topic not in FORWARD_TOPIC.values():
                    frames = list(seen.missing(row.topic, list(unpack_batches(row.payload)), history))
                    chunk += list(_packed(row.topic, frames, done))
            yield chunk
            after = page.rows[-1][0]
        yield list(_packed(BALANCE_TOPIC, seen.missing_balances(), done))

    def _publish(self, history: OutputHistory, chunks: Iterator[list[tuple[str, bytes]]]) -> None:
        partition, through = history.partition, history.after_commit_no
        digest = self._store.commit_digest(partition, through)
        if digest is None:
            raise HistoryDiffers(f"partition {partition}: commit {through} is no longer in the database")
        here = Place(place_of(partition, self._prefix).topic, partition)
        old = metadata_of(PublishedPosition(history.published_commit_no, history.published_digest.hex()))
        new = metadata_of(PublishedPosition(through, digest.hex()))
        with closing(Publisher(self._kafka, transactional_id_of(partition, self._prefix), 60.0)) as publisher:
            publisher.open(_TIMEOUT_SECONDS)
            for chunk in chunks:
                rows = [(Place(self._prefix + topic, partition), payload) for topic, payload in chunk]
                if rows:
                    publisher.publish(rows, group_of(self._prefix), {here: old})
            publisher.publish([], group_of(self._prefix), {here: new})


def _packed(topic: str, frames: Sequence[Frame], done: Reconciled) -> Iterator[tuple[str, bytes]]:
    done.published[topic] += len(frames)
    at = 0
    while at < len(frames):
        part, size = [], 0
        while at < len(frames) and size < _CHUNK_BYTES:
            part.append(encode_frame(frames[at]))
            size += len(part[-1])
            at += 1
        yield topic, pack_batches(b"".join(part), 1)


def _settled(common: tuple[int, int], anchors: Sequence[Anchor | None]) -> int:
    """Return the history before which output was compared by a reconciliation that the database knows completely."""
    history, commit_no = common
    through = [
        one.compared_through for one in anchors if one is not None and one.history == history and one.compared_through
    ]
    return history if commit_no >= max(through, default=0) else 0


def _at_or_before(record: PublishedRecord, common: tuple[int, int]) -> bool:
    """True if a record belongs to the commits that both histories have, up to the (history, number) ``common``."""
    anchor = record.anchor
    return anchor is not None and anchor.history <= common[0] and anchor.commit_no <= common[1]
