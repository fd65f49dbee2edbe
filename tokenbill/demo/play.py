"""The demonstration from start to end, step by step. Every wait tolerates a broker or a database that is away."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from confluent_kafka import KafkaException
from rich.console import Console

from billing.catalog import Catalog, PriceBook
from billing.commits.output_documents import balance_object
from billing.errors import CatalogConflict, DatabaseDown
from billing.store.proofs.audit import audit
from billing.store.proofs.committed_sums import CommittedSums
from billing.store.store import Store
from schemas.topics import USAGE_TOPIC
from streams.send.send_commands import send_commands
from streams.stream_errors import DeliveryFailed
from tokenbill import stack
from tokenbill.demo import traffic
from tokenbill.demo.consumer import read_balances, read_rated, read_rejected, records_in
from tokenbill.demo.demo_checks import DemoCheck, Evidence, check_all
from tokenbill.demo.demo_sums import committed_sums
from tokenbill.demo.emitters import Emitters
from tokenbill.demo.emitting import EmitterTask, SentCounts
from tokenbill.demo.expected import PriceList, priced_kinds, total
from tokenbill.demo.patience import PATIENCE_SECONDS, retry
from tokenbill.demo.summary import Bar, Speed, say
from tokenbill.demo.trace import built_in_sizes, default_trace, read_trace
from tokenbill.stack.info import StackInfo
from tokenbill.stack.progress import Plain
from tokenbill.stack.status import document
from tokenbill.user_errors import UserError

WORKERS = 2
EMITTERS = 2
KILL_AT_PERCENT = 40
BAD_EVERY = 2_500
"""One event in this many is malformed or cannot be priced."""
WORKERS_USE_CATALOG_SECONDS = 60.0
DEMO_POLL_SECONDS = 0.5
LOAD_ACCOUNTS = 1_000


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """Options of a demonstration."""

    data_dir: Path | None
    catalog: Catalog
    events: int
    accounts: int
    trace: Path | None
    keep: bool


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """The result of a demonstration."""

    run: str
    data_dir: Path
    evidence: Evidence
    checks: list[DemoCheck]
    speed: Speed


@dataclass(slots=True)
class DemoRun:
    """State that every step uses: the running stack, the console, the database, and this run's name and prices."""

    running: StackInfo
    console: Console
    sums: CommittedSums
    store: Store
    run: str
    book: PriceBook
    prices: PriceList
    killed: str | None = None
    arrived_before: int = 0

    @property
    def kafka(self) -> str:
        if self.running.kafka is None:
            raise RuntimeError("the stack runs without a broker")
        return self.running.kafka

    @property
    def prefix(self) -> str:
        """Prefix of the names of this run's accounts."""
        return f"demo-{self.run}-"

    @property
    def source_prefix(self) -> str:
        """Prefix of the sources of this run's emitters."""
        return f"urn:demo:{self.run}:"

    def say(self, text: str) -> None:
        say(self.console, text)


def play(wish: DemoOptions, console: Console) -> DemoOutcome:
    """Run the demonstration.

    Raises:
        UserError: something that a person can put right is missing, or a server stays away for minutes.
    """
    trace = wish.trace or default_trace()
    sizes = built_in_sizes() if trace is None else read_trace(trace)
    book = traffic.choose_book(wish.catalog)
    plans = traffic.choose_plans(wish.catalog, book.currency)
    with _stage(wish, console, book) as demo:
        demo.say(f"Sizes of requests: {trace or 'built-in, as in the Azure trace of 2023'} ({len(sizes):,} requests)")
        _publish(demo, wish.catalog)
        _wait_until_idle(demo)
        demo.sums.begin()
        demo.arrived_before = records_in(demo.kafka, USAGE_TOPIC, demo.say)
        now_us = time.time_ns() // 1000
        _open_accounts(demo, list(traffic.commands(demo.run, wish.accounts, book, plans, now_us)))
        kinds = priced_kinds(demo.prices, now_us)
        sent, speed = _send_and_follow(demo, wish, _orders(demo, wish, kinds, trace))
        demo.say("Checking: database, topics, audit ...")
        shapes = traffic.make_shapes(sizes, [traffic.TRAFFIC_KINDS[place] for place in kinds])
        evidence = _gather(demo, wish, sent, shapes)
        return DemoOutcome(demo.run, demo.running.data_dir, evidence, check_all(evidence), speed)


@contextlib.contextmanager
def _stage(wish: DemoOptions, console: Console, book: PriceBook) -> Iterator[DemoRun]:
    """Run the stack for the duration of the ``with`` block. It is stopped if it was started here, unless it is kept."""
    before = stack.info(wish.data_dir)
    workers = sum(one.name.startswith("worker-") for one in before.processes)
    say(console, "Starting Kafka, PostgreSQL, relay and two Faust workers ..." if not before.running else "Using the "
        f"stack that runs in {before.data_dir}.")  # fmt: skip
    try:
        running = stack.start(wish.data_dir, None if workers >= WORKERS else WORKERS, progress=Plain(console))
        say(console, f"Kafka {running.kafka} ({running.parts['kafka']}), PostgreSQL ({running.parts['postgresql']}), "
            f"{running.partitions} partitions, data in {running.data_dir}")  # fmt: skip
        if running.database_url is None:
            raise UserError("the stack has no database that is prepared", "", "Run `tokenbill up`.")
        run = datetime.now(UTC).strftime("%m%dt%H%M%S")
        sums = committed_sums(running.database_url, lambda text: say(console, text))
        with contextlib.closing(sums), Store(running.database_url) as store:
            yield DemoRun(running, console, sums, store, run, book, PriceList(wish.catalog, book.name))
    finally:
        if not before.running and not wish.keep:
            say(console, "Stopping the stack (its data stays) ...")
            stack.stop(wish.data_dir)


def _publish(demo: DemoRun, catalog: Catalog) -> None:
    try:
        done = retry("the database", lambda: demo.store.publish(catalog), (DatabaseDown,), demo.say)
    except CatalogConflict as error:
        fix = "Use another data folder, or the catalogue that was published there."
        raise UserError("the catalogue cannot be published", "\n  ".join(("", *error.reasons)), fix) from error
    late = retry(
        "the database",
        lambda: demo.store.wait_for_workers(done.epoch, WORKERS_USE_CATALOG_SECONDS),
        (DatabaseDown,),
        demo.say,
    )
    if late:
        raise UserError("the catalogue is published, but not in use", f"by {', '.join(late)}", "See their logs.")
    demo.say(f"Catalogue: {len(done.published)} new entries published, price book {demo.book.label}")


def _wait_until_idle(demo: DemoRun) -> None:
    """Wait until earlier traffic is decided and published, because it must not be counted as ours."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _is_idle(demo):
        if time.monotonic() > deadline:
            raise UserError("the stack is busy with other traffic", "the demo counts all there is", "Try later.")
        time.sleep(DEMO_POLL_SECONDS)


def _is_idle(demo: DemoRun) -> bool:
    """True if everything sent is decided and published. Unknown lag, while a server is away, counts as not idle."""
    commits = demo.sums.commits()
    lag = document(stack.info(demo.running.data_dir))["lag"]
    # A commit after one topic was looked at may have forwarded to another: then the lags prove nothing.
    return not any(left != 0 for left in lag.values()) and demo.sums.commits() == commits


def _open_accounts(demo: DemoRun, commands: list[dict[str, object]]) -> None:
    # After a failure, all commands are sent again: a command that arrives twice is recognised by its identity.
    retry("Kafka", lambda: send_commands(demo.kafka, commands), (DeliveryFailed, KafkaException), demo.say)
    demo.say(f"Accounts: {len(commands):,} commands sent (open, sell a package, top up)")


def _orders(demo: DemoRun, wish: DemoOptions, kinds: list[int], trace: Path | None) -> list[EmitterTask]:
    bad = wish.events // BAD_EVERY
    return [
        EmitterTask(
            kafka=demo.kafka,
            run=demo.run,
            number=number,
            events=wish.events // EMITTERS + (number < wish.events % EMITTERS),
            bad=bad // EMITTERS + (number < bad % EMITTERS),
            accounts=wish.accounts,
            kinds=kinds,
            trace=None if trace is None else str(trace.resolve()),
        )
        for number in range(EMITTERS)
    ]


def _send_and_follow(demo: DemoRun, wish: DemoOptions, orders: list[EmitterTask]) -> tuple[SentCounts, Speed]:
    """Start the emitters, kill a worker on the way, and wait until everything is committed and published."""
    began = last_moved = time.monotonic()
    committed = -1
    committed_at = None
    with Emitters(orders, demo.running.data_dir / "logs") as emitters, Bar(demo.console, wish.events) as bar:
        while True:
            before, committed = committed, demo.sums.counts().decided
            bar.show(emitters.sent, committed)
            now = time.monotonic()
            last_moved = now if committed != before else last_moved
            if demo.killed is None and 100 * committed >= KILL_AT_PERCENT * wish.events:
                _kill_worker(demo, 100 * committed // wish.events)
            finished = emitters.finished
            if finished and committed >= wish.events:
                committed_at = committed_at or now
                if _is_idle(demo):
                    break
            if finished and now - last_moved > PATIENCE_SECONDS:
                demo.say(f"Nothing has moved for {PATIENCE_SECONDS:.0f} s: no longer waiting.")
                break
            time.sleep(DEMO_POLL_SECONDS)
        now = time.monotonic()
        began = emitters.first_sent_at or began
        return emitters.totals(), Speed((committed_at or now) - began, now - began)


def _kill_worker(demo: DemoRun, percent: int) -> None:
    """Kill the last worker with SIGKILL. If no worker runs at this moment, the next poll tries again."""
    pids = stack.info(demo.running.data_dir).pids
    workers = sorted(name for name in pids if name.startswith("worker-"))
    if not workers:
        return
    name = workers[-1]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pids[name], signal.SIGKILL)
        demo.killed = name
        demo.say(f"Killed {name} (pid {pids[name]}) with -9 at {percent} %.")


def _gather(demo: DemoRun, wish: DemoOptions, sent: SentCounts, shapes: list[traffic.Shape]) -> Evidence:
    sums, kafka = demo.sums, demo.kafka
    audited = retry("the database", lambda: audit(str(demo.running.database_url)), (DatabaseDown,), demo.say)
    return Evidence(
        sent=sent,
        arrived=records_in(kafka, USAGE_TOPIC, demo.say) - demo.arrived_before,
        expected=total(demo.prices, shapes, sent.usage),
        accounts=wish.accounts,
        commands=traffic.count_commands(wish.accounts),
        counts=sums.counts(),
        usage=sums.usage(),
        balances=sums.balances(demo.prefix),
        trial_balance_pico=sums.trial_balance_pico(),
        audit_findings=[f"{one.name}: {one.count}, {'; '.join(one.shown[:2])}" for one in audited.checks if one.count],
        database_balances=_database_balances(demo),
        topic_balances=read_balances(kafka, demo.prefix, demo.say),
        rated_view=read_rated(kafka, demo.source_prefix, demo.say),
        rejected_view=read_rejected(kafka, demo.source_prefix, demo.say),
        unpublished=sums.unpublished(),
        killed=demo.killed,
        restarts=stack.info(demo.running.data_dir).restarts,
    )


def _database_balances(demo: DemoRun) -> dict[str, dict[str, object]]:
    names = demo.sums.account_names(demo.prefix)
    found: dict[str, dict[str, object]] = {}
    for at in range(0, len(names), LOAD_ACCOUNTS):
        some = names[at : at + LOAD_ACCOUNTS]
        accounts = retry(
            "the database",
            lambda: demo.store.load_accounts(some),  # noqa: B023 (called in this iteration)
            (DatabaseDown,),
            demo.say,
        )
        found |= {account.account: balance_object(account) for account in accounts}
    return found
