"""Topics are created with the settings the pipeline needs, and refused if they have other settings."""

import time
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from schemas.record_sizes import TOPIC_BYTES
from schemas.topics import (
    BALANCE_TOPIC,
    COMMAND_TOPIC,
    INPUT_TOPICS,
    OUTPUT_TOPICS,
    RATED_TOPIC,
    REJECTED_TOPIC,
    USAGE_FORWARDED_TOPIC,
    USAGE_TOPIC,
)
from streams.stream_errors import TopicMismatch
from streams.topic_setup import ensure_topics, partition_count

MakeTopics = Callable[[int], str]


def setting(kafka: str, topic: str, name: str) -> str:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": kafka})
    answer = admin.describe_configs([resource])[resource].result()
    return str(answer[name].value)


def change(kafka: str, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.incremental_alter_configs([resource])[resource].result()
    while setting(kafka, topic, name) != value:  # The broker answers before the change is effective.
        time.sleep(0.05)


def test_creates_what_is_missing_and_accepts_it_again(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(3)
    ensure_topics(kafka_address, 3, prefix=prefix)
    assert partition_count(kafka_address, prefix=prefix) == 3
    assert setting(kafka_address, prefix + USAGE_TOPIC, "message.timestamp.type") == "LogAppendTime"
    assert setting(kafka_address, prefix + COMMAND_TOPIC, "retention.ms") == "-1"
    assert setting(kafka_address, prefix + BALANCE_TOPIC, "cleanup.policy") == "compact"
    assert setting(kafka_address, prefix + RATED_TOPIC, "cleanup.policy") == "delete"


def test_another_number_of_partitions_is_refused(kafka_address: str, make_topics: MakeTopics) -> None:
    prefix = make_topics(2)
    with pytest.raises(TopicMismatch, match="has 2 partitions, not 4"):
        ensure_topics(kafka_address, 4, prefix=prefix)


@pytest.mark.parametrize(
    ("topic", "name", "value"),
    [
        (USAGE_TOPIC, "message.timestamp.type", "CreateTime"),
        (USAGE_TOPIC, "cleanup.policy", "compact"),
        (COMMAND_TOPIC, "retention.ms", "1000000"),
    ],
)
def test_an_input_topic_the_pipeline_cannot_stand_on_is_refused(
    kafka_address: str, make_topics: MakeTopics, topic: str, name: str, value: str
) -> None:
    prefix = make_topics(1)
    change(kafka_address, prefix + topic, name, value)
    with pytest.raises(TopicMismatch, match=f"{name}={value}") as refused:
        ensure_topics(kafka_address, 1, prefix=prefix)
    assert "--add-config" in refused.value.fix


def test_topics_of_an_earlier_installation_get_the_sizes(kafka_address: str, make_topics: MakeTopics) -> None:
    """An input topic takes no more than is read, an output topic no less than is written."""
    prefix = make_topics(1)
    for topic, size in ((USAGE_TOPIC, 64 << 20), (REJECTED_TOPIC, 1 << 20), (USAGE_FORWARDED_TOPIC, 1 << 20)):
        change(kafka_address, prefix + topic, "max.message.bytes", str(size))
    ensure_topics(kafka_address, 1, prefix=prefix)
    for topic in (*INPUT_TOPICS, *OUTPUT_TOPICS):
        deadline = time.monotonic() + 10
        while setting(kafka_address, prefix + topic, "max.message.bytes") != str(TOPIC_BYTES[topic]):
            assert time.monotonic() < deadline, topic
            time.sleep(0.05)


def test_missing_topics_are_named(kafka_address: str) -> None:
    with pytest.raises(TopicMismatch, match=r"absent\.usage\.events"):
        partition_count(kafka_address, prefix="absent.")
