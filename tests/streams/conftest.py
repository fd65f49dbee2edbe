"""A real Kafka for the tests of this folder, and topics of their own on it."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from billing.commit import INPUT_TOPICS, OUTPUT_TOPICS
from streams.topics import ensure_topics


@pytest.fixture(scope="session")
def kafka_address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``TOKENBILL_TEST_KAFKA``, or the servers of the whole test run, or one started here."""
    address = os.environ.get("TOKENBILL_TEST_KAFKA")
    if address is not None:
        yield address
        return
    try:
        servers = request.getfixturevalue("stack_servers")
    except pytest.FixtureLookupError:
        from tokenbill.stack import start, stop

        folder: Path = tmp_path_factory.mktemp("streams-stack")
        started = start(folder, only_servers=True)
        assert started.kafka is not None
        yield started.kafka
        stop(folder)
    else:
        yield servers.kafka


@pytest.fixture
def make_topics(kafka_address: str) -> Iterator[Callable[[int], str]]:
    """Creates the pipeline's topics with so many partitions under a new prefix, which it returns."""
    prefixes: list[str] = []

    def make(partitions: int) -> str:
        prefix = f"t{uuid.uuid4().hex[:8]}."
        prefixes.append(prefix)
        ensure_topics(kafka_address, partitions, prefix=prefix)
        return prefix

    yield make
    admin = AdminClient({"bootstrap.servers": kafka_address})
    names = [prefix + topic for prefix in prefixes for topic in (*INPUT_TOPICS, *OUTPUT_TOPICS)]
    if names:
        for done in admin.delete_topics(names).values():
            done.result()
