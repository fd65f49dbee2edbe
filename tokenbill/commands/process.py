"""Setup shared by the long-running processes: server addresses, logging, memory, waiting for topics."""

import ctypes
import gc
import logging
import os
import resource
import sys
import time
from pathlib import Path

from confluent_kafka import KafkaException

from billing.calculator.interface import Calculator
from billing.log_time import SEQUENCE_JUMP, TimeLimits
from schemas.meters import MAX_COUNT
from streams.stream_errors import TopicMismatch
from streams.topic_setup import partition_count
from tokenbill.hidden_secrets import without_secrets
from tokenbill.stack.config import DATABASE_VARIABLE, KAFKA_VARIABLE, external_database, external_kafka
from tokenbill.stack.info import info
from tokenbill.usage_settings import notes_unknown_usage
from tokenbill.user_errors import UserError

SESSION_VARIABLE = "TOKENBILL_SESSION_TIMEOUT"


JUMP_VARIABLE = "TOKENBILL_SEQUENCE_JUMP"


CALCULATOR_VARIABLE = "TOKENBILL_CALCULATOR"


BROKER_WAIT_SECONDS = 60.0


# Parameter numbers of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


_KEPT_BYTES = 512 << 20


class OneLine(logging.Formatter):
    """Log formatter that writes each record as one line, including its traceback."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line, with newlines escaped and secrets hidden."""
        return without_secrets(super().format(record)).replace("\n", "\\n")


def tune_garbage_collection() -> None:
    """Run the garbage collector less often: a fetch creates ten thousand record objects, none of them in a cycle.

    With Python's defaults the collector took a third of a busy worker's processor time (``tokenbill bench pipeline``).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, because the next commit needs buffers of many megabytes again.

    With glibc's defaults each buffer was mapped anew and the kernel cleared every page of it, which took a tenth of
    both cores (``tokenbill bench pipeline``). With another C library the function does nothing.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        # Only the first arena keeps free memory at its top; the arenas of other threads are unmapped when empty.
        library.mallopt(_M_ARENA_MAX, 1)


def servers(data_dir: Path | None) -> tuple[str, str]:
    """Return the Kafka address and the application's database URL: from the environment, else from the stack's folder.

    Raises:
        UserError: an address is in neither of them, or that of the database is not one.
    """
    kafka, database_url = external_kafka(), external_database()
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
    """Return the number of partitions; wait up to a minute for the broker.

    Raises:
        UserError: the broker does not answer, or the topics are missing or inconsistent.
    """
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


def may_open_files(number: int) -> None:
    """Raise the limit of open files of this process to ``number`` where it is lower.

    Raises:
        UserError: the system does not allow that many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= number:
        return
    if hard != resource.RLIM_INFINITY and hard < number:
        raise UserError(
            f"The process may open {hard} files only",
            f"for its connections it needs {number}",
            "Raise the limit (`ulimit -n`, LimitNOFILE of systemd), or lower --connections where there is one.",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def session_timeout() -> float:
    """Return the seconds without a heartbeat after which a worker loses its partitions.

    Raises:
        UserError: TOKENBILL_SESSION_TIMEOUT is not a number from 6 to 300.
    """
    text = os.environ.get(SESSION_VARIABLE, "10")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 6.0 <= seconds <= 300.0:
        raise UserError(f"{SESSION_VARIABLE} is {text!r}", "", "Set it to 6 to 300 seconds (Kafka allows no less).")
    return seconds


def time_limits() -> TimeLimits:
    """Return the limits of a worker's commits, as TOKENBILL_SEQUENCE_JUMP and TOKENBILL_UNKNOWN_USAGE set them.

    Raises:
        UserError: TOKENBILL_SEQUENCE_JUMP is not a number from 1 to 2^63-1, or TOKENBILL_UNKNOWN_USAGE is no choice.
    """
    text = os.environ.get(JUMP_VARIABLE, str(SEQUENCE_JUMP))
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 1 <= int(text) <= MAX_COUNT):
        raise UserError(f"{JUMP_VARIABLE} is {text!r}", "", f"Set it to a whole number from 1 to {MAX_COUNT}.")
    return TimeLimits(sequence_jump=int(text), note_unknown=notes_unknown_usage())


def calculator_class() -> type[Calculator]:
    """Return the compiled calculator, or the plain one if TOKENBILL_CALCULATOR is ``reference``.

    Raises:
        UserError: TOKENBILL_CALCULATOR has another value.
    """
    choice = os.environ.get(CALCULATOR_VARIABLE, "compiled")
    if choice == "compiled":
        from billing.calculator.compiled import CompiledCalculator

        return CompiledCalculator
    if choice == "reference":
        from billing.calculator.plain import PlainCalculator

        return PlainCalculator
    raise UserError(f"{CALCULATOR_VARIABLE} is {choice!r}", "", "Set it to compiled or reference.")


def log_to_stderr() -> None:
    """Configure logging of a foreground process: to standard error, one line per record."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("mode.timers").setLevel(logging.ERROR)  # Suppresses warnings about late timers.
    # "streams" is included because Faust names its services after our modules.
    for library in ("faust", "mode", "aiokafka", "streams", "aiohttp"):
        logging.getLogger(library).setLevel(logging.WARNING)
