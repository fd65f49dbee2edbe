"""Parts that the routes of reservations, offline grants and charging share. Contains no rules.

These are the queue of operations, the sending of usage to Kafka, ids, and refusals as problems.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from billing.errors import DatabaseDown, NotPrepared
from billing.reservations.hold import RESERVATION_SOURCE
from billing.store.api.record_key_reads import ApiRecordKeys
from billing.store.holds.hold_book import HoldBook
from schemas.fields import show
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC
from streams.send.sender import InputSender, own_record
from streams.stream_errors import DeliveryFailed
from tokenbill.api.holds.hold_queue import HoldQueue
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.problems import Problem

log = logging.getLogger("tokenbill.holds")

CLEAN_SECONDS = 20.0
_may_reserve = needs("reserve")


@dataclass(frozen=True, slots=True)
class Holding:
    """The queue and the servers that the routes of holds use."""

    queue: HoldQueue
    sender: InputSender
    partitions: int
    record_keys: ApiRecordKeys

    async def send(self, events: Iterable[tuple[str, str]]) -> list[int]:
        """Send usage events, given as (account, JSON), in order. Return their offsets once Kafka has all of them.

        Raises:
            DatabaseDown: the record keys cannot be read.
            Problem: ``kafka_down``. The same request, repeated, sends the events again; none is billed twice.
        """
        keys = await self.record_keys.now()
        records = [
            own_record(keys, USAGE_TOPIC, partition_of(account, self.partitions), account, event.encode())
            for account, event in events
        ]
        offsets: list[int] = []
        for offset in await self.sender.send(records):
            if isinstance(offset, DeliveryFailed):
                raise Problem("kafka_down", f"{offset}; repeat the request: nothing is billed twice.")
            offsets.append(offset)
        return offsets

    def sent(self, event_id: str, account: str, offset: int | None) -> dict[str, str | int | None]:
        """Return the identity of one of our usage events and its place in Kafka."""
        partition = partition_of(account, self.partitions)
        return {"source": RESERVATION_SOURCE, "id": event_id, "partition": partition, "offset": offset}


@contextlib.asynccontextmanager
async def holding(
    database_url: str, sender: InputSender, partitions: int, record_keys: ApiRecordKeys
) -> AsyncIterator[Holding]:
    """Open the queue of operations while the application serves.

    A background task drops holds that ended a day ago, and sends settlements again whose usage was not committed.
    """
    made = Holding(HoldQueue(HoldBook(database_url)), sender, partitions, record_keys)
    sweep = asyncio.create_task(_sweep(made))
    try:
        yield made
    finally:
        sweep.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sweep
        await made.queue.close()


async def _sweep(holding: Holding) -> None:
    while True:
        await asyncio.sleep(CLEAN_SECONDS)
        try:
            again = [(json.loads(event), event) for event in await holding.queue.book.clean()]
            await holding.send((read["subject"], event) for read, event in again)
            await holding.queue.book.sent_again([read["id"] for read, _ in again])
        except (DatabaseDown, NotPrepared, Problem) as error:
            log.warning("old holds are not dropped now: %s", error)


def holding_of(request: Request) -> Holding:
    """Return the queue and servers of the application that serves this request."""
    found: Holding = request.app.state.holding
    return found


def reserving_caller(request: Request) -> Caller:
    """Return the caller, whose role must allow it to hold quota.

    Called by the handler, because a FastAPI dependency costs a thread for each request.
    """
    return _may_reserve(request)


_write_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=show).encode


def digest_of_body(body: object) -> str:
    """Return the digest by which a repeated request is distinguished from another one under the same key."""
    text = _write_sorted(body)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def new_id(prefix: str, caller: Caller, key: str | None) -> str:
    """Return an id: always the same for the same idempotency key, otherwise unique.

    The id is not a secret, because access to the hold is checked. A unique id begins with the time, so that the
    database stores rows of one moment side by side.
    """
    if key is None:
        return f"{prefix}-{time.time_ns() // 1000 << 72 | random.getrandbits(72):032x}"
    return f"{prefix}-{hashlib.sha256(f'{prefix} {caller.key_id} {key}'.encode()).hexdigest()[:32]}"


def problem_of(refused: Refusal, **more: Any) -> Problem:
    """Return a refusal of the rules as a problem."""
    return Problem(refused.code, f"{refused.detail[:1].upper()}{refused.detail[1:]}.", None, **more)
