"""The Faust application of a worker: four input topics with one agent each, timers and web pages.

Faust provides group membership, agents, supervision, timers and the web server. It does not manage offsets: topics are
not acknowledged, and positions come from SQL. This module holds no billing rules and no Kafka internals.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import faust
import mode
from faust.types import TP
from faust.web import Request, Response, View

from schemas.topics import INPUT_TOPICS
from streams.health_pages import ALIVE, METRICS_TYPE, add_process_metrics
from streams.worker.transport import BatchConsumer, BatchSchema, Transport
from streams.worker.worker_metrics import WorkerMetrics
from streams.worker.writer import EngineMaker, WriterSettings
from streams.worker.writers import PartitionWriters, PositionStore

WORKER_GROUP = "tokenbill"
WATCH_SECONDS = 2.0
CATALOG_SECONDS = 0.2
HEARTBEAT_SECONDS = 1.0
STOPS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Settings of one worker process."""

    kafka: str
    name: str
    web_port: int
    session_timeout_seconds: float = 10.0
    web_host: str = "127.0.0.1"
    group: str = WORKER_GROUP
    topic_prefix: str = ""
    fetch_records: int = 10_000
    """Largest number of records in one batch."""
    writer: WriterSettings = field(default_factory=WriterSettings)


def build_app(settings: WorkerSettings, store: PositionStore, make_engine: EngineMaker) -> faust.App:
    """Build the Faust application of one worker; run it with :func:`run_app`."""
    session = settings.session_timeout_seconds
    app = faust.App(
        settings.group,
        broker=f"tokenbill://{settings.kafka}",
        broker_session_timeout=session,
        broker_heartbeat_interval=session / 3,
        broker_request_timeout=max(30.0, session),
        broker_rebalance_timeout=60.0,
        broker_max_poll_records=settings.fetch_records,
        broker_client_id=settings.name,
        consumer_max_fetch_size=2 << 20,
        consumer_auto_offset_reset="earliest",
        stream_buffer_maxsize=4,
        stream_wait_empty=False,
        agent_supervisor=mode.CrashingSupervisor,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        value_serializer="raw",
        key_serializer="raw",
        web_host=settings.web_host,
        web_bind=settings.web_host,
        web_port=settings.web_port,
        web_tables_enabled=False,
        worker_redirect_stdouts=False,
    )
    metrics = WorkerMetrics()
    writers = PartitionWriters(
        store=store,
        make_engine=make_engine,
        metrics=metrics,
        settings=settings.writer,
        fail=app.crash,
        fenced_grace_seconds=1.5 * session,
        name=settings.name,
    )
    for topic in INPUT_TOPICS:
        _add_agent(app, topic, settings.topic_prefix, writers)
    transport = cast(Transport, app.transport)
    transport.load_positions = writers.load_positions
    transport.topic_prefix = settings.topic_prefix
    _follow_assignments(app, writers)
    _add_timers(app, writers, settings.name)
    _add_pages(app, writers, metrics)
    return app


def _add_agent(app: faust.App, topic: str, prefix: str, writers: PartitionWriters) -> None:
    # acks=False, because positions come from SQL and Faust's record of processed offsets is not used.
    channel = app.topic(prefix + topic, schema=BatchSchema(key_serializer="raw", value_serializer="raw"), acks=False)

    async def hand_over(stream: Any) -> None:
        async for event in stream.events():
            await writers.offer((topic, event.message.partition), event.value)

    app.agent(channel, name=f"streams.worker.worker_app.{topic}", isolated_partitions=True)(hand_over)


def _follow_assignments(app: faust.App, writers: PartitionWriters) -> None:
    async def assigned(_app: Any, places: set[TP], *_: Any, **__: Any) -> None:
        await writers.assign(map(cast(Transport, app.transport).place, places), _consumer(app))

    async def let_go(*_: Any, **__: Any) -> None:
        await writers.revoke()

    app.on_partitions_assigned.connect(cast(Any, assigned))
    app.on_partitions_revoked.connect(cast(Any, let_go))
    app.on_before_shutdown.connect(cast(Any, let_go))


def _consumer(app: faust.App) -> BatchConsumer:
    return cast(BatchConsumer, app.consumer)


def _add_timers(app: faust.App, writers: PartitionWriters, name: str) -> None:
    def every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        app.timer(seconds)(work)

    async def watch_tail() -> None:
        if not app.rebalancing:
            await writers.watch_tail()
            await _consumer(app).note_positions(writers.sql_positions())

    async def poll_catalog() -> None:
        await writers.poll_catalog()

    async def heartbeat() -> None:
        await writers.heartbeat(name)

    async def follow_stops() -> None:
        if not app.rebalancing:
            await writers.follow_stops()

    every(WATCH_SECONDS, watch_tail)
    every(STOPS_SECONDS, follow_stops)
    every(CATALOG_SECONDS, poll_catalog)
    every(HEARTBEAT_SECONDS, heartbeat)


def _add_pages(app: faust.App, writers: PartitionWriters, metrics: WorkerMetrics) -> None:
    async def health(view: View, request: Request) -> Response:
        state = writers.health() | {"rebalancing": app.rebalancing}
        body = json.dumps(state, ensure_ascii=False).encode()
        well = state["ready"] and not state["stopped"]
        return view.bytes(body, content_type="application/json", status=200 if well else 503)

    async def alive(view: View, request: Request) -> Response:
        return view.bytes(ALIVE, content_type="application/json")

    async def metrics_page(view: View, request: Request) -> Response:
        return view.bytes(metrics.render(), content_type=METRICS_TYPE)

    add_process_metrics(metrics.registry)
    app.page("/healthz")(alive)
    app.page("/readyz")(health)
    app.page("/health")(health)
    app.page("/metrics")(metrics_page)


def run_app(app: faust.App) -> int:
    """Run until SIGTERM or a crash and return the exit code; logging stays as configured by the caller."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = faust.Worker(app, loop=loop, override_logging=False, quiet=True, redirect_stdouts=False)
    worker.spinner = None  # The spinner writes to the terminal even with quiet=True.
    try:
        worker.execute_from_commandline()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
