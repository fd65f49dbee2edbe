"""What the routes of reservations, offline grants and charging share: the queue of operations, usage on its way to
Kafka, refusals as problems. No rules."""

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
from billing.reservations.hold import SOURCE
from billing.store.holds.hold_book import HoldBook
from schemas.fields import show
from schemas.refusals import Refusal
from schemas.routing import partition_of
from schemas.topics import USAGE_TOPIC
from streams.send.emitter import DeliveryFailed
from streams.send.sender import InputSender, Outgoing
from tokenbill.api.holds.hold_queue import HoldQueue
from tokenbill.api.http.auth import Caller, needs
from tokenbill.api.http.problems import Problem

log = logging.getLogger("tokenbill.holds")

CLEAN_SECONDS = 20.0
_HEADERS = (("content-type", b"application/cloudevents+json"),)
_may_reserve = needs("reserve")


@dataclass(frozen=True, slots=True)
class Holding:
    """The servers as the routes of holds use them."""

    queue: HoldQueue
    sender: InputSender
    partitions: int

    async def send(self, events: Iterable[tuple[str, str]]) -> list[int]:
        """Send usage events, as (account, JSON), in order; their offsets, when Kafka has them all.

        Raises:
            Problem: ``kafka_down``; the same request, repeated, sends them again, and none is billed twice.
        """
        records = [
            Outgoing(USAGE_TOPIC, partition_of(account, self.partitions), account.encode(), event.encode(), _HEADERS)
            for account, event in events
        ]
        offsets: list[int] = []
        for offset in await self.sender.send(records):
            if isinstance(offset, DeliveryFailed):
                raise Problem("kafka_down", f"{offset}; repeat the request: nothing is billed twice.")
            offsets.append(offset)
        return offsets

    def sent(self, event_id: str, account: str, offset: int) -> dict[str, str | int]:
        """Where Kafka has a usage event of ours."""
        partition = partition_of(account, self.partitions)
        return {"source": SOURCE, "id": event_id, "partition": partition, "offset": offset}


@contextlib.asynccontextmanager
async def holding(database_url: str, sender: InputSender, partitions: int) -> AsyncIterator[Holding]:
    """The queue of operations while the application serves, and the sweep that drops old holds."""
    made = Holding(HoldQueue(HoldBook(database_url)), sender, partitions)
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
            again = await holding.queue.book.clean()
            await holding.send((json.loads(event)["subject"], event) for event in again)
        except (DatabaseDown, NotPrepared, Problem) as error:
            log.warning("old holds are not dropped now: %s", error)


def holding_of(request: Request) -> Holding:
    """The servers of this application."""
    found: Holding = request.app.state.holding
    return found


def reserving_caller(request: Request) -> Caller:
    """The caller, who may hold quota. Called, not depended on: a dependency costs a thread for each request."""
    return _may_reserve(request)


_write_sorted = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=show).encode


def digest_of_body(body: object) -> str:
    """What tells a repeated request from another one under the same key."""
    text = _write_sorted(body)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def new_id(prefix: str, caller: Caller, key: str | None) -> str:
    """An id: of an idempotency key always the same, otherwise one that nobody else makes. No secret: who may ask about
    it is checked. It begins with the time, so that the database writes rows of one moment side by side."""
    if key is None:
        return f"{prefix}-{time.time_ns() // 1000 << 72 | random.getrandbits(72):032x}"
    return f"{prefix}-{hashlib.sha256(f'{prefix} {caller.key_id} {key}'.encode()).hexdigest()[:32]}"


def problem_of(refused: Refusal, **more: Any) -> Problem:
    """A refusal of the rules as a problem."""
    return Problem(refused.code, f"{refused.detail[:1].upper()}{refused.detail[1:]}.", None, **more)
