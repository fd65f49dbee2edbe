"""Benchmark of the whole pipeline on the local stack: Kafka, Faust, core, PostgreSQL commit, relay, published topics.

The events are in Kafka before the workers start, so the emitter costs nothing in the figure. The measured time starts
when a worker has acquired its first partition, and ends when every output is published; the time until everything was
committed is measured separately. The baseline (:mod:`benchmarks.plain_faust`) then reads the same topic in the same
run, with nothing else running.
"""

import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from rich.console import Console

from benchmarks import workload
from benchmarks.result import Result, machine
from billing.store.store import Store
from schemas.topics import USAGE_TOPIC
from streams.kafka_clients import input_producer
from streams.send.send_commands import send_commands
from tokenbill import stack
from tokenbill.stack import StackInfo

BASELINE_EVENTS = 60_000
BENCH_PATIENCE_SECONDS = 900
PIPELINE_WARM_PART = 5
_EPOCHS: LiteralString = "SELECT sum(epoch) FROM tokenbill.partition_state"
_RATED: LiteralString = "SELECT coalesce(sum(rated), 0) FROM tokenbill.commit"
_COMMANDS: LiteralString = "SELECT count(*) FROM tokenbill.command_seen"
_DEPTH: LiteralString = "SELECT count(*) FROM tokenbill.outbox"


@dataclass(frozen=True, slots=True)
class PipelineMeasured:
    """Times of a run, in seconds since the first partition was acquired."""

    committed_seconds: float
    published_seconds: float
    warm_events_per_second: float
    """Events published per second after a fifth was committed, when most accounts are in the worker's memory."""


class BenchFailed(Exception):
    """Raised if the pipeline did not do the work, so that its figure would mean nothing."""


def run(events: int = 1_000_000, accounts: int = 100_000, workers: int = 1) -> list[Result]:
    """Measure on a stack of its own, which is stopped and removed afterwards."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="tokenbill-bench-") as folder:
        data_dir = Path(folder)
        try:
            console.print("starting Kafka and PostgreSQL")
            started = stack.start(data_dir, workers=workers, partitions=workload.PARTITIONS)
            names = workload.account_names(accounts)
            _open_accounts(started, names, console)
            stack.start(data_dir, workers=0)
            console.print(f"writing {events:,} events to Kafka")
            _write_events(started, events, names)
            console.print(f"{workers} worker(s) and the relay bill them")
            epochs = _scalar(started, _EPOCHS)
            with ThreadPoolExecutor(1) as starting:
                ready = starting.submit(stack.start, data_dir, workers=workers)
                measured = _watch(started, events, epochs, console)
                ready.result()
            console.print("a plain Faust agent reads the same topic")
            stack.start(data_dir, workers=0)
            baseline = _baseline(started, min(events, BASELINE_EVENTS), accounts)
        finally:
            stack.remove(data_dir)
    published = events / measured.published_seconds
    conditions = machine() | {
        "events": events,
        "accounts": accounts,
        "combinations": len(workload.COMBINATIONS),
        "sources": "numbered",
        "workers": workers,
        "partitions": workload.PARTITIONS,
        "fsync": True,
        "published": "usage.rated, package.balance",
        "committed_events_per_second": round(events / measured.committed_seconds),
        "warm_events_per_second": round(measured.warm_events_per_second),
        "baseline": "plain Faust agent, nothing durable",
        "baseline_events_per_second": round(baseline),
    }
    return [Result("pipeline.json", round(published), "events/s", round(published / baseline, 1), conditions)]


def _open_accounts(started: StackInfo, names: list[str], console: Console) -> None:
    store = Store(_database(started))
    store.publish(workload.catalog())
    console.print(f"opening {len(names):,} accounts with a package each")
    sent = send_commands(_kafka(started), workload.commands(names))
    deadline = time.monotonic() + BENCH_PATIENCE_SECONDS
    while _scalar(started, _COMMANDS) < sent or _scalar(started, _DEPTH):
        if time.monotonic() > deadline:
            raise BenchFailed("the accounts were not opened in time")
        time.sleep(0.5)


def _write_events(started: StackInfo, events: int, names: list[str]) -> None:
    failures: list[Any] = []
    producer = input_producer(_kafka(started), lambda error, _: failures.append(error) if error else None)
    for partition in range(workload.PARTITIONS):
        own = events // workload.PARTITIONS + (partition < events % workload.PARTITIONS)
        for value in workload.events(own, names, partition, workload.PARTITIONS, seed=partition + 1):
            while True:
                try:
                    producer.produce(USAGE_TOPIC, value, None, partition)
                    break
                except BufferError:
                    producer.poll(0.05)
    left = producer.flush(120)
    if left or failures:
        raise BenchFailed(f"{left} events not written, {len(failures)} refused")


def _watch(started: StackInfo, events: int, epochs: int, console: Console) -> PipelineMeasured:
    """Wait until everything is committed and published; return the times."""
    begun = warm = committed = 0.0
    warm_rated = 0
    deadline = time.monotonic() + BENCH_PATIENCE_SECONDS
    with psycopg.connect(_database(started), autocommit=True) as connection:

        def ask(query: LiteralString) -> int:
            row = connection.execute(query).fetchone()
            return int(row[0]) if row else 0

        while time.monotonic() < deadline:
            now = time.monotonic()
            if not begun:
                begun = now if ask(_EPOCHS) > epochs else 0.0
            elif not committed:
                rated = ask(_RATED)
                if not warm and rated >= events // PIPELINE_WARM_PART:
                    warm, warm_rated = now, rated
                if rated < events:
                    time.sleep(0.05)
                    continue
                committed = now
                console.print(f"committed after {committed - begun:.1f} s")
            if committed and not ask(_DEPTH):
                console.print(f"published after {time.monotonic() - begun:.1f} s")
                done = time.monotonic()
                return PipelineMeasured(committed - begun, done - begun, (events - warm_rated) / (done - warm))
            time.sleep(0.05)
    raise BenchFailed(f"{events} events were not committed and published within {BENCH_PATIENCE_SECONDS} s")


def _baseline(started: StackInfo, events: int, accounts: int) -> float:
    command = [sys.executable, "-m", "benchmarks.plain_faust", _kafka(started), USAGE_TOPIC, str(events), str(accounts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BENCH_PATIENCE_SECONDS, check=False)
    found = re.search(r"events_per_second (\d+)", done.stdout)
    if found is None:
        raise BenchFailed(f"the plain Faust agent did not finish: {done.stderr[-2000:]}")
    return float(found.group(1))


def _scalar(started: StackInfo, query: LiteralString) -> int:
    with psycopg.connect(_database(started), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0


def _kafka(started: StackInfo) -> str:
    if started.kafka is None:
        raise BenchFailed("the stack has no broker")
    return started.kafka


def _database(started: StackInfo) -> str:
    if started.database_url is None:
        raise BenchFailed("the stack's database was not prepared")
    return started.database_url
