"""The emitter numbers events per partition, partitions by Java's hash, and reports records that Kafka refuses."""

import json
from collections import defaultdict
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException

from schemas.routing import partition_of
from schemas.topics import COMMAND_TOPIC, USAGE_TOPIC
from streams.read.readback import read_topic
from streams.send.emitter import Emitter
from streams.send.send_commands import send_commands
from streams.stream_errors import DeliveryFailed

MakeTopics = Callable[[int], str]
DATA = b'{"model":"m","usage":{"input":1}}'


def test_one_source_per_partition_numbered_without_holes(kafka_address: str, make_topics: MakeTopics) -> None:
    topic = make_topics(3) + USAGE_TOPIC
    with Emitter(kafka_address, "urn:worker:a", topic=topic) as emitter:
        for number in range(300):
            emitter.send(f"acct-{number % 40}", "2026-11-22T01:15:03.412Z", DATA)
    numbers: dict[str, list[int]] = defaultdict(list)
    for message in read_topic(kafka_address, topic):
        event = json.loads(message.value() or b"")
        assert message.partition() == partition_of(event["subject"], 3)
        assert message.key() == event["subject"].encode()
        assert event["source"] == f"urn:worker:a#p{message.partition()}"
        assert event["data"] == json.loads(DATA)
        numbers[event["source"]].append(int(event["sequence"]))
    assert sum(map(len, numbers.values())) == 300
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def test_commands_go_where_the_account_lives(kafka_address: str, make_topics: MakeTopics) -> None:
    topic = make_topics(4) + COMMAND_TOPIC
    assert send_commands(kafka_address, [{"subject": f"账户-{n}", "id": str(n)} for n in range(50)], topic=topic) == 50
    found = [(json.loads(one.value() or b"")["subject"], one.partition()) for one in read_topic(kafka_address, topic)]
    assert sorted(found) == sorted((f"账户-{n}", partition_of(f"账户-{n}", 4)) for n in range(50))


def test_a_record_that_kafka_refuses_is_reported(kafka_address: str, make_topics: MakeTopics) -> None:
    topic = make_topics(1) + USAGE_TOPIC
    emitter = Emitter(kafka_address, "urn:worker:b", topic=topic)
    with pytest.raises((DeliveryFailed, KafkaException)):
        emitter.send_raw(0, b"k", b"x" * (20 << 20))
        emitter.flush()


def test_an_unknown_topic_is_an_error(kafka_address: str) -> None:
    with pytest.raises((DeliveryFailed, KafkaException)):
        Emitter(kafka_address, "urn:worker:c", topic="t.absent\u0020name")
