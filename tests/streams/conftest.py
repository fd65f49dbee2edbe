"""Fixtures of the stream tests: the address of a real Kafka broker, and topics created for one test."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient

from schemas.topics import INPUT_TOPICS, OUTPUT_TOPICS
from streams.topic_setup import ensure_topics


@pytest.fixture(scope="session")
def kafka_address(request: pytest.FixtureRequest) -> str:
    """Return the address in ``TOKENBILL_TEST_KAFKA``, else that of the broker of the whole test run."""
    named = os.environ.get("TOKENBILL_TEST_KAFKA")
    return named or str(request.getfixturevalue("servers").kafka)


@pytest.fixture
def make_topics(kafka_address: str) -> Iterator[Callable[[int], str]]:
    """Return a function that creates the pipeline's topics with a number of partitions and returns their prefix.

    The topics are deleted after the test.
    """
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
