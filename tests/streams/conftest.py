"""A real Kafka for the tests of this folder, and topics of their own on it."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from schemas.topics import INPUT_TOPICS, OUTPUT_TOPICS
from streams.topic_setup import ensure_topics


@pytest.fixture(scope="session")
def kafka_address(request: pytest.FixtureRequest) -> str:
    """``TOKENBILL_TEST_KAFKA``, else the broker of the whole test run."""
    named = os.environ.get("TOKENBILL_TEST_KAFKA")
    return named or str(request.getfixturevalue("servers").kafka)


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
