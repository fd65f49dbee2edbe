"""One partition stops: the others go on, everybody sees it, and it goes on when two people let it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from pipeline_rig import PARTITIONS, Pipeline, Traffic, until

from billing.commits.output_documents import account_object, balance_object
from billing.store import webhook_rows as webhooks
from billing.store.database import Database
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC
from streams.kafka_clients import offset_reader
from tokenbill import stack
from tokenbill.replays.past_balance import balance_in_past
from tokenbill.stack.control import python_environment

PEOPLE = ("wang", "li", "Wang")


def tokenbill(pipeline: Pipeline, *arguments: str) -> tuple[int, str]:
    """Run a command on the pipeline's folder; return its exit code and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "tokenbill", *arguments, "--data-dir", str(pipeline.folder)],
        env={**os.environ, **python_environment()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def approved(pipeline: Pipeline, requested: str = "wang", agreeing: str = "li") -> tuple[str, ...]:
    """Return the options of a resumption with the keys of two people, which are made once."""
    for number, name in enumerate(PEOPLE):
        file = pipeline.folder / f"{number}-{name}.key"
        if not file.exists():
            code, said = tokenbill(pipeline, "api-key", "create", name, "--role", "admin")
            assert code == 0, said
            file.write_text(said.split()[0])
    one, other = (pipeline.folder / f"{PEOPLE.index(name)}-{name}.key" for name in (requested, agreeing))
    return ("--reason", "looked at it", "--requested-key", str(one), "--approved-key", str(other))


def page(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def worker_pages(pipeline: Pipeline, path: str) -> list[tuple[int, Any]]:
    ports = stack.info(pipeline.folder).ports
    return [page(f"http://127.0.0.1:{ports[name]}/{path}") for name in ("worker-1", "worker-2")]


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the address of a webhook receiver and what it received."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Discard the line."""

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", received
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def webhook(pipeline: Pipeline, url: str) -> Iterator[None]:
    arguments = ("webhook", "add", url, "--allow-private", "--type", "partition.stopped.v1", "--json")
    code, said = tokenbill(pipeline, *arguments)
    assert code == 0, said
    yield
    database = Database(pipeline.database_url, pool_size=1)
    webhooks.remove_webhook(database, json.loads(said)["webhook_id"])
    database.close()


def split(traffic: Traffic) -> tuple[int, str, list[str]]:
    """Return a partition whose log is whole, one of its accounts, and the accounts of the other partitions."""
    with closing(offset_reader(traffic.pipeline.kafka, "tokenbill-tests")) as consumer:
        deleted = {
            number
            for number in range(PARTITIONS)
            if consumer.get_watermark_offsets(TopicPartition(USAGE_TOPIC, number), timeout=30)[0] > 0
        }
    account = next(name for name in traffic.accounts if partition_of(name, PARTITIONS) not in deleted)
    number = partition_of(account, PARTITIONS)
    return number, account, [name for name in traffic.accounts if partition_of(name, PARTITIONS) != number]


def check_seen(
    pipeline: Pipeline, number: int, offset: int, reason: str, kind: str, topic: str = USAGE_TOPIC
) -> dict[str, Any]:
    """Check that every page and command shows the stopped partition; return what `partition list` says."""
    code, said = tokenbill(pipeline, "status", "--json")
    assert code == 1
    (seen,) = json.loads(said)["stopped"]
    assert (seen["partition"], seen["topic"], seen["offset"], seen["kind"]) == (number, topic, offset, kind)
    assert reason in seen["reason"]
    code, said = tokenbill(pipeline, "status")
    assert code == 1
    assert f"partition {number} is stopped" in said
    assert seen["resume"] in said
    code, said = tokenbill(pipeline, "partition", "list", "--json")
    assert (code, json.loads(said)) == (1, [seen])
    code, said = tokenbill(pipeline, "audit")
    assert code == 1
    assert "FAIL  stopped partitions" in said
    assert said.count("FAIL") == 1
    pages = worker_pages(pipeline, "health")
    assert sorted(status for status, _ in pages) == [200, 503]
    (body,) = (json.loads(body) for status, body in pages if status == 503)
    assert [(one["partition"], one["offset"]) for one in body["stopped"]] == [(number, offset)]
    assert reason in body["stopped"][0]["reason"]
    metrics = "".join(body for _, body in worker_pages(pipeline, "metrics"))
    assert f'tokenbill_partition_stopped{{partition="{number}"}} 1.0' in metrics
    status, ready = page(f"{pipeline.info.api}/readyz")
    assert (status, json.loads(ready)) == (200, {"status": "degraded", "stopped_partitions": [number]})
    return dict(seen)


def check_well(pipeline: Pipeline) -> None:
    until("nothing is stopped", lambda: {status for status, _ in worker_pages(pipeline, "health")} == {200}, 60)
    assert tokenbill(pipeline, "status")[0] == 0
    assert tokenbill(pipeline, "partition", "list") == (0, "No partition is stopped.\n")
    assert pipeline.audit_problems() == []
    metrics = "".join(body for _, body in worker_pages(pipeline, "metrics"))
    assert "tokenbill_partition_stopped{" not in metrics
    assert json.loads(page(f"{pipeline.info.api}/readyz")[1])["status"] == "ok"


def resumed(pipeline: Pipeline, number: int, *where: str) -> None:
    code, said = tokenbill(pipeline, "partition", "resume", str(number), *where, *approved(pipeline))
    assert code == 0, said
    assert said.startswith(f"partition {number} goes on")


def position(pipeline: Pipeline, number: int, topic: str = USAGE_TOPIC) -> int:
    with Store(pipeline.database_url) as store:
        return store.positions([number])[topic, number]


def same_as_simulated(traffic: Traffic) -> dict[str, Any]:
    traffic.settle()
    expected = traffic.expected()
    with Store(traffic.pipeline.database_url) as store:
        stored = {one.account: account_object(one) for one in store.load_accounts(sorted(set(traffic.accounts)))}
    assert stored == expected["accounts"]
    counts = traffic.books.counts()
    assert {"rated": counts.rated, "duplicate": counts.duplicate, "rejected": counts.rejected} == expected["events"]
    return expected


def test_deleted_by_retention(pipeline: Pipeline, traffic: Traffic) -> None:
    """Records are deleted before they are read, while every worker is down."""
    traffic.open(12)
    traffic.use(24)
    traffic.settle()
    number, account, others = split(traffic)
    begin = position(pipeline, number)
    with receiver() as (url, received), webhook(pipeline, url):
        pipeline.start(0)
        for at in range(10):
            # The numbers continue after the events that are deleted, as a source's numbers do.
            value = traffic.event(at, account)
            traffic.send_usage(value, account, remember=at >= 6)
        for at, name in enumerate(others):
            traffic.send_usage(traffic.event(at, name), name)
        traffic.flush()
        admin = AdminClient({"bootstrap.servers": pipeline.kafka})
        for done in admin.delete_records([TopicPartition(USAGE_TOPIC, number, begin + 6)]).values():
            done.result()
        pipeline.start(2)
        until("the others are billed", lambda: traffic.books.counts().rated == 24 + len(others), 60)
        reason = f"deleted by retention before they were read: offsets {begin} to {begin + 5}"
        until("it is seen", lambda: tokenbill(pipeline, "status")[0] == 1, 30)
        seen = check_seen(pipeline, number, begin, reason, "deleted")
        until("the alarm arrives", lambda: bool(received), 30)
        assert {key: received[0]["data"][key] for key in seen} == seen
        assert (received[0]["type"], received[0]["subject"]) == ("partition.stopped.v1", f"partition-{number}")
    # After a restart it is still stopped, and no process dies of it.
    for name in ("worker-1", "worker-2"):
        pipeline.kill(name)
    pipeline.wait_serving(2)
    pids = stack.info(pipeline.folder).pids
    traffic.send_usage(traffic.event(99, others[0]), others[0])
    traffic.flush()
    until("the others are billed", lambda: traffic.books.counts().rated == 24 + len(others) + 1, 60)
    check_seen(pipeline, number, begin, reason, "deleted")
    assert stack.info(pipeline.folder).pids == pids
    for wrong, why in (
        ([str(number), *approved(pipeline, "wang", "wang")], "both are the key"),
        ([str(number), *approved(pipeline, "wang", "Wang")], "are both named"),
        ([str(number), "--reason", "r"], "neither --requested-key nor TOKENBILL_REQUESTED_KEY is set"),
        ([str(number), "--topic", USAGE_TOPIC, "--after", str(begin - 1), *approved(pipeline)], "skips nothing"),
        ([str(number), "--topic", USAGE_TOPIC, "--after", str(begin + 99), *approved(pipeline)], "lies beyond it"),
        ([str(number), "--after", str(begin), *approved(pipeline)], "belong together"),
        ([str((number + 1) % PARTITIONS), *approved(pipeline)], "is not stopped"),
    ):
        code, said = tokenbill(pipeline, "partition", "resume", *wrong)
        assert (code, why in said) == (2, True), said
    resumed(pipeline, number, "--topic", USAGE_TOPIC, "--after", str(begin + 5))
    until("the partition is billed", lambda: traffic.books.counts().rated == 24 + len(others) + 1 + 4, 60)
    same_as_simulated(traffic)
    check_well(pipeline)
    assert position(pipeline, number) == begin + 10
    code, said = tokenbill(pipeline, "partition", "list", "--resumed", "--json")
    assert code == 0
    last = json.loads(said)[-1]
    assert (last["first_offset"], last["last_offset"]) == (begin, begin + 5)
    keys = {one["key_id"]: one["name"] for one in json.loads(tokenbill(pipeline, "api-key", "list", "--json")[1])}
    assert (last["requested_by"], keys[last["requested_key"]]) == ("wang", "wang")
    assert (last["approved_by"], keys[last["approved_key"]]) == ("li", "li")


@contextmanager
def contradiction(pipeline: Pipeline, account: str) -> Iterator[None]:
    """Make the database refuse every change of a bucket of one account."""
    with pipeline.admin() as connection:
        connection.execute("ALTER TABLE bucket DROP CONSTRAINT IF EXISTS contradiction")
        connection.execute(
            f"ALTER TABLE bucket ADD CONSTRAINT contradiction CHECK (account <> '{account}' OR status = '') NOT VALID"
        )
    try:
        yield
    finally:
        with pipeline.admin() as connection:
            connection.execute("ALTER TABLE bucket DROP CONSTRAINT IF EXISTS contradiction")


def test_a_record_that_cannot_be_decided(pipeline: Pipeline, traffic: Traffic) -> None:
    """The record is found, and everything before it is billed; it is tried again, and another one is skipped."""
    traffic.open(12)
    traffic.use(24)
    traffic.settle()
    number, account, _ = split(traffic)
    begin = position(pipeline, number)
    before = traffic.usage_sent
    neighbours = [name for name in traffic.accounts if partition_of(name, PARTITIONS) == number and name != account]
    with contradiction(pipeline, account):
        first = [traffic.event(at, (neighbours or traffic.accounts)[0]) for at in range(3)] if neighbours else []
        for value in first:
            traffic.send_usage(value, neighbours[0], partition=number)
        traffic.send_usage(traffic.event(1, account), account)
        traffic.use(48)
        traffic.flush()
        pids = {name: pipeline.pid(name) for name in ("worker-1", "worker-2")}
        until("it is seen", lambda: tokenbill(pipeline, "status")[0] == 1, 60)
        check_seen(pipeline, number, begin + len(first), "contradiction", "undecided")
        assert {name: pipeline.pid(name) for name in pids} == pids, "no worker was restarted"
        assert position(pipeline, number) == begin + len(first)
    resumed(pipeline, number)
    assert same_as_simulated(traffic)["events"]["rated"] == before + len(first) + 49
    check_well(pipeline)
    with contradiction(pipeline, account):
        at = position(pipeline, number)
        traffic.send_usage(traffic.event(1, account), account, remember=False)
        traffic.flush()
        until("it is seen", lambda: tokenbill(pipeline, "status")[0] == 1, 60)
        seen = check_seen(pipeline, number, at, "contradiction", "undecided")
        assert f"--topic usage.events --after {at} " in seen["resume"]
    resumed(pipeline, number, "--topic", USAGE_TOPIC, "--after", str(at))
    traffic.use(24)
    same_as_simulated(traffic)
    check_well(pipeline)
    # The log holds the record that was skipped; a replay skips it too.
    past = balance_in_past(pipeline.kafka, pipeline.database_url, account, time.time_ns() // 1000)
    with Store(pipeline.database_url) as store:
        (stored,) = store.load_accounts([account])
    assert past["wallet"] == balance_object(stored)["wallet"]
    assert [one["remaining"] for one in past["buckets"]] == [
        one["remaining"] for one in balance_object(stored)["buckets"]
    ]
