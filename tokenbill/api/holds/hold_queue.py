"""Operations on holds that wait are decided together: while one transaction runs, the next gathers what arrives.

So sixteen clients cost two or three transactions, not sixteen, and nobody waits for longer than two of them. Decides
nothing itself (:mod:`billing.reservations.operations`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from billing.errors import DatabaseDown
from billing.reservations.operations import Operation
from billing.store.holds.hold_book import HoldBook

AT_ONCE = 64
"""Operations of one transaction, at most: it must not last."""
WAITING = 10_000


class HoldQueue:
    """Runs operations in the order they come. For one event loop."""

    def __init__(self, book: HoldBook) -> None:
        self.book = book
        self._waiting: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    async def run(self, operation: Operation) -> Any:
        """Decide one operation; returns when what it changed is committed.

        Raises:
            DatabaseDown: the database is away, or far too much is waiting for it.
        """
        if len(self._waiting) >= WAITING:
            raise DatabaseDown("too many reservations are waiting for the database")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def close(self) -> None:
        """Wait for what runs, and end."""
        if self._running is not None:
            await self._running
        await self.book.close()

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                if not await self._decide(taken):
                    # Whatever one of them did must not fail the others: each is decided by itself.
                    for one in taken:
                        await self._decide([one])
        finally:
            self._running = None

    async def _decide(self, taken: Sequence[tuple[Operation, asyncio.Future[Any]]]) -> bool:
        """Decide and answer; False where several failed for another reason than the database, and have no answer."""
        answers: list[Any] = []
        failure: Exception | None = None
        try:
            answers = await self.book.transact([operation for operation, _ in taken])
        except Exception as error:  # noqa: BLE001 (whoever asked gets it)
            if len(taken) > 1 and not isinstance(error, DatabaseDown):
                return False
            failure = error
        for place, (_, future) in enumerate(taken):
            if future.done():
                continue
            if failure is None:
                future.set_result(answers[place])
            else:
                future.set_exception(failure)
        return True
