"""Emitter of usage events for an inference worker: numbered per partition, with an idempotent producer.

    with Emitter("127.0.0.1:9092", "urn:worker:wuxi-tf01:node-17") as emitter:
        emitter.send("acct-000123", "2026-11-22T01:15:03.412Z", b'{"model":"deepseek-v3.2","usage":{"input":1200}}')

Each partition has a source of its own (``...node-17#p3``) with its own sequence. The pipeline can therefore store the
numbers it has seen as one run, and detect numbers that never arrived (docs/reference/principles.md, "Identity"). The
emitter does not use Kafka transactions, because the offsets of input topics must stay dense.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message

from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC
from streams.kafka_clients import input_producer
from streams.stream_errors import DeliveryFailed

_FLUSH_SECONDS = 60.0


class Emitter:
    """Producer of numbered usage events for one process; not safe for concurrent use by several threads.

    ``source`` must be new for each run, unless ``first_sequences`` (next number by partition) continues the numbers of
    the run before.
    """

    def __init__(
        self, kafka: str, source: str, *, topic: str = USAGE_TOPIC, first_sequences: Mapping[int, int] | None = None
    ) -> None:
        self._failures = 0
        self._first_failure: KafkaError | None = None
        self._producer = input_producer(kafka, self._on_failure)
        self._topic = topic
        found = self._producer.list_topics(topic, timeout=30.0).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        self.partitions = len(found.partitions)
        self._sources = [f"{source}#p{number}".encode() for number in range(self.partitions)]
        self._names = [source.encode() + b"-%d" % number for number in range(self.partitions)]
        self.next_sequences = [(first_sequences or {}).get(number, 1) for number in range(self.partitions)]
        self._partition_by_account: dict[str, int] = {}
        self.sent = 0

    def partition_of(self, account: str) -> int:
        """Return the partition that owns the account; cached, because the hash is computed in Python."""
        partition = self._partition_by_account.get(account)
        if partition is None:
            partition = self._partition_by_account[account] = partition_of(account, self.partitions)
        return partition

    def send(self, account: str, time: str, data: bytes, *, event_id: str | None = None) -> tuple[int, bytes]:
        """Number and send one event; return its partition and its bytes, for sending it again.

        ``data`` is the JSON of the event's data, ``time`` an RFC 3339 time.
        """
        partition = self.partition_of(account)
        sequence = self.next_sequences[partition]
        self.next_sequences[partition] = sequence + 1
        key = account.encode()
        name = b"%b-%d" % (self._names[partition], sequence) if event_id is None else event_id.encode()
        value = (
            b'{"specversion":"1.0","type":"token.usage.v1","source":"%b","id":"%b","sequence":"%d",'
            b'"time":"%b","subject":"%b","data":%b}'
        ) % (self._sources[partition], name, sequence, time.encode(), key, data)
        self.send_raw(partition, key, value)
        return partition, value

    def send_raw(self, partition: int, key: bytes | None, value: bytes) -> None:
        """Send bytes unchanged, for example an event again, to a wrong partition, or malformed.

        Raises:
            DeliveryFailed: Kafka refused an earlier record.
        """
        while True:
            try:
                self._producer.produce(self._topic, value, key, partition)
                break
            except BufferError:
                self._producer.poll(0.05)
                self._raise_failures()
        self.sent += 1
        if not self.sent % 4096:
            self._producer.poll(0)
            self._raise_failures()

    def flush(self) -> None:
        """Wait until Kafka has acknowledged every record.

        Raises:
            DeliveryFailed: a record was refused, or not acknowledged within a minute.
        """
        left = self._producer.flush(_FLUSH_SECONDS)
        self._raise_failures()
        if left:
            raise DeliveryFailed(f"{left} of {self.sent} records not acknowledged within {_FLUSH_SECONDS:g} s")

    def _on_failure(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures += 1
            self._first_failure = self._first_failure or error

    def _raise_failures(self) -> None:
        if self._failures:
            raise DeliveryFailed(f"{self._failures} of {self.sent} records refused, first: {self._first_failure}")

    def __enter__(self) -> Emitter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.flush()
