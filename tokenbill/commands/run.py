"""``tokenbill worker``, ``relay`` and ``scheduler``: one process in the foreground, until SIGTERM. No rules."""

import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import click
from confluent_kafka import KafkaException

from billing.calculator import Calculator
from billing.catalog.model import Catalog
from billing.commit import PartitionState
from billing.engine import PartitionEngine
from billing.store.store import Store
from streams.topics import TopicMismatch, partition_count
from tokenbill.errors import UserError
from tokenbill.histories import LogStore
from tokenbill.stack.info import info

KAFKA_VARIABLE = "TOKENBILL_KAFKA"
DATABASE_VARIABLE = "TOKENBILL_DATABASE_URL"
SESSION_VARIABLE = "TOKENBILL_SESSION_TIMEOUT"
CALCULATOR_VARIABLE = "TOKENBILL_CALCULATOR"
BROKER_WAIT_SECONDS = 60.0

_DATA_DIR = click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of the local stack to join.")
_WEB_PORT = click.option("--web-port", type=int, default=6066, show_default=True, help="Port of /health and /metrics.")
_WEB_HOST = click.option("--web-host", default="127.0.0.1", show_default=True, help="Address of /health and /metrics.")

# Numbers of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_KEPT_BYTES = 512 << 20


class OneLine(logging.Formatter):
    """One line per event, a traceback included."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return super().format(record).replace("\n", "\\n")


@click.command()
@click.option(
    "--name", default=f"{socket.gethostname()}-{os.getpid()}", help="Name in logs and in the list of running workers."
)
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
def worker(name: str, web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run one Faust worker in the foreground.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL name the servers; without them those of --data-dir are used.
    TOKENBILL_SESSION_TIMEOUT is the seconds after which a silent worker loses its partitions (10).

    \b
    Example:
      tokenbill worker --name worker-3 --web-port 6068
    """
    from streams.app import WorkerSettings, build_app, run_app

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    partitions = wait_for_topics(kafka)
    session_seconds = session_timeout()
    make_calculator = calculator_class()
    with LogStore(kafka, database_url, pool_size=10) as store:

        def make_engine(state: PartitionState, catalog_epoch: int, catalog: Catalog) -> PartitionEngine:
            if state.partitions != partitions:
                raise TopicMismatch(
                    f"the topics have {partitions} partitions, the database was prepared for {state.partitions}",
                    "Use the broker and the database of one installation.",
                )
            return PartitionEngine(state, catalog_epoch, catalog, store, make_calculator())

        settings = WorkerSettings(kafka, name, web_port, session_seconds, web_host)
        app = build_app(settings, store, make_engine)
        relax_garbage_collection()
        keep_freed_memory()
        code = run_app(app)
    logging.shutdown()
    sys.exit(code)


@click.command()
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
def relay(web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run the relay in the foreground: it publishes what workers committed, each record once.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL name the servers; without them those of --data-dir are used.

    \b
    Example:
      tokenbill relay --web-port 6067
    """
    from streams.pages import serve_pages
    from streams.relay import Relay, RelaySettings
    from streams.relay_metrics import RelayMetrics

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    partitions = wait_for_topics(kafka)
    metrics = RelayMetrics()
    with Store(database_url, pool_size=partitions + 1) as store:
        process = Relay(RelaySettings(kafka, partitions), store, metrics)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.end())
        pages = serve_pages(web_host, web_port, process.health, metrics.registry)
        relax_garbage_collection()
        keep_freed_memory()
        code = process.run()
        pages.shutdown()
    sys.exit(code)


@click.command()
@_WEB_PORT
@_WEB_HOST
@_DATA_DIR
def scheduler(web_port: int, web_host: str, data_dir: Path | None) -> None:
    """Run the scheduler in the foreground: it lets time pass for accounts that nothing else touches.

    TOKENBILL_KAFKA and TOKENBILL_DATABASE_URL name the servers; without them those of --data-dir are used.

    \b
    Example:
      tokenbill scheduler --web-port 6068
    """
    from prometheus_client import CollectorRegistry

    from streams.pages import serve_pages
    from streams.scheduler import Scheduler

    log_to_stderr()
    kafka, database_url = servers(data_dir)
    wait_for_topics(kafka)
    with Store(database_url, pool_size=1) as store:
        process = Scheduler(kafka, store)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: process.end())
        pages = serve_pages(web_host, web_port, lambda: {"ready": True}, CollectorRegistry())
        process.run()
        pages.shutdown()
    sys.exit(0)


def relax_garbage_collection() -> None:
    """Look for reference cycles less often: a fetch makes ten thousand record objects at once, none of them in a cycle.

    With the defaults of Python the search took a third of a busy worker's processor time (benchmarks: pipeline).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed: a commit's buffers of many megabytes are needed again by the next one.

    With its defaults each buffer was mapped anew, and the kernel cleared every page of it: a tenth of both cores
    (benchmarks: pipeline). Elsewhere than on glibc nothing happens.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        # Only the first arena keeps what is on its top; those of other threads are unmapped when they are empty.
        library.mallopt(_M_ARENA_MAX, 1)


def servers(data_dir: Path | None) -> tuple[str, str]:
    """Addresses of Kafka and of the application's database: from the environment, else from the stack's folder."""
    kafka, database_url = os.environ.get(KAFKA_VARIABLE), os.environ.get(DATABASE_VARIABLE)
    if kafka is None or database_url is None:
        stack = info(data_dir)
        kafka, database_url = kafka or stack.kafka, database_url or stack.database_url
    if kafka is None or database_url is None:
        raise UserError(
            "It is not known where Kafka and PostgreSQL are",
            f"neither {KAFKA_VARIABLE} and {DATABASE_VARIABLE} nor a started stack says so",
            "Run `tokenbill up` first, or set both variables.",
        )
    return kafka, database_url


def wait_for_topics(kafka: str) -> int:
    """The number of partitions; waits a minute for the broker."""
    deadline = time.monotonic() + BROKER_WAIT_SECONDS
    while True:
        try:
            return partition_count(kafka)
        except TopicMismatch as error:
            raise UserError(error.what, "", error.fix) from error
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"Kafka at {kafka} does not answer", str(error.args[0]), "Start it, or correct its address."
                ) from error


def session_timeout() -> float:
    """Seconds of silence after which a worker loses its partitions."""
    text = os.environ.get(SESSION_VARIABLE, "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 6.0 <= seconds <= 300.0:
        raise UserError(f"{SESSION_VARIABLE} is {text!r}", "", "Set it to 6 to 300 seconds (Kafka allows no less).")
    return seconds


def calculator_class() -> type[Calculator]:
    """The compiled calculator; the plain one only where TOKENBILL_CALCULATOR=reference asks for it."""
    choice = os.environ.get(CALCULATOR_VARIABLE, "compiled")
    if choice == "compiled":
        from billing.core import CompiledCalculator

        return CompiledCalculator
    if choice == "reference":
        from billing.reference.calculator import PlainCalculator

        return PlainCalculator
    raise UserError(f"{CALCULATOR_VARIABLE} is {choice!r}", "", "Set it to compiled or reference.")


def log_to_stderr() -> None:
    """Write the log of a foreground process, one line an event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("mode.timers").setLevel(logging.ERROR)  # A timer that is late is no news.
    for library in ("faust", "mode", "aiokafka", "streams", "aiohttp"):  # "streams": services named after our modules
        logging.getLogger(library).setLevel(logging.WARNING)
