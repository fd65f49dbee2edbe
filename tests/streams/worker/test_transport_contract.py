"""Contract of ``streams.worker.transport`` with the private names of Faust and aiokafka, and with their versions."""

import inspect
from importlib.metadata import entry_points, version

import faust.transport
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState
from faust.transport.consumer import Consumer
from faust.transport.drivers import aiokafka as aio

from streams.worker.transport import BatchConsumer, BatchThread, Transport


@pytest.mark.parametrize(
    ("package", "known"),
    [("faust-streaming", "0.15.3"), ("mode-streaming", "0.7.1"), ("aiokafka", "0.14.0")],
)
def test_version_is_the_one_whose_source_was_read(package: str, known: str) -> None:
    assert version(package) == known, "read the consumer's source again, then change this line"


@pytest.mark.parametrize(
    ("owner", "name", "parameters"),
    [
        (Consumer, "getmany", ["self", "timeout"]),
        (Consumer, "_wait_next_records", ["self", "timeout"]),
        (Consumer, "_get_active_partitions", ["self"]),
        (Consumer, "on_buffer_drop", ["self", "tp"]),
        (Consumer, "on_partitions_revoked", ["self", "revoked"]),
        (Consumer, "seek_to_committed", ["self"]),
        (aio.Consumer, "_new_consumer_thread", ["self"]),
        (aio.AIOKafkaConsumerThread, "_create_worker_consumer", ["self", "transport"]),
        (
            aio.AIOKafkaConsumerThread,
            "_fetch_records",
            ["self", "consumer", "active_partitions", "timeout", "max_records"],
        ),
        (aio.AIOKafkaConsumerThread, "_ensure_consumer", ["self"]),
        (aio.AIOKafkaConsumerThread, "verify_event_path", ["self", "now", "tp"]),
        (Fetcher, "fetched_records", ["self", "partitions", "timeout", "max_records"]),
        (AIOKafkaConsumer, "seek", ["self", "partition", "offset"]),
    ],
)
def test_overridden_or_called_method_is_as_it_was(owner: type, name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(owner, name)).parameters) == parameters


def module_source(of: type) -> str:
    """Return the source of the module of a class.

    The source of the class alone is not used: to find its lines ``inspect`` parses the file, and CPython 3.11 fails at
    that if the garbage collector runs a finalizer at the same time.
    """
    module = inspect.getmodule(of)
    assert module is not None
    return inspect.getsource(module)


def test_attributes_that_are_read_exist() -> None:
    consumer_source = module_source(Consumer)
    for name in ("self._read_offset", "self._buffered_partitions", "self.flow_active"):
        assert name in consumer_source
    assert "_subscription" in module_source(AIOKafkaConsumer)
    assert hasattr(SubscriptionState, "subscription")
    assert hasattr(Assignment, "tps")
    assert hasattr(Assignment, "state_value")
    assert hasattr(TopicPartitionState, "has_valid_position")


def test_fetched_records_are_kept_and_taken_as_they_were() -> None:
    received = inspect.getsource(Fetcher._proc_fetch_request)
    assert "records = MemoryRecords(part_data[-1])" in received
    assert "self._records[tp] = FetchResult(" in received
    assert "partition_records = PartitionRecords(" in received
    assert "self._records = records" in inspect.getsource(PartitionRecords.__init__)
    assert "self.next_fetch_offset = fetch_offset" in inspect.getsource(PartitionRecords.__init__)
    taken = module_source(FetchResult)
    assert "for msg in self._partition_records:" in taken
    assert "state.consumed_to(self._partition_records.next_fetch_offset)" in taken
    assert "if type(res_or_error) is FetchResult:" in inspect.getsource(Fetcher.fetched_records)
    assert "records = res_or_error.getall(max_records)" in inspect.getsource(Fetcher.fetched_records)
    assert "if not res_or_error.has_more():" in inspect.getsource(Fetcher.fetched_records)
    assert "self._aborted_transactions = sorted(" in inspect.getsource(PartitionRecords.__init__)
    assert "OffsetRequest(-1, self._isolation_level," in inspect.getsource(Fetcher._proc_offset_request)
    assert list(inspect.signature(Fetcher.end_offsets).parameters) == ["self", "partitions", "timeout_ms"]
    assert "_records = collections.OrderedDict()" in inspect.getsource(Fetcher.__init__)
    assert "self._check_crcs = check_crcs" in inspect.getsource(Fetcher.__init__)


def test_faust_asks_nobody_but_us_where_to_begin() -> None:
    assert "self.seek_to_committed()" in inspect.getsource(Consumer.perform_seek)
    assert BatchConsumer.seek_to_committed is not aio.Consumer.seek_to_committed
    assert BatchThread._fetch_records is not aio.AIOKafkaConsumerThread._fetch_records


def test_transport_is_registered_in_code_and_by_entry_point() -> None:
    assert faust.transport.by_name("tokenbill") is Transport
    found = entry_points(group="faust.transports", name="tokenbill")
    assert [one.value for one in found] in ([], ["streams.worker.transport:Transport"]), "[] where it is not installed"
