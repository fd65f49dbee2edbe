"""Waiting for the outcome of commands that were ordered over HTTP.

The outcome is read from SQL. Records of ``account.events`` only signal when to read it, and bring the reason of a
refusal. So no outcome is lost when a process dies, and any number of processes may run.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from billing.errors import StoreError
from billing.store.api.order_rows import SOURCE_PREFIX, Ordered, keep_outcomes, outcome_positions, read_order
from billing.store.api.pool import ApiDatabase
from streams.read.outcome_reader import Outcome, OutcomeReader

log = logging.getLogger("tokenbill.api")

FIRST_LOOK_SECONDS = 0.02
MAX_PAUSE_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class Outcomes:
    """Waiters for outcomes, and the reader that wakes them. One instance per process."""

    def __init__(self, kafka: str, database: ApiDatabase) -> None:
        self._kafka, self._database = kafka, database
        self._heard: dict[tuple[str, str], list[asyncio.Event]] = defaultdict(list)
        self._reader: OutcomeReader | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to read ``account.events`` in the background. While the database is away, the start is retried."""
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)

    async def wait(self, caller: str, key: str, seconds: float) -> Ordered | None:
        """Return the order once it is decided, or its state after ``seconds``; None if there is no such order."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        heard = asyncio.Event()
        self._heard[caller, key].append(heard)
        pause = FIRST_LOOK_SECONDS
        try:
            while True:
                found = await read_order(self._database, caller, key)
                left = deadline - loop.time()
                if found is None or found.outcome is not None or left <= 0:
                    return found
                heard.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(heard.wait(), min(pause, left))
                pause = min(2 * pause, MAX_PAUSE_SECONDS)
        finally:
            self._heard[caller, key].remove(heard)
            if not self._heard[caller, key]:
                del self._heard[caller, key]

    async def _listen(self) -> None:
        while True:
            try:
                positions = await outcome_positions(self._database)
                break
            except StoreError as error:
                log.warning("outcomes are not read yet: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
        loop = asyncio.get_running_loop()

        def deliver(moved: Mapping[int, int], outcomes: Sequence[Outcome]) -> None:
            # The reader's thread waits until the outcomes are stored, so it never runs ahead of SQL.
            kept = asyncio.run_coroutine_threadsafe(self._keep(moved, outcomes), loop)
            with contextlib.suppress(asyncio.CancelledError):
                kept.result()

        self._reader = OutcomeReader(self._kafka, positions, SOURCE_PREFIX, deliver)
        self._reader.start()

    async def _keep(self, moved: Mapping[int, int], outcomes: Sequence[Outcome]) -> None:
        # If a batch brings two outcomes of one order, the later one counts.
        refused = {
            (one.source.removeprefix(SOURCE_PREFIX), one.id): (one.reason, one.detail or "")
            for one in outcomes
            if one.reason is not None
        }
        rows = [(caller, key, reason, detail) for (caller, key), (reason, detail) in refused.items()]
        while True:
            try:
                await keep_outcomes(self._database, moved, rows)
                break
            except StoreError as error:
                log.warning("outcomes cannot be kept at this moment: %s", error)
                await asyncio.sleep(_RETRY_SECONDS)
        for one in outcomes:
            for waiting in self._heard.get((one.source.removeprefix(SOURCE_PREFIX), one.id), ()):
                waiting.set()
