"""``tokenbill worker``, ``relay`` and ``scheduler``: each runs one process in the foreground until SIGTERM."""

import logging
import os
import signal
import socket
import sys
from pathlib import Path

import click

from billing.catalog.model import Catalog
from billing.commits.commit_record import PartitionState
from billing.engine.partition_engine import PartitionEngine
from billing.store.store import Store
from streams.stream_errors import TopicMismatch
from tokenbill.commands.process import (
    calculator_class,
    keep_freed_memory,
    log_to_stderr,
    servers,
    session_timeout,
    time_limits,
    tune_garbage_collection,
    wait_for_topics,
)
from tokenbill.lazy_commands import LazyCommands
from tokenbill.replays.histories import LogStore

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Data folder of the local stack to use.")
_WEB_PORT = click.option(
    "--web-port", type=int, default=6066, show_default=True, help="Port of /healthz, /readyz and /metrics."
)
_WEB_HOST = click.option(
    "--web-host", default="127.0.0.1", show_default=True, help="Address of /healthz, /readyz and /metrics."
)


@click.command()
@click.option(
    "--name",
    default=f"{socket.gethostname()}-{os.getpid()}",
    help="Name in logs and in the list of running workers [default: HOSTNAME-PID].",
)
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
def worker(name: str, web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run one Faust worker in the foreground.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are the addresses of the servers; if they are not set, the servers of the
    local stack in --data-dir are used. TOKENBILL_SESSION_TIMEOUT is the number of seconds (default 10) without a
    heartbeat after which a worker loses its partitions. TOKENBILL_SEQUENCE_JUMP is the largest distance (default
    1000000000) of a sequence number from the highest one of its source.

    \b
    Example:
      tokenbill worker --name worker-3 --web-port 6068
    """
    from streams.worker.worker_app import WorkerSettings, build_app, run_app

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    partitions = wait_for_topics(kafka)
    session_seconds = session_timeout()
    make_calculator = calculator_class()
    limits = time_limits()
    with LogStore(kafka, database_url, pool_size=10) as store:

        def make_engine(state: PartitionState, catalog_epoch: int, catalog: Catalog) -> PartitionEngine:
            if state.partitions != partitions:
                raise TopicMismatch(
                    f"the topics have {partitions} partitions, the database was prepared for {state.partitions}",
                    "Use the broker and the database of one installation.",
                )
            return PartitionEngine(state, catalog_epoch, catalog, store, make_calculator(), limits)

        settings = WorkerSettings(kafka, name, web_port, session_seconds, web_host)
        app = build_app(settings, store, make_engine)
        tune_garbage_collection()
        keep_freed_memory()
        code = run_app(app)
    logging.shutdown()
    sys.exit(code)


@click.group(cls=LazyCommands, modules={"reconcile": "tokenbill.commands.relay_reconcile"}, invoke_without_command=True)
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
@click.pass_context
def relay(context: click.Context, web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run the relay in the foreground: it publishes committed output to Kafka, each record once.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are the addresses of the servers; if they are not set, the servers of the
    local stack in --data-dir are used.

    \b
    Example:
      tokenbill relay --web-port 6067
    """
    if context.invoked_subcommand is not None:
        return
    from streams.health_pages import serve_pages
    from streams.relay.outbox_watch import OutboxWatch
    from streams.relay.relay import Relay, RelaySettings
    from streams.relay.relay_metrics import RelayMetrics

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    partitions = wait_for_topics(kafka)
    metrics = RelayMetrics()
    with Store(database_url, pool_size=partitions + 2) as store:
        process = Relay(RelaySettings(kafka, partitions), store, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.end())
        pages = serve_pages(web_host, web_port, process.health, metrics.registry)
        watch = OutboxWatch(store, metrics)
        watch.start()
        tune_garbage_collection()
        keep_freed_memory()
        code = process.run()
        watch.end()
        pages.shutdown()
    sys.exit(code)


@click.command()
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
def scheduler(web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run the scheduler in the foreground: it triggers overdue changes where no records arrive.

    Expiry, renewal and other changes by time happen when a partition receives a record. The scheduler sends a command
    to each partition that has an overdue account and receives none.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL are the addresses of the servers; if they are not set, the servers of the
    local stack in --data-dir are used.

    \b
    Example:
      tokenbill scheduler --web-port 6068
    """
    from streams.health_pages import serve_pages
    from streams.scheduler import Scheduler, SchedulerMetrics

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    wait_for_topics(kafka)
    with Store(database_url, pool_size=1) as store:
        metrics = SchedulerMetrics()
        process = Scheduler(kafka, store, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.end())
        pages = serve_pages(web_host, web_port, process.health, metrics.registry)
        process.run()
        pages.shutdown()
    sys.exit(0)
