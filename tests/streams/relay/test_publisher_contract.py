"""Contract of ``streams.relay.publisher`` with the private names of aiokafka's producer.

The contract test of the transport pins the version.
"""

import inspect

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder, MessageAccumulator, MessageBatch
from aiokafka.producer.sender import Sender, SendProduceReqHandler

from streams.relay.publisher import ReadyBatch


def test_a_ready_batch_has_everything_that_the_sender_asks_of_a_batch() -> None:
    methods = (method for owner in (MessageBatch, MessageAccumulator) for method in vars(owner).values())
    used = "".join(inspect.getsource(method) for method in methods if inspect.isfunction(method))
    asked = {name for name in vars(BatchBuilder) if f"builder.{name}(" in used} - {"append"}
    assert asked == {"close", "closed", "record_count", "_set_producer_state", "_build"}
    for name in asked:
        assert inspect.signature(getattr(ReadyBatch, name)).parameters.keys() == (
            inspect.signature(getattr(BatchBuilder, name)).parameters.keys()
        )


@pytest.mark.parametrize(
    ("owner", "line"),
    [
        (MessageAccumulator._pop_batch, "not_retry = batch.retry_count == 0"),
        (MessageAccumulator._pop_batch, "if self._txn_manager is not None and not_retry:"),
        (MessageAccumulator.add_batch, "return asyncio.shield(batch.future)"),
        (SendProduceReqHandler.create_request, "batch.get_data_buffer()"),
        (AIOKafkaProducer.__init__, "self._closed = False"),
        (AIOKafkaProducer.__init__, "self._sender = Sender("),
        (Sender.start, "self._sender_task = create_task(self._sender_routine())"),
    ],
)
def test_the_producer_works_as_it_was_read(owner: object, line: str) -> None:
    assert line in inspect.getsource(owner)  # type: ignore[arg-type]
