"""A queue that decides waiting operations on holds together: while one transaction runs, the next one collects.

Sixteen clients therefore cost two or three transactions and not sixteen, and an operation waits for at most two of
them. The rules are in :mod:`billing.reservations.operations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from billing.errors import DatabaseDown
from billing.reservations.operations import Operation
from billing.store.holds.hold_book import HoldBook

AT_ONCE = 64
"""Maximum number of operations in one transaction, to keep it short."""
WAITING = 10_000


class HoldQueue:
    """Runs operations in the order in which they arrive. For one event loop."""

    def __init__(self, book: HoldBook) -> None:
        self.book = book
        self._waiting: list[tuple[Operation, asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    async def run(self, operation: Operation) -> Any:
        """Decide one operation. Return its result once its changes are committed.

        Raises:
            DatabaseDown: the database is away, or :data:`WAITING` operations already wait for it.
        """
        if len(self._waiting) >= WAITING:
            raise DatabaseDown("too many reservations are waiting for the database")
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((operation, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def close(self) -> None:
        """Wait for running operations, then close the database connections."""
        if self._running is not None:
            await self._running
        await self.book.close()

    async def _run(self) -> None:
        try:
            while self._waiting:
                taken, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
                if not await self._decide(taken):
                    # An operation that failed must not fail the others: each is decided by itself.
                    for one in taken:
                        await self._decide([one])
        finally:
            self._running = None

    async def _decide(self, taken: Sequence[tuple[Operation, asyncio.Future[Any]]]) -> bool:
        """Decide operations and answer them.

        Return False, with no operation answered, if several failed together for another reason than the database.
        """
        answers: list[Any] = []
        failure: Exception | None = None
        try:
            answers = await self.book.transact([operation for operation, _ in taken])
        except Exception as error:  # noqa: BLE001 (the caller gets it)
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
