"""Faulty input: malformed events between valid ones, events sent twice, and records on the wrong partition."""

import json
import random
from collections import Counter
from typing import Any

from confluent_kafka import Producer
from pipeline_rig import PARTITIONS, Pipeline, Refused, Traffic

from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC
from tokenbill.demo.faults import FAULTS

MADE_BY_SENDER = ("unknown_account", "time_in_future")


def poison(traffic: Traffic, account: str) -> list[tuple[str, bytes | None]]:
    """Return pairs of a reason and bytes that must be rejected with it."""

    def body(**changes: Any) -> dict[str, Any]:
        whole: dict[str, Any] = json.loads(traffic.event(1, account))
        return whole | changes

    def text(value: object) -> bytes:
        return json.dumps(value).encode()

    without_source = {key: value for key, value in body().items() if key != "source"}
    return [
        ("invalid_json", b"\xff\xfe\x00"),
        ("invalid_json", b"{" * 200_000),
        ("invalid_json", b'{"specversion":"1.0",'),
        ("invalid_json", b"\x00" * 900_000),
        ("invalid_json", b"[]"),
        ("invalid_json", b"null"),
        ("invalid_event", b"{}"),
        ("invalid_json", b'"text"'),
        ("invalid_event", text(without_source)),
        ("invalid_event", text(body(time="2026-11-22T01:15:03"))),
        ("invalid_event", text(body(time="2026-02-30T00:00:00Z"))),
        ("invalid_event", text(body(type="token.usage.v9"))),
        ("invalid_event", text(body(sequence="-1"))),
        ("invalid_event", text(body(data=[]))),
        ("invalid_event", text(body(subject=""))),
        *(
            (reason, fault(body()))
            for reason, fault in FAULTS.items()
            if reason not in ("unknown_account", "time_in_future")
        ),
        ("unknown_account", text(body(subject=f"{account}-nobody"))),
    ]


def test_every_kind_of_poison_between_good_events(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(6)
    account = traffic.accounts[0]
    partition = partition_of(account, PARTITIONS)
    kinds = poison(traffic, account)
    for reason, value in kinds:
        traffic.use(3)
        if reason == "unknown_account":
            traffic.send_usage(value, account, partition=partition_of(f"{account}-nobody", PARTITIONS))
        else:
            traffic.send_usage(value, account, partition=partition)
    traffic.use(3)
    traffic.send_usage(None, account)  # a tombstone, which simulate cannot read from a file
    late = traffic.event(1, account, time="2099-01-01T00:00:00Z")
    traffic.send_usage(late, account, remember=False)  # simulate applies no time limits
    expected = traffic.check(refused_elsewhere=2)
    refused = traffic.refused()
    assert Counter(one.reason for one in refused) == Counter(expected["rejections"]) + Counter(
        ["invalid_json", "time_in_future"]
    )
    for reason, value in kinds:
        assert Refused(reason, value) in refused, (reason, (value or b"")[:80])


def test_every_event_twice_is_rated_once(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(12)
    sent = traffic.use(300)
    for value in (*sent, *reversed(sent)):
        traffic.send_usage(value, json.loads(value)["subject"])
    expected = traffic.check()
    assert expected["events"] == {"rated": 300, "duplicate": 600, "rejected": 0}


def test_sources_without_numbers_are_deduplicated_by_identity(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(12)
    for _ in range(2):
        for number in range(200):
            account = traffic.accounts[number % 12]
            value = traffic.event(
                number,
                account,
                sequence=None,
                id=f"call-{number}",
                source=f"urn:test:{traffic.name}:plain",
                time="2026-11-22T00:00:00Z",
            )
            traffic.send_usage(value, account)
    assert traffic.check()["events"] == {"rated": 200, "duplicate": 200, "rejected": 0}


def test_a_resend_with_other_content_is_a_duplicate_and_a_finding(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(1)
    value = json.loads(traffic.event(1, traffic.accounts[0]))
    traffic.send_usage(json.dumps(value).encode(), traffic.accounts[0])
    value["data"]["usage"]["output"] += 1
    traffic.send_usage(json.dumps(value).encode(), traffic.accounts[0])
    value["id"] = "another"
    traffic.send_usage(json.dumps(value).encode(), traffic.accounts[0])
    expected = traffic.check()
    assert expected["events"] == {"rated": 1, "duplicate": 1, "rejected": 1}
    assert expected["rejections"] == {"sequence_reused": 1}
    with pipeline.admin() as connection:
        kinds = connection.execute("SELECT kind FROM finding WHERE strpos(detail, %s) > 0", (traffic.name,)).fetchall()
    assert sorted(kind for (kind,) in kinds) == ["identity_conflict", "sequence_reused"]


def test_usage_and_commands_on_every_wrong_partition(pipeline: Pipeline, traffic: Traffic) -> None:
    for number in range(24):
        account = traffic.account(number)
        own = partition_of(account, PARTITIONS)
        traffic.open_one(account, partition=(own + 1 + number % (PARTITIONS - 1)) % PARTITIONS)
    traffic.settle()
    for number in range(480):
        account = traffic.accounts[number % 24]
        own = partition_of(account, PARTITIONS)
        away = (own + 1 + number // 24 % (PARTITIONS - 1)) % PARTITIONS if number % 3 else own
        traffic.send_usage(traffic.event(number, account), account, partition=away)
    traffic.check()
    counts = traffic.books.counts()
    assert (counts.commands_accepted, counts.forwarded) == (72, 320)


def test_forwarding_survives_the_death_of_everybody(pipeline: Pipeline, traffic: Traffic) -> None:
    traffic.open(24)
    for number in range(3_000):
        account = traffic.accounts[number % 24]
        away = (partition_of(account, PARTITIONS) + 1 + number % 5) % PARTITIONS
        traffic.send_usage(traffic.event(number, account), account, partition=away)
        if number % 750 == 700:
            traffic.flush()
            for name in ("relay", "worker-1", "worker-2")[: number // 750 + 1]:
                pipeline.kill(name)
    assert traffic.check()["events"] == {"rated": 3_000, "duplicate": 0, "rejected": 0}


def test_a_record_as_large_as_the_broker_takes_is_refused_and_published(pipeline: Pipeline, traffic: Traffic) -> None:
    """Other clients may have other limits: a record that the broker accepted must be processed and published."""
    traffic.open(6)
    traffic.use(10)
    account = traffic.accounts[0]
    large = random.Random(1).randbytes(12 << 20)
    producer = Producer({"bootstrap.servers": pipeline.kafka, "message.max.bytes": 16 << 20})
    partition = partition_of(account, PARTITIONS)
    producer.produce(USAGE_TOPIC, large, account.encode(), partition, headers=[("mark", b"large")])
    assert producer.flush(60) == 0
    traffic.usage_sent += 1
    traffic.use(10)
    traffic.check(refused_elsewhere=1)
    assert traffic.refused() == [Refused("invalid_json", large)]
