"""The writer of one partition, with a log and a store in memory that keep the contracts of the real ones."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from small_ledger import SmallRecord, small_record

from billing.commits.commit_record import CommitRecord, PartitionState
from billing.commits.input_batch import InputBatch, PlainRecord
from billing.commits.partition_stop import PartitionStop
from billing.errors import CatalogMoved, DatabaseDown, Fenced, HeldMoved
from schemas.topics import COMMAND_FORWARDED_TOPIC, COMMAND_TOPIC, INPUT_TOPICS, USAGE_FORWARDED_TOPIC, USAGE_TOPIC
from streams.stream_errors import BrokerDown, LogBroken, PartitionStopped, Undecided
from streams.worker.intake import Batch, InputPartition
from streams.worker.worker_metrics import WorkerMetrics
from streams.worker.writer import PartitionWriter, WriterSettings

Decided = list[tuple[str, int, int]]


class MemoryStore:
    """Store in memory that compares and sets epoch and positions; each next commit raises one of ``failures``."""

    def __init__(self) -> None:
        self.epoch = 0
        self.catalog_now = 1
        self.next = dict.fromkeys(INPUT_TOPICS, 0)
        self.commits: list[Decided] = []
        self.failures: list[Exception | None] = []
        self.fail_after_commit: Exception | None = None
        self.acquire_failures: list[Exception] = []
        self.stop: PartitionStop | None = None
        self.skipped = 0
        self.due: list[str] = []
        self.undecidable: set[int] = set()
        """Offsets of usage that the rules fail on."""

    def acquire(self, partition: int) -> tuple[int, PartitionState]:
        if self.acquire_failures:
            raise self.acquire_failures.pop(0)
        self.epoch += 1
        return self.epoch, PartitionState(partition, 1, positions=dict(self.next))

    def stop_of(self, partition: int) -> PartitionStop | None:
        return self.stop

    def catalog(self) -> tuple[int, object]:
        return self.catalog_now, None

    def due_accounts(self, partition: int, log_time_us: int, limit: int) -> list[str]:
        return self.due

    def commit(self, epoch: int, record: CommitRecord) -> bytes:
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        if record.catalog_epoch != self.catalog_now:
            raise CatalogMoved(self.catalog_now)
        if epoch != self.epoch or any(self.next[move.topic] != move.start for move in record.positions):
            raise Fenced("another owner")
        for move in record.positions:
            self.next[move.topic] = move.end
        assert isinstance(record, SmallRecord)
        self.skipped += sum(batch.skipped for batch in record.rows)
        self.commits.append([(batch.topic, batch.start, batch.end) for batch in record.rows])
        if self.fail_after_commit is not None:
            failure, self.fail_after_commit = self.fail_after_commit, None
            raise failure
        return b""


class MemoryEngine:
    """Engine that must be discarded after a failure, as the real one must: using it again is an error."""

    def __init__(self, state: PartitionState, catalog_epoch: int, catalog: object) -> None:
        self.next = dict(state.positions)
        self.partition = state.partition
        self.catalog_epoch = catalog_epoch
        self.pending: Sequence[InputBatch] | None = None
        self.undecidable: set[int] = set()

    def prepare(self, batches: Sequence[InputBatch]) -> None:
        """Do nothing: there is no state to load."""

    def decide(self, batches: Sequence[InputBatch], due: Sequence[str] = ()) -> CommitRecord:
        assert self.pending is None, "the decision before was not committed"
        for batch in batches:
            assert self.next[batch.topic] == batch.start
            offsets = [record.offset for record in batch.records]
            assert len(offsets) + batch.skipped == batch.end - batch.start
            assert batch.skipped or offsets == list(range(batch.start, batch.end))
            if batch.topic == USAGE_TOPIC and self.undecidable.intersection(offsets):
                raise OverflowError(f"offset {self.undecidable}")
        if "broken" in due:
            raise ValueError("an account")
        self.pending = batches
        return small_record(self.partition, batches, self.catalog_epoch)

    def committed(self, digest: bytes) -> None:
        assert self.pending is not None
        self.next.update((batch.topic, batch.end) for batch in self.pending)
        self.pending = None


class MemoryLog:
    """The logs of the four input topics, in memory; records rewinds and can simulate a broker that is down."""

    def __init__(self) -> None:
        self.ends = dict.fromkeys(INPUT_TOPICS, 0)
        self.starts = dict.fromkeys(INPUT_TOPICS, 0)
        self.rewinds: list[dict[str, int]] = []
        self.seeks = 0
        self.down = 0

    async def rewind(self, offsets: Mapping[InputPartition, int]) -> None:
        self.seeks += 1
        self.rewinds.append({topic: offset for (topic, _), offset in offsets.items()})

    async def end_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        await asyncio.sleep(0)
        if self.down:
            self.down -= 1
            raise BrokerDown("no answer")
        return {place: self.ends[place[0]] for place in places}

    async def start_offsets(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        return {place: self.starts[place[0]] for place in places}

    async def read_positions(self, places: Iterable[InputPartition]) -> Mapping[InputPartition, int]:
        return {}


class Bench:
    """A running writer with its log, store and executor; ``deliver`` offers it a batch as the transport does."""

    def __init__(self, store: MemoryStore, settings: WriterSettings) -> None:
        self.store = store
        self.log = MemoryLog()
        self.executor = ThreadPoolExecutor(2)
        self.writer = PartitionWriter(
            0, store=store, kafka_log=self.log, make_engine=self._engine, executor=self.executor,
            metrics=WorkerMetrics(), settings=settings, turns=threading.Semaphore(1),
        )  # fmt: skip
        self.task = asyncio.create_task(self.writer.run())

    def _engine(self, state: PartitionState, catalog_epoch: int, catalog: object) -> "MemoryEngine":
        engine = MemoryEngine(state, catalog_epoch, catalog)
        engine.undecidable = self.store.undecidable
        return engine

    async def deliver(self, topic: str, start: int, end: int, seeks: int | None = None) -> None:
        self.log.ends[topic] = max(self.log.ends[topic], end)
        records = [PlainRecord(offset, 0, None, b"x") for offset in range(start, end)]
        await self.writer.offer(topic, Batch(records, self.log.seeks if seeks is None else seeks))

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"did not happen; commits {self.store.commits}, rewinds {self.log.rewinds}")

    async def positioned(self) -> None:
        await self.until(lambda: self.writer.positioned)

    @property
    def usage(self) -> list[tuple[int, int]]:
        return [(start, end) for commit in self.store.commits for topic, start, end in commit if topic == USAGE_TOPIC]


def with_writer(
    scenario: Callable[[Bench], Awaitable[None]],
    *,
    prepare: Callable[[MemoryStore], None] = lambda store: None,
    settings: WriterSettings = WriterSettings(backoff_seconds=(0.01, 0.02), commands_wait_seconds=0.05),
) -> MemoryStore:
    store = MemoryStore()
    prepare(store)

    async def run() -> None:
        bench = Bench(store, settings)
        try:
            await asyncio.wait_for(scenario(bench), 20)
        finally:
            await bench.writer.stop(bench.task)
            bench.executor.shutdown()

    asyncio.run(run())
    return store


def test_begins_where_sql_says() -> None:
    async def scenario(bench: Bench) -> None:
        bench.log.ends[USAGE_TOPIC] = 9
        await bench.positioned()
        assert bench.log.rewinds == [dict.fromkeys(INPUT_TOPICS, 0) | {USAGE_TOPIC: 7}]
        await bench.deliver(USAGE_TOPIC, 5, 9)
        await bench.until(lambda: bench.usage == [(7, 9)])

    with_writer(scenario, prepare=lambda store: store.next.update({USAGE_TOPIC: 7}))


def test_one_commit_holds_all_topics_in_their_order() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends.update({COMMAND_TOPIC: 2, COMMAND_FORWARDED_TOPIC: 1})
        await bench.deliver(USAGE_FORWARDED_TOPIC, 0, 3)
        await bench.deliver(USAGE_TOPIC, 0, 4)
        await bench.deliver(COMMAND_FORWARDED_TOPIC, 0, 1)
        await bench.deliver(COMMAND_TOPIC, 0, 2)
        await bench.until(lambda: sum(map(len, bench.store.commits)) == 4)
        flat = [one for commit in bench.store.commits for one in commit]
        assert {one[0] for one in flat[:2]} == {COMMAND_TOPIC, COMMAND_FORWARDED_TOPIC}
        assert flat[2:] == [(USAGE_TOPIC, 0, 4), (USAGE_FORWARDED_TOPIC, 0, 3)]

    with_writer(scenario)


def test_usage_waits_for_commands_acknowledged_before_it_was_fetched() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends[COMMAND_TOPIC] = 5
        await bench.deliver(USAGE_TOPIC, 0, 10)
        await bench.deliver(COMMAND_TOPIC, 0, 3)
        await bench.until(lambda: bench.store.next[COMMAND_TOPIC] == 3)
        await asyncio.sleep(0.02)
        assert bench.usage == [], "two commands are still missing"
        await bench.deliver(COMMAND_TOPIC, 3, 5)
        await bench.until(lambda: bench.usage == [(0, 10)])

    with_writer(scenario)


def test_commands_that_do_not_arrive_are_read_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends[COMMAND_TOPIC] = 2
        await bench.deliver(USAGE_TOPIC, 0, 1)
        await bench.until(lambda: {COMMAND_TOPIC: 0} in bench.log.rewinds)
        await bench.deliver(COMMAND_TOPIC, 0, 2)
        await bench.until(lambda: bench.usage == [(0, 1)])

    with_writer(scenario)


def test_more_commands_than_one_commit_may_hold_do_not_block() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends[COMMAND_TOPIC] = 100
        await bench.deliver(USAGE_TOPIC, 0, 5)

        async def commands() -> None:
            for start in range(0, 100, 10):
                await bench.deliver(COMMAND_TOPIC, start, start + 10)

        await commands()
        await bench.until(lambda: bench.usage == [(0, 5)])
        assert bench.store.next[COMMAND_TOPIC] == 100

    with_writer(scenario, settings=WriterSettings(max_commit_records=15))


def test_a_commit_holds_no_more_than_it_may() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        for start in range(0, 100, 20):
            await bench.deliver(USAGE_TOPIC, start, start + 20)
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 100)
        assert max(end - start for start, end in bench.usage) <= 30

    with_writer(scenario, settings=WriterSettings(max_commit_records=30))


def test_a_gap_rewinds_to_the_next_offset() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.deliver(USAGE_TOPIC, 8, 12)
        assert bench.log.rewinds[-1] == {USAGE_TOPIC: 5}
        await bench.deliver(USAGE_TOPIC, 12, 14, seeks=0)
        await bench.deliver(USAGE_TOPIC, 5, 14)
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 14)

    with_writer(scenario)


def test_a_hole_that_survives_the_re_read_stops_the_partition() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 3, 5)
        await bench.deliver(USAGE_TOPIC, 3, 5)
        await bench.until(bench.task.done)
        with pytest.raises(LogBroken, match="from 0 to 5"):
            bench.task.result()

    assert with_writer(scenario).commits == []


def test_a_log_shorter_than_the_position_in_sql_stops_the_partition() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.until(bench.task.done)
        with pytest.raises(LogBroken, match="ends at 0, but 7 was committed"):
            bench.task.result()

    with_writer(scenario, prepare=lambda store: store.next.update({USAGE_TOPIC: 7}))


def test_when_the_catalogue_moved_the_same_input_is_decided_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.catalog_now = 2
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: bench.usage == [(0, 5)])
        assert len(bench.log.rewinds) == 1, "nothing was read again"
        assert bench.writer.catalog_epoch == 2

    assert with_writer(scenario).epoch == 2


def test_when_a_hold_was_taken_meanwhile_the_same_input_is_decided_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.failures = [HeldMoved("taken"), HeldMoved("taken again")]
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: bench.usage == [(0, 5)])
        assert len(bench.log.rewinds) == 1, "nothing was read again"

    assert with_writer(scenario).epoch == 3


def test_a_newer_catalogue_is_taken_when_the_worker_hears_of_it() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.catalog_now = 3
        bench.writer.catalog_moved(3)
        await bench.until(lambda: bench.writer.catalog_epoch == 3)

    with_writer(scenario)


def test_database_down_before_the_commit_loses_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.failures = [DatabaseDown("gone")]
        bench.store.acquire_failures = [DatabaseDown("still gone")] * 3
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: len(bench.log.rewinds) == 2)
        await bench.positioned()
        assert bench.log.rewinds[-1][USAGE_TOPIC] == 0
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: bench.usage == [(0, 5)])

    with_writer(scenario)


def test_database_down_after_the_commit_counts_nothing_twice() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.fail_after_commit = DatabaseDown("the answer was lost")
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: len(bench.log.rewinds) == 2)
        assert bench.log.rewinds[-1][USAGE_TOPIC] == 5
        await bench.deliver(USAGE_TOPIC, 3, 8)
        await bench.until(lambda: bench.usage == [(0, 5), (5, 8)])

    with_writer(scenario)


def test_fenced_ends_the_writer() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.epoch += 1
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(bench.task.done)
        with pytest.raises(Fenced):
            bench.task.result()

    assert with_writer(scenario).commits == []


def test_a_broken_invariant_is_not_swallowed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.store.failures = [ZeroDivisionError("a bug")] * 9
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(bench.task.done)
        with pytest.raises(Undecided, match="ZeroDivisionError"):
            bench.task.result()

    assert with_writer(scenario).commits == []


@pytest.mark.parametrize("bad", [0, 7, 123, 299])
def test_a_record_that_the_rules_fail_on_is_found_and_all_before_it_are_committed(bad: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(COMMAND_TOPIC, 0, 3)
        await bench.deliver(USAGE_TOPIC, 0, 300)
        await bench.until(bench.task.done)
        with pytest.raises(Undecided) as stopped:
            bench.task.result()
        stop = stopped.value.stop
        assert (stop.kind, stop.topic, stop.offset, stop.last) == ("undecided", USAGE_TOPIC, bad, bad)
        assert f"--topic usage.events --after {bad} " in stop.resume

    store = with_writer(scenario, prepare=lambda store: store.undecidable.add(bad))
    assert (store.next[USAGE_TOPIC], store.next[COMMAND_TOPIC]) == (bad, 3)


def test_changes_due_by_time_that_fail_are_told_from_records() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(bench.task.done)
        with pytest.raises(Undecided, match="changes due by time failed, no record did: ValueError"):
            bench.task.result()

    store = with_writer(scenario, prepare=lambda store: store.due.append("broken"))
    assert store.next[USAGE_TOPIC] == 5, "the records are committed without them"


def test_a_stopped_partition_stays_stopped() -> None:
    stop = PartitionStop(0, "missing", "the log lacks offsets", USAGE_TOPIC, 3, 4)

    async def scenario(bench: Bench) -> None:
        await bench.until(bench.task.done)
        with pytest.raises(PartitionStopped, match="lacks offsets"):
            bench.task.result()

    assert with_writer(scenario, prepare=lambda store: setattr(store, "stop", stop)).epoch == 0


def test_what_lies_before_a_hole_is_committed_and_retention_is_named() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 0, 3)
        bench.log.starts[USAGE_TOPIC] = 6
        await bench.deliver(USAGE_TOPIC, 6, 9)
        await bench.deliver(USAGE_TOPIC, 6, 9)
        await bench.until(bench.task.done)
        with pytest.raises(LogBroken, match="deleted by retention before they were read: offsets 3 to 5") as stopped:
            bench.task.result()
        assert (stopped.value.kind, stopped.value.offset, stopped.value.last) == ("deleted", 3, 5)

    assert with_writer(scenario).next[USAGE_TOPIC] == 3


def test_offsets_below_the_start_of_the_log_that_were_committed_are_no_trouble() -> None:
    def prepare(store: MemoryStore) -> None:
        store.next[USAGE_TOPIC] = 7

    async def scenario(bench: Bench) -> None:
        bench.log.starts[USAGE_TOPIC] = bench.log.ends[USAGE_TOPIC] = 7
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 7, 9)
        await bench.until(lambda: bench.usage == [(7, 9)])

    with_writer(scenario, prepare=prepare)


def test_a_position_below_the_start_of_the_log_stops_the_partition_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        bench.log.starts[USAGE_TOPIC] = bench.log.ends[USAGE_TOPIC] = 7
        await bench.until(bench.task.done)
        with pytest.raises(LogBroken, match="deleted by retention before they were read: offsets 0 to 6"):
            bench.task.result()

    with_writer(scenario)


def test_skipped_offsets_are_committed_with_and_without_records() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends[USAGE_TOPIC] = 9
        records = [PlainRecord(offset, 0, None, b"x") for offset in (0, 3)]
        await bench.writer.offer(USAGE_TOPIC, Batch(records, bench.log.seeks, skips=[(1, 3), (4, 6)]))
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 6)
        await bench.writer.offer(USAGE_TOPIC, Batch([], bench.log.seeks, skips=[(6, 9)], span=(6, 9)))
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 9)

    store = with_writer(scenario)
    assert store.skipped == 7


def test_a_broker_that_does_not_answer_is_asked_again() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.down = 1
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await bench.until(lambda: bench.usage == [(0, 5)])

    with_writer(scenario)


def test_a_full_buffer_holds_the_offer_back_and_stop_lets_it_go() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        bench.log.ends[COMMAND_TOPIC] = 1  # This command is never delivered, so usage is never committed.
        await bench.deliver(USAGE_TOPIC, 0, 20)
        held = asyncio.create_task(bench.deliver(USAGE_TOPIC, 20, 30))
        await asyncio.sleep(0.02)
        assert not held.done()
        assert bench.writer.waiting[USAGE_TOPIC] == 1
        await bench.writer.stop(bench.task)
        await asyncio.wait_for(held, 1)

    with_writer(scenario, settings=WriterSettings(max_commit_records=10))


def test_stop_waits_for_the_commit_in_flight() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        loop = asyncio.get_running_loop()
        begun, may_end = asyncio.Event(), asyncio.Event()
        commit = bench.store.commit

        def slow(epoch: int, record: CommitRecord) -> None:
            loop.call_soon_threadsafe(begun.set)
            asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(10)
            commit(epoch, record)

        bench.store.commit = slow  # type: ignore[method-assign]
        await bench.deliver(USAGE_TOPIC, 0, 5)
        await begun.wait()
        stopping = asyncio.create_task(bench.writer.stop(bench.task))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        may_end.set()
        await stopping
        assert bench.usage == [(0, 5)]

    with_writer(scenario)


def test_slow_commits_become_smaller_and_quick_ones_larger() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.positioned()
        await bench.deliver(USAGE_TOPIC, 0, 8_000)
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 8_000)
        sizes = [end - start for start, end in bench.usage]
        assert sizes[:3] == [1_000, 2_000, 4_000]
        bench.writer._resize(60.0)
        await bench.deliver(USAGE_TOPIC, 8_000, 12_000)
        await bench.until(lambda: bench.store.next[USAGE_TOPIC] == 12_000)
        assert bench.usage[len(sizes)] == (8_000, 12_000), "8,000 halved"

    with_writer(scenario, settings=WriterSettings(first_commit_records=1_000))
