"""Transactions on holds (docs/reference/principles.md, "Holds"): many operations, decided under their accounts' locks.

Safety depends on the order of the steps: lock the heads of the accounts, read balances and holds in ONE statement (so
that a commit that burns and closes a hold is visible entirely or not at all), decide, write, commit. The isolation
level is READ COMMITTED, so the read sees the writes of the former lock holder. Locks are taken in the order of their
keys, heads first, then holds; a commit locks only holds, in the same order. The clock is that of the database. The
rules are in :mod:`billing.reservations.operations`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from billing.errors import BrokenInvariant, DatabaseDown, NotPrepared
from billing.reservations.hold import Hold
from billing.reservations.operations import HoldContext, Operation
from billing.reservations.tariff import Tariff
from billing.store.charging_notice_rows import ABORT_NOTICE
from billing.store.database import Database
from billing.store.holds import hold_rows as rows
from billing.store.holds.wire import WireConnection, WireStatement, text_array
from billing.store.published_catalog import read_catalog

KEEP_US = 24 * 3_600_000_000
"""Time that a hold is kept after it expires, for repeated requests and for queries."""
HANGING_MS = 3_000
"""Time after which the server ends an idle transaction, so that a stopped process loses its locks."""
_CLEAN_AT_ONCE = 5_000
_ATTEMPTS = 4
OPTIONS = (
    f"-c idle_in_transaction_session_timeout={HANGING_MS} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
)
"""Settings of the connection that decides. Every statement finds rows by key, so one generic plan serves all calls:
planning each call would cost more than running it. Sequential scans are off, because a plan that scans the table, made
while it had few rows, would be kept while the table grows."""
_BEGIN: WireStatement = (b"begin", ())
_COMMIT: WireStatement = (b"commit", ())


class _CatalogMoved(Exception):
    """The catalogue in memory has another epoch than the one in the database."""


class HoldBook:
    """Operations on holds, for one event loop. Each call of :meth:`transact` is one transaction."""

    LOCK_HEADS = rows.LOCK_HEADS

    def __init__(self, database_url: str) -> None:
        statements = {
            b"begin": "BEGIN ISOLATION LEVEL READ COMMITTED",
            b"commit": "COMMIT",
            b"lock_heads": self.LOCK_HEADS,
            b"lock_holds": rows.LOCK_HOLDS,
            b"read": rows.READ,
            b"read_open": rows.READ_OPEN,
            b"insert": rows.INSERT,
            b"update": rows.UPDATE,
        }
        looks = {
            b"account": rows.FIND_ACCOUNT,
            b"session": rows.FIND_SESSION,
            b"setting": rows.SETTING,
            b"drop_old": rows.DROP_OLD,
            b"send_again": rows.SEND_AGAIN,
            b"sent_again": rows.SENT_AGAIN,
            b"abort_notice": ABORT_NOTICE,
        }
        self._wire = WireConnection(database_url, "tokenbill holds", statements, OPTIONS)
        self._looking = WireConnection(database_url, "tokenbill looks for holds", looks)
        self._database = Database(database_url, 1, "tokenbill prices of holds")
        self._prices: tuple[int, Tariff] | None = None

    async def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Decide operations in order, each on the state that the preceding ones left, and write the changed holds.

        Returns the answer of each operation.

        Raises:
            DatabaseDown: the server cannot be reached, or it is unknown if the transaction committed. Retry with the
                same idempotency keys.
        """
        async with self._wire.turn:
            for attempt in range(_ATTEMPTS):
                try:
                    return await self._transact(operations, again=attempt > 0)
                except _CatalogMoved:
                    await self._read_prices()
                except (DatabaseDown, BrokenInvariant):
                    # DatabaseDown: a restart of the server breaks idle connections. Nothing was written, unless a
                    # commit was in progress; then the second attempt finds the hold of every operation.
                    # BrokenInvariant: another process used the same key for another account at the same time. Both
                    # saw no hold of that id, and only one could insert it; the second attempt finds that hold.
                    if attempt:
                        raise
        raise DatabaseDown("the catalogue changed four times while a reservation was decided; ask again")

    async def _transact(self, operations: Sequence[Operation], again: bool) -> list[Any]:
        if self._prices is None:
            await self._read_prices()
        accounts = text_array(sorted({operation.account for operation in operations}))
        wanted = sorted({name for one in operations if again or not one.fresh for name in one.wanted})
        sent = [_BEGIN, (b"lock_heads", [accounts])]
        if wanted:
            sent.append((b"lock_holds", [text_array(wanted)]))
        *_, locked, read = await self._wire.ask(*sent, (b"read", [accounts]))
        try:
            named = rows.locked_holds(locked if wanted else ())
            seen = rows.seen_accounts(read)
            scenes = self._scenes(seen, named, operations)
            if any(context.needs_allotting() for context in scenes.values()):
                # Every open hold is needed, together with the balance of the same snapshot: read all again.
                [read] = await self._wire.ask((b"read_open", [accounts]))
                seen = rows.seen_accounts(read)
                scenes = self._scenes(seen, named, operations)
                for name, context in scenes.items():
                    if context.needs_allotting():
                        context.allot(seen[name].open_holds())
            answers = [operation.decide(scenes[operation.account]) for operation in operations]
            changed = [hold for context in scenes.values() for hold in context.changed.values()]
            await self._wire.ask(*_written(changed, named), _COMMIT)
        except BaseException:  # Raised again; the locks must be released first.
            self._wire.drop()
            raise
        return answers

    async def find_account(self, reservation_id: str) -> str | None:
        """Return the account of a reservation or an offline grant; None if there is none with this id."""
        found = await self._look(b"account", reservation_id)
        return found[0][0] if found else None

    async def find_session(self, session: str) -> tuple[str, list[str]] | None:
        """Return the account of a charging session and the ids of its holds; None if there is no such session.

        The ids are that of the session itself, whatever its state, and those of its other open holds.
        """
        found = await self._look(b"session", session)
        accounts = [account for name, account in found if name == session]
        return (accounts[0], [name for name, _ in found]) if accounts else None

    async def file_abort(self, session: str) -> None:
        """File the notification that an open session is aborted, for its gateway; none if it named no address."""
        await self._look(b"abort_notice", session)

    async def setting(self, key: str) -> str:
        """Return a value that was fixed when the database was prepared.

        Raises:
            NotPrepared: the value is not stored.
        """
        found = await self._look(b"setting", key)
        if not found:
            raise NotPrepared(f"the installation has no {key}")
        return found[0][0]

    async def clean(self) -> list[str]:
        """Delete holds that expired a day ago, and return usage events to send again.

        These are events of settlements older than a minute that no commit has decided, because the process that settled
        them may have died before it sent them. Call :meth:`sent_again` when Kafka has them; else they are returned
        again after five minutes.
        """
        await self._look(b"drop_old", KEEP_US, _CLEAN_AT_ONCE)
        return [event for (event,) in await self._look(b"send_again", _CLEAN_AT_ONCE)]

    async def sent_again(self, settlements: Sequence[str]) -> None:
        """Note that the events of these settlements were sent again. It happens once."""
        if settlements:
            async with self._looking.turn:
                await self._looking.ask((b"sent_again", [text_array(settlements)]))

    async def close(self) -> None:
        """Wait for running transactions, and close the connections."""
        for wire in (self._wire, self._looking):
            async with wire.turn:
                wire.drop()
        self._database.close()

    async def _look(self, name: bytes, *values: str | int) -> list[tuple[str, ...]]:
        """Run one statement that needs no lock of an account; retry it once if the connection was broken."""
        if any("\0" in value for value in values if isinstance(value, str)):
            return []  # no text in the database contains NUL
        sent = rows.values_of(name, *values)
        async with self._looking.turn:
            try:
                [found] = await self._looking.ask(sent)
            except DatabaseDown:
                [found] = await self._looking.ask(sent)
        return [tuple((value or b"").decode() for value in row) for row in found]

    async def _read_prices(self) -> None:
        epoch, catalog = await asyncio.to_thread(read_catalog, self._database)
        self._prices = epoch, Tariff(catalog)

    def _scenes(
        self, seen: Mapping[str, rows.SeenAccount], named: Mapping[str, Hold], operations: Sequence[Operation]
    ) -> dict[str, HoldContext]:
        """Return the context of each account, with the holds that its operations name, even those of other accounts."""
        scenes: dict[str, HoldContext] = {}
        for name, one in seen.items():
            if self._prices is None or one.epoch != self._prices[0]:
                raise _CatalogMoved
            scenes[name] = HoldContext(one.now_us, one.account, one.held, {}, self._prices[1])
        for operation in operations:
            shown = ((name, named[name]) for name in operation.wanted if name in named)
            scenes[operation.account].holds.update(shown)
        return scenes


def _written(changed: Iterable[Hold], named: Mapping[str, Hold]) -> list[WireStatement]:
    """Return the statements that write holds: updates of existing ones, which are locked already, then one insert.

    New holds are inserted in the order of their ids, because another transaction may insert the same ids.
    """
    ordered = sorted(changed, key=lambda hold: hold.reservation_id)
    sent: list[WireStatement] = [
        (b"update", rows.changed_row(hold)) for hold in ordered if hold.reservation_id in named
    ]
    made = [hold for hold in ordered if hold.reservation_id not in named]
    return [*sent, (b"insert", rows.new_rows(made))] if made else sent
