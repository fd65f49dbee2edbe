"""A whole pipeline under test, and traffic whose expected result is ``billing.engine.simulation`` over the same lines.

The tests see the pipeline only from outside: they send to Kafka, kill processes, and read SQL and topics.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from confluent_kafka import KafkaError, KafkaException, Message

from billing.calculator.plain import PlainCalculator
from billing.catalog import Catalog, load_folder
from billing.commits.output_documents import account_object, balance_object
from billing.engine.simulation import Simulation
from billing.errors import DatabaseDown
from billing.store.proofs.audit import audit
from billing.store.proofs.committed_sums import CommittedSums
from billing.store.store import Store
from schemas.routing import partition_of
from schemas.times import format_time_us
from schemas.topics import COMMAND_TOPIC, REJECTED_TOPIC, USAGE_TOPIC
from streams.kafka_clients import input_producer
from streams.read.readback import read_topic
from streams.stream_errors import ReadbackTimeout
from tokenbill import stack
from tokenbill.demo.consumer import read_balances, records_in
from tokenbill.demo.demo_sums import committed_sums
from tokenbill.demo.patience import retry
from tokenbill.stack import status
from tokenbill.stack.control import python_environment

PARTITIONS = 6
SESSION_SECONDS = 6
SETTLE_SECONDS = 120.0
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "catalog"


def until(what: str, ready: Callable[[], bool], seconds: float = SETTLE_SECONDS, every: float = 0.2) -> None:
    """Wait until ``ready`` returns True; ``what`` describes the condition in the error message."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(every)


@dataclass
class Pipeline:
    """A stack with its catalogue; tests share it and use accounts with different names."""

    folder: Path
    said: list[str] = field(default_factory=list)

    def start(self, workers: int) -> None:
        """Start the stack, or change its number of workers; return when every process is ready."""
        self.info = stack.start(self.folder, workers=workers, partitions=PARTITIONS)
        self.info_books = committed_sums(self.database_url, self.said.append)

    @property
    def kafka(self) -> str:
        assert self.info.kafka is not None
        return self.info.kafka

    @property
    def database_url(self) -> str:
        assert self.info.database_url is not None
        return self.info.database_url

    def pid(self, name: str) -> int:
        """Return the pid of a process; wait for it while it is being restarted."""
        until(f"{name} runs", lambda: name in stack.info(self.folder).pids, 60)
        return stack.info(self.folder).pids[name]

    def signal(self, name: str, number: signal.Signals) -> int:
        """Send a signal to a process; return its pid."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def kill(self, name: str) -> int:
        """Kill a process with SIGKILL; return its pid."""
        return self.signal(name, signal.SIGKILL)

    def wait_serving(self, workers: int) -> None:
        """Return when every process is ready again, with the given number of workers."""
        self.start(workers)

    def publish(self, catalog: Catalog) -> None:
        """Publish a catalogue and wait until every running worker uses it."""
        with Store(self.database_url) as store:
            done = store.publish(catalog)
            assert store.wait_for_workers(done.epoch, 60) == []

    def catalog(self) -> Catalog:
        """Return the published catalogue."""
        with Store(self.database_url) as store:
            return store.catalog()[1]

    def books(self) -> CommittedSums:
        """Return committed sums that count from now on."""
        books = committed_sums(self.database_url, self.said.append)
        books.begin()
        return books

    @contextmanager
    def admin(self) -> Iterator[psycopg.Connection[Any]]:
        """Open a superuser's connection, for locks and for ending other sessions."""
        assert self.info.admin_database_url is not None
        with psycopg.connect(self.info.admin_database_url, autocommit=True) as connection:
            connection.execute("SET search_path TO tokenbill")
            yield connection

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """Lock a table against writes, so that every commit that writes to it hangs."""
        with self.admin() as connection, connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")
            yield

    @contextmanager
    def own_worker(
        self, name: str, port: int, argv: Sequence[str] = (), extra: Sequence[str] = ()
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Run an additional worker, or the program ``argv`` as worker; it is stopped with SIGTERM."""
        servers = {"TOKENBILL_KAFKA": self.kafka, "TOKENBILL_DATABASE_URL": self.database_url}
        ours = [sys.executable, "-m", "tokenbill", "worker", "--name", name, "--web-port", str(port)]
        with (self.folder / "logs" / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [*argv, name, str(port), *extra] if argv else ours,
                env={**os.environ, **servers, **python_environment()},
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def is_idle(self) -> bool:
        """True if every input record is decided and all output is published."""
        before = self.info_books.commits()
        lag = status.document(stack.info(self.folder))["lag"]
        # A commit in between may have forwarded records to a topic that was read already, so no commit may be new.
        return not any(left != 0 for left in lag.values()) and self.info_books.commits() == before

    def audit_problems(self) -> list[str]:
        """Return the failed checks of the audit with their details."""
        found = retry("the database", lambda: audit(self.database_url), (DatabaseDown,), self.said.append)
        return [f"{one.name}: {one.shown}" for one in found.checks if one.count]


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that the pipeline published to ``usage.rejected``."""

    reason: str
    value: bytes | None


class Traffic:
    """Commands and usage of one test: sends them, records them in order, and computes the result with ``simulate``."""

    def __init__(self, pipeline: Pipeline, name: str, *, book: str = "retail-cn") -> None:
        self.pipeline = pipeline
        self.name = f"{name}-{time.time_ns() // 1_000_000 % 1_000_000_000}"
        self.book = book
        self.lines: list[bytes] = []
        self.usage_sent = 0
        self.commands_sent = 0
        self.accounts: list[str] = []
        self.sequences = [0] * PARTITIONS
        self.began_us = time.time_ns() // 1000
        self.catalog = pipeline.catalog()
        self.books = pipeline.books()
        self._arrived = records_in(pipeline.kafka, USAGE_TOPIC, pipeline.said.append)
        self._failures: list[KafkaError] = []
        self._producer = input_producer(pipeline.kafka, self._failed)
        self._lock = threading.Lock()

    # Sending

    def account(self, number: int) -> str:
        return f"{self.name}-{number}"

    def command(self, kind: str, account: str, data: dict[str, Any], *, partition: int | None = None) -> None:
        """Send one command, without waiting, and record it."""
        self.commands_sent += 1
        body = {
            "specversion": "1.0",
            "type": kind,
            "source": f"urn:test:{self.name}:commands",
            "id": f"{kind}-{self.commands_sent}",
            "time": format_time_us(self.began_us),
            "subject": account,
            "data": data,
        }
        self._send(COMMAND_TOPIC, account, json.dumps(body).encode(), partition)

    def open(self, number: int, plan: str = "token-9.9", top_up: str | None = "5") -> None:
        """Open accounts with one package each and money in the wallet; return when Kafka has the commands."""
        for at in range(len(self.accounts), len(self.accounts) + number):
            account = self.account(at)
            self.open_one(account, plan, top_up)
        self.flush()

    def open_one(
        self, account: str, plan: str = "token-9.9", top_up: str | None = "5", partition: int | None = None
    ) -> None:
        """Send the commands that open one account, without waiting."""
        self.accounts.append(account)
        starts_at = format_time_us(self.began_us - 3_600_000_000)
        self.command("account.opened.v1", account, {"currency": "CNY", "price_book": self.book}, partition=partition)
        grant = {"plan": plan, "grant_id": "g", "starts_at": starts_at}
        self.command("package.purchased.v1", account, grant, partition=partition)
        if top_up is not None:
            self.command("wallet.topped_up.v1", account, {"amount": top_up, "payment_ref": "p"}, partition=partition)

    def event(self, number: int, account: str, **changes: Any) -> bytes:
        """Return a usage event, numbered on its account's partition; ``changes`` replace fields of envelope or data."""
        partition = partition_of(account, PARTITIONS)
        self.sequences[partition] += 1
        sequence = self.sequences[partition]
        data = {
            "model": ("deepseek-v3.2", "qwen3-max", "glm-5")[number % 3],
            "hardware_tier": ("ascend-910c", "h20")[number % 2],
            "energy_source": ("solar", "grid")[number // 2 % 2],
            "usage": {"input": 1_000 + 37 * number % 911, "cache_read": 13 * number % 700, "output": 1 + number % 397},
        }
        body = {
            "specversion": "1.0",
            "type": "token.usage.v1",
            "source": f"urn:test:{self.name}#p{partition}",
            "id": f"e-{sequence}",
            "sequence": str(sequence),
            "time": format_time_us(time.time_ns() // 1000),
            "subject": account,
            "data": data,
        }
        for key, value in changes.items():
            (data if key in data or key in ("site", "usage_dialect") else body)[key] = value
        return json.dumps({key: value for key, value in body.items() if value is not None}).encode()

    def send_usage(
        self,
        value: bytes | None,
        account: str,
        *,
        partition: int | None = None,
        remember: bool = True,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Send usage unchanged; with ``remember`` it is also part of the simulation."""
        self.usage_sent += 1
        self._send(USAGE_TOPIC, account, value, partition, remember, headers)

    def use(self, number: int) -> list[bytes]:
        """Send ``number`` valid events spread over all accounts; return their bytes."""
        sent = []
        for _ in range(number):
            at = self.usage_sent
            account = self.accounts[at * 7 % len(self.accounts)]
            value = self.event(at, account)
            self.send_usage(value, account)
            sent.append(value)
        self._producer.poll(0)
        return sent

    def flush(self) -> None:
        """Wait until Kafka has acknowledged everything, also while the broker is down for a time."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._producer.flush(1.0):
            assert time.monotonic() < deadline, "Kafka does not take what is sent"
        assert not self._failures, self._failures[0]

    @contextmanager
    def streaming(self, per_second: int = 300) -> Iterator[None]:
        """Send valid events from a thread until the block ends."""
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(0.1):
                self.use(per_second // 10)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def stream_until(self, committed: int) -> None:
        """Wait until ``committed`` events of this traffic are decided."""
        until(f"{committed} events decided", lambda: self.books.counts().decided >= committed)

    # Results

    def settle(self) -> None:
        """Wait until everything sent is decided and published."""
        self.flush()

        until("everything sent is decided and published", self.pipeline.is_idle, every=0.5)

    def expected(self) -> dict[str, Any]:
        """Return the document of ``simulate`` over the same lines."""
        simulation = Simulation(self.pipeline.catalog(), PlainCalculator())
        with self._lock:
            simulation.feed(self.lines)
        return simulation.document()

    def check(self, *, refused_elsewhere: int = 0) -> dict[str, Any]:
        """Settle, then compare accounts and counts with ``simulate``, in SQL and in the topic as read by a consumer.

        ``refused_elsewhere`` is the number of rejected events that are not part of the simulation.
        """
        self.settle()
        expected = self.expected()
        counts = self.books.counts()
        # After a kill the broker may have a record twice, because the client repeats unacknowledged records.
        repeated = (
            records_in(self.pipeline.kafka, USAGE_TOPIC, self.pipeline.said.append) - self._arrived - self.usage_sent
        )
        assert repeated >= 0
        found = {
            "rated": counts.rated,
            "duplicate": counts.duplicate - repeated,
            "rejected": counts.rejected - refused_elsewhere,
        }
        assert found == expected["events"]
        names = sorted(set(self.accounts))
        with Store(self.pipeline.database_url) as store:
            stored = {one.account: one for one in store.load_accounts(names)}
        assert {name: account_object(one) for name, one in stored.items()} == expected["accounts"]
        in_topic = read_balances(self.pipeline.kafka, f"{self.name}-", self.pipeline.said.append)
        assert in_topic == {name: balance_object(one) for name, one in stored.items()}
        assert self.books.trial_balance_pico() == {"CNY": 0}
        assert self.pipeline.audit_problems() == []
        return expected

    def refused(self) -> list[Refused]:
        """Return the records of ``usage.rejected`` whose key is one of this traffic's accounts."""

        def read() -> list[Refused]:
            mine = {name.encode() for name in self.accounts}
            return [
                Refused(dict(message.headers() or [])["reason"].decode(), message.value())
                for message in read_topic(self.pipeline.kafka, REJECTED_TOPIC)
                if message.key() in mine
            ]

        return retry("Kafka", read, (KafkaException, ReadbackTimeout), self.pipeline.said.append)

    def close(self) -> None:
        """Close the connections; a producer that stays open logs errors when the broker stops."""
        self.books.close()
        del self._producer

    def _send(
        self,
        topic: str,
        account: str,
        value: bytes | None,
        partition: int | None,
        remember: bool = True,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        where = partition_of(account, PARTITIONS) if partition is None else partition
        with self._lock:
            if remember and value is not None:
                self.lines.append(value)
            while True:
                try:
                    self._producer.produce(topic, value, account.encode(), where, headers=list(headers))
                    return
                except BufferError:
                    self._producer.poll(0.1)

    def _failed(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)


def examples() -> Catalog:
    """Return the catalogue in the folder examples of the project."""
    return load_folder(EXAMPLES)
