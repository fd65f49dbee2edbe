"""Benchmark of reservations over HTTP on the local stack, from concurrent clients.

Each client waits for its answer before its next request. Without a rate, the next request follows at once. With a rate,
it follows when it is due, and the latency counts from the due time. Each reservation is for another random account. The
clients share one process and one event loop, to take as little of the shared processors as possible.

Accounts with one subscription each are written to PostgreSQL by COPY, as a commit writes them, but without commands,
journal and commit rows. Such a database is good for this measurement only.
"""

import asyncio
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import psutil
import psycopg
import uvloop
from rich.console import Console

from benchmarks import workload
from benchmarks.result import Result, machine
from billing.calculator.core_row_hashes import with_hashes
from billing.commits.columns import ACCOUNT_COLUMNS, BUCKET_COLUMNS, column_names
from billing.commits.copy_text import account_row, bucket_row
from billing.store.api.keys import create_key
from billing.store.database import Database
from billing.store.store import Store
from schemas.routing import partition_of
from tokenbill import stack
from tokenbill.stack import StackInfo

GOAL_MS = 10.0
RESERVE_WARM_PART = 4
"""One part in this many, the first answers, is not counted.

In the first seconds, a newly started PostgreSQL process touches each page of its memory for the first time.
"""
_AT_ONCE = 20_000


@dataclass(slots=True)
class ReserveMeasured:
    """Latencies after the warm-up, number of refusals, and CPU time of the servers."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    wall_seconds: float = 0.0
    api_cpu_seconds: float = 0.0
    database_cpu_seconds: float = 0.0
    stolen_part: float = 0.0
    """Share of CPU time that the host gave to other machines, if the system reports it."""

    def percentile_ms(self, part: float) -> float:
        """Return the latency in milliseconds that this share of the answers did not exceed."""
        ordered = sorted(self.seconds)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def run(requests: int = 60_000, accounts: int = 1_000_000, clients: int = 16, rate: int | None = None) -> list[Result]:
    """Measure on a stack of its own, removed afterwards. ``rate`` is requests per second of all clients together."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="tokenbill-bench-") as folder:
        data_dir = Path(folder)
        try:
            console.print("starting the stack")
            started = stack.start(data_dir, workers=1, partitions=workload.PARTITIONS)
            if started.admin_database_url is None or started.database_url is None or started.api is None:
                raise RuntimeError("the stack started without addresses")
            with closing(Store(started.database_url)) as store:
                store.publish(workload.catalog())
            console.print(f"copying {accounts:,} accounts into PostgreSQL")
            names = workload.account_names(accounts)
            load_accounts(started.admin_database_url, names)
            with closing(Database(started.database_url, 1)) as database:
                _, token = create_key(database, "bench", "ingest", None, None)
            console.print(f"{clients} clients reserve {requests:,} times")
            measured = measure(started, started.api, token, names, requests, clients, rate)
        finally:
            stack.remove(data_dir)
    answered = len(measured.seconds)
    conditions = machine() | {
        "accounts": accounts,
        "clients": clients,
        "asked": "each again at once" if rate is None else f"{rate} a second together",
        "requests": answered,
        "refused": measured.refused,
        "requests_per_second": round(answered / measured.wall_seconds),
        "api_processes": 1,
        "api_cpu_ms_a_request": round(1000 * measured.api_cpu_seconds / answered, 3),
        "database_cpu_ms_a_request": round(1000 * measured.database_cpu_seconds / answered, 3),
        "fsync": True,
        "stolen_percent": round(100 * measured.stolen_part, 1),
        "baseline": f"the goal, {GOAL_MS:g} ms at p99, divided by the value",
    }
    values = {f"reserve.p{round(100 * part)}": measured.percentile_ms(part) for part in (0.5, 0.95, 0.99)}
    return [
        Result(metric, round(value, 2), "ms", round(GOAL_MS / value, 2), conditions) for metric, value in values.items()
    ]


def load_accounts(admin_database_url: str, names: list[str]) -> None:
    """Copy open accounts with one subscription each into the tables, partition by partition."""
    plans = workload.catalog()
    by_partition: list[list[str]] = [[] for _ in range(workload.PARTITIONS)]
    for name in names:
        by_partition[partition_of(name, workload.PARTITIONS)].append(name)
    with psycopg.connect(_libpq(admin_database_url), autocommit=True) as connection:
        connection.execute("SET search_path = tokenbill")
        for partition, mine in enumerate(by_partition):
            connection.execute("SELECT set_config('tokenbill.partition', %s, false)", (str(partition),))
            for start in range(0, len(mine), _AT_ONCE):
                made = list(workload.subscribers(mine[start : start + _AT_ONCE], plans))
                rows = {
                    "account": (ACCOUNT_COLUMNS, b"".join(map(account_row, made))),
                    "bucket": (
                        BUCKET_COLUMNS,
                        b"".join(bucket_row(one.account, b) for one in made for b in one.buckets),
                    ),
                }
                for table, (columns, text) in rows.items():
                    statement = f"COPY {table} ({', '.join(column_names(columns))}, row_hash) FROM STDIN"
                    with connection.cursor() as cursor, cursor.copy(statement) as copy:
                        copy.write(with_hashes(table, partition, text)[0])
        connection.execute("VACUUM (ANALYZE) account, bucket")
        connection.execute("CHECKPOINT")  # the loaded accounts must not be written to disk during the measurement


def _libpq(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def measure(
    started: StackInfo, url: str, token: str, names: list[str], requests: int, clients: int, rate: int | None
) -> ReserveMeasured:
    """Reserve with ``clients`` concurrent clients. The first quarter of the answers is not counted."""
    seconds = 0.0 if rate is None else clients / rate
    bodies = _bodies(names, requests, token, urlsplit(url).netloc)
    measured = ReserveMeasured()
    api = psutil.Process(started.pids["api"])
    database = psutil.Process(started.pids["postgresql"])

    async def everyone() -> None:
        await asyncio.gather(
            *(_client(url, bodies, requests // RESERVE_WARM_PART // clients, None, 0.0) for _ in range(clients))
        )
        api_cpu, database_cpu, stolen, begun = _cpu(api), _cpu(database), _stolen(), time.perf_counter()
        await asyncio.gather(*(_client(url, bodies, None, measured, seconds) for _ in range(clients)))
        measured.wall_seconds = time.perf_counter() - begun
        measured.api_cpu_seconds = _cpu(api) - api_cpu
        measured.database_cpu_seconds = _cpu(database) - database_cpu
        measured.stolen_part = (_stolen() - stolen) / (measured.wall_seconds * (psutil.cpu_count() or 1))

    uvloop.run(everyone())
    return measured


def _cpu(process: psutil.Process) -> float:
    """Return the CPU seconds of a process and of its children that still run."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        spent = one.cpu_times()
        total += spent.user + spent.system
    return total


def _stolen() -> float:
    """Return the CPU seconds that the host gave to other machines since boot; 0 if the system does not report them."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def _bodies(names: list[str], requests: int, token: str, host: str) -> Iterator[bytes]:
    chance = random.Random(1)
    head = f"POST /v1/reservations HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n".encode()
    head += b"content-type: application/json\r\ncontent-length: "
    for _ in range(requests):
        model, tier, energy = chance.choice(workload.COMBINATIONS)
        body = json.dumps(
            {
                "account": chance.choice(names),
                "model": model,
                "hardware_tier": tier,
                "energy_source": energy,
                "usage": {"input": chance.randrange(1, 4000), "output": chance.randrange(1, 4096)},
            }
        ).encode()
        yield head + str(len(body)).encode() + b"\r\n\r\n" + body


class _Client(asyncio.Protocol):
    """One client, with at most one request at a time.

    It sends a request when the previous answer is complete and ``seconds`` have passed since that request was due.
    """

    def __init__(
        self, bodies: Iterator[bytes], limit: int | None, measured: ReserveMeasured | None, seconds: float
    ) -> None:
        self._bodies, self._left, self._measured, self._seconds = bodies, limit, measured, seconds
        self._due = time.perf_counter() + random.random() * seconds
        self._answer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, blank, body = self._answer.partition(b"\r\n\r\n")
        if not blank or len(body) < int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            return
        if self._measured is not None:
            self._measured.seconds.append(time.perf_counter() - self._begun)
        if not head.startswith(b"HTTP/1.1 201"):
            if not head.startswith(b"HTTP/1.1 402"):
                self._end(RuntimeError(body.decode()))
                return
            if self._measured is not None:
                self._measured.refused += 1
        self._answer = b""
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(exc or ConnectionResetError("the API closed the connection"))

    def _wait(self) -> None:
        now = time.perf_counter()
        if not self._seconds:
            self._due = now
        if self._due <= now:
            self._send()
        else:
            asyncio.get_running_loop().call_later(self._due - now, self._send)

    def _send(self) -> None:
        request = None if self._left == 0 else next(self._bodies, None)
        if request is None:
            self._end(None)
            return
        if self._left is not None:
            self._left -= 1
        self._begun = self._due
        self._due += self._seconds
        self._transport.write(request)

    def _end(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None) if error is None else self.done.set_exception(error)
            self._transport.close()


async def _client(
    url: str, bodies: Iterator[bytes], limit: int | None, measured: ReserveMeasured | None, seconds: float
) -> None:
    """Run one client until there are no more requests, or until ``limit`` requests are sent."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    host, port = address.hostname or "127.0.0.1", address.port or 80
    _, client = await loop.create_connection(lambda: _Client(bodies, limit, measured, seconds), host, port)
    await client.done
