"""What every long-running process sets up: servers, logging, memory, waiting for topics."""

import ctypes
import gc
import logging
import os
import sys
import time
from pathlib import Path

from confluent_kafka import KafkaException

from billing.calculator.interface import Calculator
from streams.topic_setup import TopicMismatch, partition_count
from tokenbill.errors import UserError
from tokenbill.stack.info import info

KAFKA_VARIABLE = "TOKENBILL_KAFKA"


DATABASE_VARIABLE = "TOKENBILL_DATABASE_URL"


SESSION_VARIABLE = "TOKENBILL_SESSION_TIMEOUT"


CALCULATOR_VARIABLE = "TOKENBILL_CALCULATOR"


BROKER_WAIT_SECONDS = 60.0


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
        from billing.calculator.compiled import CompiledCalculator

        return CompiledCalculator
    if choice == "reference":
        from billing.calculator.plain import PlainCalculator

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
