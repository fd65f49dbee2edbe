"""Creation and verification of the pipeline's topics.

Input topics have dense offsets and the broker's timestamps (``LogAppendTime``). Output topics are read with
``read_committed``. The partition count is fixed at creation (docs/reference/principles.md, "Log and writer";
docs/reference/kafka-and-faust.md, "Topics").
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from schemas.record_sizes import TOPIC_BYTES
from schemas.topics import COMMAND_TOPIC, INPUT_TOPICS, OUTPUT_TOPICS, TOPIC_SETTINGS
from streams.kafka_clients import admin_client
from streams.stream_errors import TopicMismatch

_TIMEOUT_SECONDS = 30.0
_ALL = (*INPUT_TOPICS, *OUTPUT_TOPICS)
_CHECKED = ("cleanup.policy", "message.timestamp.type", "retention.ms")
SIZE_LIMIT = "max.message.bytes"
"""Largest record batch of a topic (:mod:`schemas.record_sizes`)."""


def topic_config(topic: str) -> dict[str, str]:
    """Return the topic configuration with which ``topic`` is created."""
    cleanup, retention_ms = TOPIC_SETTINGS[topic]
    config = {"cleanup.policy": cleanup}
    if retention_ms is not None:
        config |= {"retention.ms": str(retention_ms), "retention.bytes": "-1"}
    if topic in INPUT_TOPICS:
        config["message.timestamp.type"] = "LogAppendTime"
    return config | {SIZE_LIMIT: str(TOPIC_BYTES[topic])}


def ensure_topics(kafka: str, partitions: int, *, replication: int = -1, prefix: str = "") -> None:
    """Create the missing topics and check the existing ones; ``prefix`` is prepended to each name.

    Topics of an earlier release get the limits of :mod:`schemas.record_sizes`: an output or forward topic never takes
    less than what may be written to it, and an input topic never more than what may be read from it.

    Raises:
        TopicMismatch: a topic has another partition count, or an input topic is compacted, does not use
            LogAppendTime or (the command topic) has limited retention.
        KafkaException: the broker refused the request or did not answer.
    """
    admin = admin_client(kafka)
    existing = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
    missing = [
        NewTopic(prefix + topic, num_partitions=partitions, replication_factor=replication, config=topic_config(topic))
        for topic in _ALL
        if prefix + topic not in existing
    ]
    if missing:
        for done in admin.create_topics(missing, operation_timeout=_TIMEOUT_SECONDS).values():
            try:
                done.result()
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise
    for topic, count in _wait_for_metadata(admin, [prefix + topic for topic in _ALL]).items():
        _check_count(topic, count, partitions)
    _check_inputs(admin, {prefix + topic: topic for topic in INPUT_TOPICS})
    _set_sizes(admin, {prefix + topic: TOPIC_BYTES[topic] for topic in _ALL})


def _wait_for_metadata(admin: AdminClient, topics: list[str]) -> dict[str, int]:
    # A broker may not list a topic yet that it has just created, or that a concurrent `up` is creating.
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    while True:
        existing = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
        counts = {topic: len(existing[topic].partitions) for topic in topics if topic in existing}
        if len(counts) == len(topics) and all(counts.values()):
            return counts
        if time.monotonic() > deadline:
            raise TopicMismatch(
                f"the broker does not list {sorted(set(topics) - set(counts))} after creating them",
                "Look into the broker's log.",
            )
        time.sleep(0.1)


def _check_count(topic: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise TopicMismatch(
            f"topic {topic} has {found} partitions, not {wanted}",
            f"The number of partitions is fixed for ever: start with {found} partitions, or use an empty broker.",
        )


def _check_inputs(admin: AdminClient, topics: Mapping[str, str]) -> None:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in topics]
    for resource, answer in admin.describe_configs(resources, request_timeout=_TIMEOUT_SECONDS).items():
        found = {name: answer.result()[name].value for name in _CHECKED}
        must = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
        if topics[resource.name] == COMMAND_TOPIC:
            must["retention.ms"] = "-1"
        _check_input(resource.name, found, must)


def _set_sizes(admin: AdminClient, wanted: Mapping[str, int]) -> None:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, topic) for topic in wanted]
    found = {
        resource.name: int(answer.result()[SIZE_LIMIT].value)
        for resource, answer in admin.describe_configs(resources, request_timeout=_TIMEOUT_SECONDS).items()
    }
    changes = [
        ConfigResource(
            ConfigResource.Type.TOPIC,
            topic,
            incremental_configs=[ConfigEntry(SIZE_LIMIT, str(size), incremental_operation=AlterConfigOpType.SET)],
        )
        for topic, size in wanted.items()
        if found[topic] != size
    ]
    for resource, answer in (admin.incremental_alter_configs(changes) if changes else {}).items():
        try:
            answer.result()
        except KafkaException as error:
            raise TopicMismatch(
                f"topic {resource.name} has {SIZE_LIMIT}={found[resource.name]}, not {wanted[resource.name]}, and the"
                f" broker does not let it be changed: {error.args[0]}",
                f"kafka-configs --alter --entity-type topics --entity-name {resource.name} --add-config"
                f" {SIZE_LIMIT}={wanted[resource.name]}",
            ) from error


def _check_input(topic: str, found: Mapping[str, str], must: Mapping[str, str]) -> None:
    for name, value in must.items():
        if found[name] != value:
            raise TopicMismatch(
                f"topic {topic} has {name}={found[name]}, not {value}",
                f"kafka-configs --alter --entity-type topics --entity-name {topic} --add-config {name}={value}",
            )


def partition_count(kafka: str, *, prefix: str = "") -> int:
    """Return the number of partitions of the pipeline's topics.

    Raises:
        TopicMismatch: a topic is missing, or the topics have different partition counts.
        KafkaException: the broker did not answer.
    """
    admin = admin_client(kafka)
    existing = admin.list_topics(timeout=_TIMEOUT_SECONDS).topics
    counts = {topic: len(existing[topic].partitions) for one in _ALL if (topic := prefix + one) in existing}
    if missing := [prefix + one for one in _ALL if prefix + one not in counts]:
        raise TopicMismatch(f"the broker has no topics {missing}", "Prepare it with `tokenbill up`.")
    if len(set(counts.values())) > 1:
        raise TopicMismatch(f"the topics have different numbers of partitions: {counts}", "Use an empty broker.")
    return counts[prefix + _ALL[0]]
