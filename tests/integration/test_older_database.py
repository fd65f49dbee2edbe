"""A database that is put back to an older copy: the relay stops and says so, and a reconciliation publishes what lacks.

After the copy was taken, hundreds of events were billed and published. The workers decide them again from the log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pipeline_rig import PARTITIONS, Pipeline, Traffic, examples, until

from schemas.routing import partition_of
from schemas.topics import ACCOUNT_EVENT_TOPIC, RATED_TOPIC, REJECTED_TOPIC
from streams.read.readback import read_topic
from tokenbill import stack
from tokenbill.stack import status
from tokenbill.stack.control import python_environment
from tokenbill.stack.layout import Layout


@pytest.fixture
def pipeline() -> Iterator[Pipeline]:
    pipeline = Pipeline(Path(tempfile.mkdtemp(prefix="tokenbill-older-")))
    try:
        pipeline.start(1)
        pipeline.publish(examples())
        yield pipeline
    finally:
        stack.remove(pipeline.folder)


def tokenbill(pipeline: Pipeline, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tokenbill", *words, "--data-dir", str(pipeline.folder)],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        timeout=240,
    )


def usage_counted(pipeline: Pipeline) -> Counter[tuple[str, str, str]]:
    """Return how often each usage event stands in the published records."""
    lines = (line for event in events_of(pipeline, RATED_TOPIC) for line in event["data"]["events"])
    return Counter((line["account"], line["source"], line["id"]) for line in lines)


def of(partitions: set[int], counted: Counter[tuple[str, str, str]]) -> dict[tuple[str, str, str], int]:
    """Return the usage of accounts on these partitions."""
    return {key: number for key, number in counted.items() if partition_of(key[0], PARTITIONS) in partitions}


def events_of(pipeline: Pipeline, topic: str) -> list[dict[str, Any]]:
    return [json.loads(message.value() or b"") for message in read_topic(pipeline.kafka, topic)]


def send(traffic: Traffic, events: int) -> None:
    """Send valid usage, some of it to a wrong partition, and usage that is refused."""
    traffic.use(events)
    for at in range(5):
        account = traffic.accounts[at % len(traffic.accounts)]
        traffic.send_usage(traffic.event(at, account), account, partition=at % PARTITIONS)
        traffic.send_usage(b"{}", account)
    traffic.flush()


def test_what_was_billed_on_an_older_copy_is_published_exactly_once(pipeline: Pipeline) -> None:
    traffic = Traffic(pipeline, "older")
    traffic.open(8)
    send(traffic, 200)
    traffic.settle()

    stack.stop(pipeline.folder)
    data = Path(Layout.of(pipeline.folder).postgresql_pointer.read_text().strip())
    copy = data.with_name("older copy")
    subprocess.run(["cp", "-a", str(data), str(copy)], check=True)
    pipeline.start(1)
    for _ in range(3):
        send(traffic, 70)
        traffic.settle()
    before = usage_counted(pipeline)
    told = len(events_of(pipeline, ACCOUNT_EVENT_TOPIC))
    assert set(before.values()) == {1}

    stack.stop(pipeline.folder)
    shutil.rmtree(data)
    copy.rename(data)
    pipeline.start(1)
    traffic.open(10)
    send(traffic, 400)
    until("the relay has stopped", lambda: len(status.status(pipeline.folder)["stopped"] or []) > 0)
    said = tokenbill(pipeline, "status")
    assert said.returncode == 1 and "tokenbill relay reconcile" in said.stdout
    pipeline.kill("relay")
    decided = lambda: all(not value for topic, value in lag().items() if topic != "outbox")  # noqa: E731
    lag = lambda: status.status(pipeline.folder)["lag"]  # noqa: E731
    until("all input is decided", decided)
    until("the new relay has stopped too", lambda: len(status.status(pipeline.folder)["stopped"] or []) > 0)
    assert (lag()["outbox"] or 0) > 0
    stopped = {one["partition"] for one in status.status(pipeline.folder)["stopped"] or []}
    assert of(stopped, usage_counted(pipeline)) == of(stopped, before), "nothing was published"
    audited = tokenbill(pipeline, "audit")
    assert audited.returncode == 1 and "relay reconcile" in audited.stdout

    compared = tokenbill(pipeline, "relay", "reconcile", "--dry-run", "--json")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert of(stopped, usage_counted(pipeline)) == of(stopped, before), "a comparison publishes nothing"
    done = tokenbill(pipeline, "relay", "reconcile", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)[0]["published"]["usage.rated"] > 0

    traffic.settle()
    assert not status.status(pipeline.folder)["stopped"]
    counted = usage_counted(pipeline)
    assert set(counted.values()) == {1}, "no usage event is published twice, and none is lacking"
    assert before.keys() < counted.keys()
    assert sum(counted.values()) == traffic.expected()["events"]["rated"]
    rejected = [dict(message.headers() or []) for message in read_topic(pipeline.kafka, REJECTED_TOPIC)]
    places = Counter((one["topic"], one["partition"], one["offset"]) for one in rejected)
    assert len(places) == 5 * 5 and set(places.values()) == {1}
    accepted = [
        one["data"]["command_id"] for one in events_of(pipeline, ACCOUNT_EVENT_TOPIC) if "accepted" in one["type"]
    ]
    assert len(accepted) == len(set(accepted)) == 3 * len(traffic.accounts) > told
    every = [event for topic in (RATED_TOPIC, ACCOUNT_EVENT_TOPIC) for event in events_of(pipeline, topic)]
    identities = Counter((event["source"], event["id"]) for event in every)
    assert set(identities.values()) == {1}, "a record of the new history repeats no identity"
    assert {event.get("history") for event in every} == {None, "1"}
    traffic.check()

    send(traffic, 50)
    traffic.settle()
    assert set(usage_counted(pipeline).values()) == {1}
    again = tokenbill(pipeline, "relay", "reconcile")
    assert again.returncode == 0 and "nothing to reconcile" in again.stdout
    traffic.check()
    traffic.close()
