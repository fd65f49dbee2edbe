"""Operations on holds that wait are decided together: while one transaction runs, the next gathers what arrives.

So sixteen clients cost two or three transactions, not sixteen, and nobody waits for longer than two of them. One thread
and one connection for a process. Decides nothing itself (:mod:`billing.reservations`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from billing.reservations import Operation
from billing.store.errors import DatabaseDown
from billing.store.holds import HoldBook

AT_ONCE = 64
"""Operations of one transaction, at most: it must not last."""
WAITING = 10_000

T = TypeVar("T")


class HoldQueue:
    """Runs operations in the order they come. For one event loop."""

    def __init__(self, book: HoldBook) -> None:
        self.book = book
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holds")
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

    async def account_of(self, reservation_id: str) -> str | None:
        """The account that a hold is of."""
        return await self._in_thread(lambda: self.book.find_account(reservation_id))

    async def session_of(self, reservation_id: str) -> tuple[str, list[str]] | None:
        """Account and holds of a charging session."""
        return await self._in_thread(lambda: self.book.find_session(reservation_id))

    async def setting(self, key: str) -> str:
        """See :meth:`billing.store.holds.HoldBook.setting`."""
        return await self._in_thread(lambda: self.book.setting(key))

    async def clean(self) -> list[str]:
        """See :meth:`billing.store.holds.HoldBook.clean`."""
        return await self._in_thread(self.book.clean)

    async def close(self) -> None:
        """Wait for what runs, and end."""
        if self._running is not None:
            await self._running
        self._thread.shutdown()
        self.book.close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

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
        work = [operation for operation, _ in taken]
        decided = asyncio.get_running_loop().run_in_executor(self._thread, self.book.transact, work)
        await asyncio.wait({decided})
        error = decided.exception()
        if error is not None and len(taken) > 1 and not isinstance(error, DatabaseDown):
            return False
        for place, (_, future) in enumerate(taken):
            if future.done():
                continue
            if error is None:
                future.set_result(decided.result()[place])
            else:
                future.set_exception(error)
        return True
