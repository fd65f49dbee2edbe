"""The Faust transport ``tokenbill``: one message per partition and fetch, with positions from SQL.

A plain Faust agent costs about 100 microseconds per Kafka message (four tasks and an event object for each). With this
transport an agent receives the records that one fetch returned for one partition as one
:class:`~streams.worker.intake.Batch` (docs/reference/principles.md, "Faust"). Only this module and
:mod:`streams.read.fetched` use the internals of Faust's and aiokafka's consumers;
``tests/streams/worker/test_transport_contract.py`` pins the names they use.

Reading starts at the positions that ``load_positions`` returns from SQL. The offsets in Kafka's consumer group are
written by :meth:`BatchConsumer.note_positions` as a hint for lag tools and are never read back.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, Fetcher
from aiokafka.errors import IllegalStateError, KafkaError
from faust.serializers.schemas import Schema
from faust.transport import drivers
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as aio
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from schemas.record_sizes import LARGEST_RECORD
from streams.kafka_clients import fetch_consumer
from streams.read import fetched
from streams.read.record_batches import LogStep
from streams.stream_errors import BrokerDown
from streams.worker.intake import Batch, InputPartition

log = logging.getLogger("tokenbill.transport")

_FULL_POLL_SECONDS = 0.02
"""Wait of one poll while some partition is paused by a full buffer, because it may resume at any moment."""

PositionLoader = Callable[[Iterable[InputPartition]], Awaitable[Mapping[InputPartition, int]]]


class BatchThread(aio.AIOKafkaConsumerThread):
    """Faust's consumer thread, with range assignment and batches as results.

    Range assignment keeps partition p of all input topics on one worker; Faust's default (round robin) does not.
    """

    def __post_init__(self) -> None:
        """Start with a seek count of zero for every partition."""
        super().__post_init__()
        self.seeks: dict[tuple[str, int], int] = defaultdict(int)
        self._end_reader: Fetcher | None = None

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        fetched.install()
        return fetch_consumer(
            aio.server_list(transport.url, transport.default_port),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            check_crcs=conf.broker_check_crcs,
            **aio.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def _fetch_records(  # type: ignore[override]
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: Any,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Batch]:
        fetched.unpack_results(consumer._fetcher, self._largest_record)
        # A copy, because the main thread changes Faust's set while this waits.
        found = await super()._fetch_records(consumer, set(active_partitions), timeout, max_records)
        # There is no await between taking the records and reading the seek counts, so they are consistent.
        return {
            ensure_TP(tp): Batch.of_steps(steps, self.seeks[ensure_TP(tp)])
            for tp, steps in cast(Mapping[Any, list[LogStep]], found).items()
        }

    def _largest_record(self, topic: str) -> int:
        return LARGEST_RECORD[topic.removeprefix(cast(Transport, self.transport).topic_prefix)]

    async def seek_now(self, offsets: Mapping[InputPartition, int]) -> None:
        """Seek the partitions that are still assigned; the next owner positions the others."""
        consumer = self._ensure_consumer()
        for place, offset in offsets.items():
            tp = self._tp(place)
            try:
                consumer.seek(tp, offset)
            except IllegalStateError:
                continue
            self.seeks[tp] += 1

    async def end_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the current end offset of each partition's log, which may be in a transaction that is still open.

        Raises:
            BrokerDown: the broker did not answer.
        """
        wanted = {self._tp(place): place for place in places}
        consumer = self._ensure_consumer()
        if self._end_reader is None:
            # The consumer itself is told the end of the committed records. A command that is acknowledged lies below
            # the end of the log, and may lie above the records of a transaction that is open.
            self._end_reader = copy.copy(consumer._fetcher)
            self._end_reader._isolation_level = READ_UNCOMMITTED
        try:
            ends = await self._end_reader.end_offsets(list(wanted), consumer._request_timeout_ms)
        except KafkaError as error:
            raise BrokerDown(f"end offsets: {error!r}") from error
        return {place: ends[tp] for tp, place in wanted.items()}

    async def start_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the offset of the first record that each partition's log still holds.

        Raises:
            BrokerDown: the broker did not answer.
        """
        wanted = {self._tp(place): place for place in places}
        try:
            starts = await self._ensure_consumer().beginning_offsets(list(wanted))
        except KafkaError as error:
            raise BrokerDown(f"start offsets: {error!r}") from error
        return {place: starts[tp] for tp, place in wanted.items()}

    async def note(self, offsets: Mapping[InputPartition, int]) -> None:
        """Commit the positions to the consumer group; a failure is only logged, because only lag tools read them."""
        consumer = self._ensure_consumer()
        held = consumer.assignment()
        hints = {tp: OffsetAndMetadata(end, "") for place, end in offsets.items() if (tp := self._tp(place)) in held}
        if not hints:
            return
        try:
            await consumer.commit(hints)
        except (KafkaError, IllegalStateError) as error:
            log.info("positions not noted in Kafka: %r", error)

    async def positions(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the consumer's next read offset of each partition that is assigned and positioned."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return {}
        states = {place: assignment.state_value(tp) for place in places if (tp := self._tp(place)) in assignment.tps}
        return {place: state.position for place, state in states.items() if state.has_valid_position}

    def _tp(self, place: InputPartition) -> TopicPartition:
        return TopicPartition(cast(Transport, self.transport).topic_prefix + place[0], place[1])

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Disable Faust's livelock detection: the worker watches progress against SQL."""


class _Forgetful(dict[TP, Any]):
    """Faust's map of read offsets, kept empty.

    With remembered offsets Faust would drop a batch that is read again, by its last offset (see ``Intake.offer``).
    """

    def __getitem__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: Any) -> None:
        return None

    def update(self, *_: Any, **__: Any) -> None:
        """Store nothing."""


class BatchConsumer(aio.Consumer):
    """Faust consumer that delivers one message per partition and fetch, and starts at the positions in SQL."""

    _thread: BatchThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Forgetful()
        self._room = asyncio.Event()
        self._ends_wanted: set[InputPartition] = set()
        self._ends_next: asyncio.Task[dict[InputPartition, int]] | None = None
        self._ends_lock = asyncio.Lock()

    def _new_consumer_thread(self) -> BatchThread:
        return BatchThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to_committed(self) -> Mapping[Any, int]:
        """Seek the assigned partitions to their positions in SQL.

        Faust calls this at every rebalance and whenever the flow was stopped.
        """
        transport = cast(Transport, self.transport)
        if transport.load_positions is None:
            raise RuntimeError("the transport was started without a source of positions")
        positions = await transport.load_positions([transport.place(tp) for tp in self.assignment()])
        await self.rewind(positions)
        return {}  # Faust would remember these offsets and drop records that are read again.

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        """Seek to these offsets; batches read afterwards carry a seek count that is higher by one."""
        await self._thread.call_thread(self._thread.seek_now, offsets)

    async def read_positions(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the consumer's next read offsets, which may be ahead of the delivered records."""
        result: dict[InputPartition, int] = await self._thread.call_thread(self._thread.positions, places)
        return result

    async def note_positions(self, offsets: Mapping[InputPartition, int]) -> None:
        """Commit the positions of SQL to Kafka's consumer group, for lag tools."""
        await self._thread.call_thread(self._thread.note, offsets)

    async def end_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return log end offsets, read after this call began; concurrent callers share one request."""
        wanted = set(places)
        self._ends_wanted |= wanted
        if self._ends_next is None:
            self._ends_next = asyncio.ensure_future(self._ask_ends())
        ends = await asyncio.shield(self._ends_next)
        return {place: ends[place] for place in wanted}

    async def start_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Return the offset of the first record that each log still holds."""
        result: dict[InputPartition, int] = await self._thread.call_thread(self._thread.start_offsets, list(places))
        return result

    async def _ask_ends(self) -> dict[InputPartition, int]:
        async with self._ends_lock:
            wanted, self._ends_wanted, self._ends_next = self._ends_wanted, set(), None
            result: dict[InputPartition, int] = await self._thread.call_thread(self._thread.end_offsets, wanted)
            return result

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Clear the set of paused partitions, then do what Faust does on revocation."""
        self._buffered_partitions.clear()
        await super().on_partitions_revoked(revoked)

    def on_buffer_drop(self, tp: TP) -> None:
        """Fetch at once when a paused partition has room again, instead of after Faust's wait of one second."""
        super().on_buffer_drop(tp)
        self._room.set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """Yield the result of one fetch, one message per partition."""
        if self.flow_active and not self._get_active_partitions():
            self._room.clear()
            await self.wait_first(self._room.wait(), timeout=0.25)
            return
        wait_seconds = _FULL_POLL_SECONDS if self._buffered_partitions else timeout
        batches, active = await self._wait_next_records(wait_seconds)
        generation = self.app.consumer_generation_id
        if batches is None or self.should_stop:
            return
        if not self.flow_active:
            return  # These records belong to a past assignment; the next assignment is positioned from SQL.
        for tp, batch in cast(Mapping[TP, Batch], batches).items():
            if batch.start == batch.end:
                continue  # The consumer is passing over a record that is too large to read.
            if not self.flow_active or generation != self.app.consumer_generation_id:
                break
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, _message(tp, batch, generation)


def _message(tp: TP, batch: Batch, generation: int) -> ConsumerMessage:
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        batch.end - 1,
        batch.records[-1].timestamp / 1000.0 if len(batch.records) else 0.0,
        1,
        None,
        None,
        cast(Any, batch),
        None,
        0,
        batch.size_bytes,
        tp,
        generation_id=generation,
    )


class BatchSchema(Schema):  # type: ignore[type-arg]
    """Faust schema that passes a batch through without decoding it."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """Return the decoder that Faust's conductor calls; it decodes nothing."""
        create_event = app.create_event

        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        return decode


class Transport(aio.Transport):
    """Faust transport for broker URLs of the form ``tokenbill://host:port``."""

    Consumer = BatchConsumer
    topic_prefix = ""
    """Prefix of every topic name in Kafka, so that several installations can share a broker."""
    load_positions: PositionLoader | None = None
    """Returns next offsets from SQL; set by the application. Partitions it omits are positioned later by a rewind."""

    def place(self, tp: TP) -> InputPartition:
        """Return (topic, partition) with the topic name that the rest of the pipeline uses, without the prefix."""
        return tp.topic.removeprefix(self.topic_prefix), tp.partition


drivers.TRANSPORTS.aliases["tokenbill"] = "streams.worker.transport:Transport"
