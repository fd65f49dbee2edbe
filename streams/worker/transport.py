"""The Faust transport ``tokenbill``: one message per partition and fetch, and positions that come from SQL.

A plain Faust agent pays about 100 microseconds per Kafka message (four tasks and an event object for each); here an
agent receives what one fetch brought from one partition as one :class:`~streams.worker.intake.Batch`. The only
module, with
:mod:`streams.worker.fetched`, that knows Faust's and aiokafka's consumer internals;
``tests/streams/worker/test_transport_contract.py`` pins the names they use.

It commits nothing: where reading begins is asked of ``load_positions`` (SQL), and what Kafka's group remembers is
written by :meth:`BatchConsumer.note_positions` as a hint for lag tools only.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, OffsetAndMetadata, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError
from faust.serializers.schemas import Schema
from faust.transport import drivers
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as aio
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from billing.calculator.core_records import PackedRecords
from streams.worker import fetched
from streams.worker.intake import Batch, BrokerDown, InputPartition, joined

log = logging.getLogger("tokenbill.transport")

FETCH_WAIT_MS = 50
"""aiokafka keeps one fetch per broker on its way: while idle topics hold it, a busy one is not refilled."""
FETCH_BYTES = 32 << 20
_FULL_POLL_SECONDS = 0.02
"""How long a fetch waits while some partition is held back by a full buffer (it may have room again any moment)."""

PositionLoader = Callable[[Iterable[InputPartition]], Awaitable[Mapping[InputPartition, int]]]


class BatchThread(aio.AIOKafkaConsumerThread):
    """Faust's consumer thread, assigning by range and handing out batches.

    Range keeps partition p of all input topics on one worker; Faust's own choice (round robin) does not.
    """

    def __post_init__(self) -> None:
        """Start without any seek."""
        super().__post_init__()
        self.seeks: dict[tuple[str, int], int] = defaultdict(int)

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        conf = self.app.conf
        fetched.install()
        return AIOKafkaConsumer(
            bootstrap_servers=aio.server_list(transport.url, transport.default_port),
            client_id=conf.broker_client_id,
            group_id=conf.id,
            group_instance_id=conf.consumer_group_instance_id,
            partition_assignment_strategy=[RangePartitionAssignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=conf.broker_max_poll_records,
            max_poll_interval_ms=int(conf.broker_max_poll_interval * 1000),
            max_partition_fetch_bytes=conf.consumer_max_fetch_size,
            fetch_max_bytes=FETCH_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
            request_timeout_ms=int(conf.broker_request_timeout * 1000),
            session_timeout_ms=int(conf.broker_session_timeout * 1000),
            rebalance_timeout_ms=int(conf.broker_rebalance_timeout * 1000),
            heartbeat_interval_ms=int(conf.broker_heartbeat_interval * 1000),
            check_crcs=conf.broker_check_crcs,
            isolation_level="read_uncommitted",
            **aio.credentials_to_aiokafka_auth(conf.broker_credentials, conf.ssl_context),
        )

    async def _fetch_records(  # type: ignore[override]
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: Any,
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Batch]:
        fetched.unpack_results(consumer._fetcher)
        # A copy: the main thread changes Faust's set while this waits.
        found = await super()._fetch_records(consumer, set(active_partitions), timeout, max_records)
        # No await between taking the records and reading the seeks, so the two belong together.
        return {
            ensure_TP(tp): Batch(joined(parts), self.seeks[ensure_TP(tp)])
            for tp, parts in cast(Mapping[Any, list[PackedRecords]], found).items()
        }

    async def seek_now(self, offsets: Mapping[InputPartition, int]) -> None:
        """Seek those that are still assigned; of the others the next owner positions itself."""
        consumer = self._ensure_consumer()
        for place, offset in offsets.items():
            tp = self._tp(place)
            try:
                consumer.seek(tp, offset)
            except IllegalStateError:
                continue
            self.seeks[tp] += 1

    async def end_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Where each log ends now.

        Raises:
            BrokerDown: no answer.
        """
        wanted = {self._tp(place): place for place in places}
        try:
            ends = await self._ensure_consumer().end_offsets(list(wanted))
        except KafkaError as error:
            raise BrokerDown(f"end offsets: {error!r}") from error
        return {place: ends[tp] for tp, place in wanted.items()}

    async def note(self, offsets: Mapping[InputPartition, int]) -> None:
        """Write the positions to the consumer group. Only lag tools read them, so a failure is a line in the log."""
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
        """Where the consumer reads next, for those it holds and has positioned."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return {}
        states = {place: assignment.state_value(tp) for place in places if (tp := self._tp(place)) in assignment.tps}
        return {place: state.position for place, state in states.items() if state.has_valid_position}

    def _tp(self, place: InputPartition) -> TopicPartition:
        return TopicPartition(cast(Transport, self.transport).topic_prefix + place[0], place[1])

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Faust's own livelock guesses are off: progress is watched against SQL."""


class _Forgetful(dict[TP, Any]):
    """Faust's read offsets, never remembered: it would drop a re-read batch by its last offset (see Intake.offer)."""

    def __getitem__(self, tp: TP) -> None:
        return None

    def __setitem__(self, tp: TP, offset: Any) -> None:
        return None

    def update(self, *_: Any, **__: Any) -> None:
        """Remember nothing."""


class BatchConsumer(aio.Consumer):
    """Delivers one message per (partition, fetch) and starts where SQL says."""

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
        """Position what is assigned from SQL. Runs at every rebalance and whenever the flow was stopped."""
        transport = cast(Transport, self.transport)
        if transport.load_positions is None:
            raise RuntimeError("the transport was started without a source of positions")
        positions = await transport.load_positions([transport.place(tp) for tp in self.assignment()])
        await self.rewind(positions)
        return {}  # What Faust would remember of it, it would use to drop what is read again.

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        """Read again from these offsets; batches read from there on have seen one seek more."""
        await self._thread.call_thread(self._thread.seek_now, offsets)

    async def read_positions(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Where the consumer reads next (not what was delivered)."""
        result: dict[InputPartition, int] = await self._thread.call_thread(self._thread.positions, places)
        return result

    async def note_positions(self, offsets: Mapping[InputPartition, int]) -> None:
        """Tell Kafka's group where SQL is, for lag tools."""
        await self._thread.call_thread(self._thread.note, offsets)

    async def end_offsets(self, places: Iterable[InputPartition]) -> dict[InputPartition, int]:
        """Log ends, read after this call began. Callers that wait at the same time share one request."""
        wanted = set(places)
        self._ends_wanted |= wanted
        if self._ends_next is None:
            self._ends_next = asyncio.ensure_future(self._ask_ends())
        ends = await asyncio.shield(self._ends_next)
        return {place: ends[place] for place in wanted}

    async def _ask_ends(self) -> dict[InputPartition, int]:
        async with self._ends_lock:
            wanted, self._ends_wanted, self._ends_next = self._ends_wanted, set(), None
            result: dict[InputPartition, int] = await self._thread.call_thread(self._thread.end_offsets, wanted)
            return result

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Nothing is held back any more when everything is taken away."""
        self._buffered_partitions.clear()
        await super().on_partitions_revoked(revoked)

    def on_buffer_drop(self, tp: TP) -> None:
        """A held back partition has room again: fetch at once, not after Faust's second."""
        super().on_buffer_drop(tp)
        self._room.set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        """What one fetch brought, one message per partition."""
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
            return  # What was fetched belongs to an assignment that is over; the next one is positioned anew.
        for tp, batch in cast(Mapping[TP, Batch], batches).items():
            if not self.flow_active or generation != self.app.consumer_generation_id:
                break
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, _message(tp, batch, generation)


def _message(tp: TP, batch: Batch, generation: int) -> ConsumerMessage:
    last = batch.records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000.0,
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
    """Hands a batch through undecoded."""

    def compile(self, app: Any, **_: Any) -> Callable[..., Awaitable[Any]]:
        """The decoder that Faust's conductor calls: none."""
        create_event = app.create_event

        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:
            return create_event(None, message.value, None, message)

        return decode


class Transport(aio.Transport):
    """``tokenbill://host:port``."""

    Consumer = BatchConsumer
    topic_prefix = ""
    """Stands before every topic's name in Kafka, so that installations can share a broker."""
    load_positions: PositionLoader | None = None
    """Set by the application: next offsets from SQL; what is missing in the answer is positioned later, by a rewind."""

    def place(self, tp: TP) -> InputPartition:
        """(topic, partition) as the rest of the pipeline names it."""
        return tp.topic.removeprefix(self.topic_prefix), tp.partition


drivers.TRANSPORTS.aliases["tokenbill"] = "streams.worker.transport:Transport"
