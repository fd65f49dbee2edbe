"""The document of `tokenbill status`: addresses, processes, uncommitted input records and unpublished output.

A number that is unknown at this moment (a server is down, the database is not prepared) is None, never an estimate.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

# OffsetSpec is public, but the package does not export it to type checkers.
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]

from billing.errors import StoreError
from schemas.topics import INPUT_TOPICS
from streams.kafka_clients import probe_client
from tokenbill.hidden_secrets import without_secrets
from tokenbill.stack.info import StackInfo, info
from tokenbill.stack.ready import stopped_partitions, why_not_ready
from tokenbill.stack.spec import ReadyCheck

STATUS_SECONDS = 5.0
RELAY = "relay"
LEADERLESS = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def status(data_dir: Path | str | None = None) -> dict[str, Any]:
    """Return the document of `status --json` for a data folder."""
    return document(info(data_dir))


def document(stack: StackInfo) -> dict[str, Any]:
    """Return the document of `status --json` for the state of a stack."""
    database_url = stack.database_url or stack.admin_database_url
    return {
        "kafka": stack.kafka,
        # It has no password since an `up` of this version: it names the password file.
        "database_url": database_url and without_secrets(database_url),
        "api": stack.api,
        "processes": [{"name": one.name, "pid": one.pid, "restarts": one.restarts} for one in stack.processes],
        "lag": {**_input_lag(stack), "outbox": _outbox(stack)},
        "stopped": _stopped(stack),
    }


def _input_lag(stack: StackInfo) -> dict[str, int | None]:
    """Return the number of records of each input topic that are not committed yet."""
    unknown: dict[str, int | None] = dict.fromkeys(INPUT_TOPICS)
    if stack.kafka is None or stack.database_url is None or not stack.running:
        return unknown
    from billing.store.proofs.lag import input_positions

    try:
        done = input_positions(stack.database_url)
        ends = _end_offsets(stack.kafka, INPUT_TOPICS)
    except (KafkaException, StoreError):
        return unknown
    return {
        topic: sum(end - done.get(place, 0) for place, end in ends.items() if place[0] == topic)
        if any(place[0] == topic for place in ends)
        else None
        for topic in INPUT_TOPICS
    }


def _end_offsets(kafka: str, topics: tuple[str, ...]) -> dict[tuple[str, int], int]:
    """Return the offset after the last record by topic and partition; topics that do not exist are omitted."""
    if why_not_ready(ReadyCheck("kafka", kafka)) is not None:
        return {}
    admin = probe_client(kafka)
    known = admin.list_topics(timeout=STATUS_SECONDS).topics
    places = [TopicPartition(topic, number) for topic in topics if topic in known for number in known[topic].partitions]
    if not places:
        return {}
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    deadline = time.monotonic() + STATUS_SECONDS
    while True:
        try:
            answers = admin.list_offsets(dict.fromkeys(places, latest), request_timeout=STATUS_SECONDS)
            return {(place.topic, place.partition): int(answer.result().offset) for place, answer in answers.items()}
        except KafkaException as error:
            # A new topic, or a broker that has just started, has no leader for a moment.
            if error.args[0].code() not in LEADERLESS or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _stopped(stack: StackInfo) -> list[dict[str, Any]] | None:
    """Return the stopped partitions, each with its place, its reason and the command that goes on."""
    if stack.database_url is None or not stack.running:
        return None
    from billing.store.proofs.lag import stopped

    try:
        decided = stopped(stack.database_url)
    except StoreError:
        return None
    return decided + _not_published(stack)


def _not_published(stack: StackInfo) -> list[dict[str, Any]]:
    """Return the partitions whose output the relay does not publish until a person decides."""
    listed = []
    for one in stack.processes:
        if one.name == RELAY and one.pid is not None:
            for stopped in stopped_partitions(f"http://127.0.0.1:{stack.ports[one.name]}/health"):
                listed.append(
                    {
                        "process": RELAY,
                        "partition": stopped["partition"],
                        "reason": stopped["why"],
                        "topic": None,
                        "offset": None,
                        "since": None,
                        "resume": "tokenbill relay reconcile",
                    }
                )
    return listed


def _outbox(stack: StackInfo) -> int | None:
    """Return the number of outbox rows that are committed but not published yet."""
    if stack.database_url is None or not stack.running:
        return None
    from billing.store.proofs.lag import outbox_depth

    try:
        return outbox_depth(stack.database_url)
    except StoreError:
        return None
