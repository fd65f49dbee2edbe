"""Holds in SQL (DESIGN 16): operations on accounts, decided under each account's lock, many in one transaction.

The order is the whole safety of it: lock the heads of the accounts, then read balances and holds in ONE statement (a
commit that burns and closes a hold is seen entirely or not at all), decide, write, commit. READ COMMITTED, so that the
read sees what the owner of the lock before wrote. Locks are taken in the order of their keys: heads, then holds; a
commit takes holds only, in the same order. The clock is the database's. Rules are in
:mod:`billing.reservations.operations`.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from billing.errors import BrokenInvariant, DatabaseDown, NotPrepared
from billing.reservations.hold import Hold
from billing.reservations.operations import HoldContext, Operation
from billing.reservations.tariff import Tariff
from billing.store.database import Database
from billing.store.holds import hold_rows as rows
from billing.store.holds.wire import Sent, Wire, text_array
from billing.store.published_catalog import read_catalog

KEEP_US = 24 * 3_600_000_000
"""How long a hold that ended is kept, for repeated requests and for readers."""
HANGING_MS = 3_000
"""After so long a process that stopped in the middle loses its locks."""
_CLEAN_AT_ONCE = 5_000
_ATTEMPTS = 4
OPTIONS = (
    f"-c idle_in_transaction_session_timeout={HANGING_MS} -c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
)
"""Every statement looks rows up by their keys: to plan it anew for each call would cost more than to run it. And a plan
that was made while the table had few rows, to read all of them, would stay while it grows."""
_BEGIN: Sent = (b"begin", ())
_COMMIT: Sent = (b"commit", ())


class _CatalogMoved(Exception):
    """The catalogue in memory is not the one in the database."""


class HoldBook:
    """Every operation on holds, for one event loop; each call of :meth:`transact` is one transaction."""

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
        }
        self._wire = Wire(database_url, "tokenbill holds", statements, OPTIONS)
        self._looking = Wire(database_url, "tokenbill looks for holds", looks)
        self._database = Database(database_url, 1, "tokenbill prices of holds")
        self._prices: tuple[int, Tariff] | None = None

    async def transact(self, operations: Sequence[Operation]) -> list[Any]:
        """Decide operations in order, each on what those before left, and write what they changed; their answers.

        Raises:
            DatabaseDown: the server cannot be reached, or it is not known whether it happened: ask again with the same
                idempotency keys.
        """
        async with self._wire.turn:
            for attempt in range(_ATTEMPTS):
                try:
                    return await self._transact(operations, again=attempt > 0)
                except _CatalogMoved:
                    await self._read_prices()
                except (DatabaseDown, BrokenInvariant):
                    # A server that was restarted has broken idle connections; nothing was written unless a commit was
                    # under way, and then every operation finds its hold. So does one whose key another process used
                    # for another account at this moment: both saw no hold of that id, and one could write it.
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
            if any(scene.needs_allotting() for scene in scenes.values()):
                # Every open hold has to be seen, and with the balance of the same moment: read all again.
                [read] = await self._wire.ask((b"read_open", [accounts]))
                seen = rows.seen_accounts(read)
                scenes = self._scenes(seen, named, operations)
                for name, scene in scenes.items():
                    if scene.needs_allotting():
                        scene.allot(seen[name].open_holds())
            answers = [operation.decide(scenes[operation.account]) for operation in operations]
            changed = [hold for scene in scenes.values() for hold in scene.changed.values()]
            await self._wire.ask(*_written(changed, named), _COMMIT)
        except BaseException:  # Whatever it is goes on up; the locks must not stay.
            self._wire.drop()
            raise
        return answers

    async def find_account(self, reservation_id: str) -> str | None:
        """The account of a reservation or an offline grant; None where there is none of that id."""
        found = await self._look(b"account", reservation_id)
        return found[0][0] if found else None

    async def find_session(self, session: str) -> tuple[str, list[str]] | None:
        """The account of a charging session, and the ids of its open holds; None where there is no such session."""
        found = await self._look(b"session", session)
        accounts = [account for name, account in found if name == session]
        return (accounts[0], [name for name, _ in found]) if accounts else None

    async def setting(self, key: str) -> str:
        """A value that was fixed when the database was prepared.

        Raises:
            NotPrepared: there is none.
        """
        found = await self._look(b"setting", key)
        if not found:
            raise NotPrepared(f"the installation has no {key}")
        return found[0][0]

    async def clean(self) -> list[str]:
        """Drop holds that ended a day ago. Returns usage events whose commit was not seen for a minute: to be sent
        again, each once (whoever asked for the settlement may have died before they were sent)."""
        await self._look(b"drop_old", KEEP_US, _CLEAN_AT_ONCE)
        return [event for (event,) in await self._look(b"send_again", _CLEAN_AT_ONCE)]

    async def close(self) -> None:
        """Wait for what runs, and close the connections."""
        for wire in (self._wire, self._looking):
            async with wire.turn:
                wire.drop()
        self._database.close()

    async def _look(self, name: bytes, *values: str | int) -> list[tuple[str, ...]]:
        """One statement that needs no lock of an account, begun again once where the connection was broken."""
        if any("\0" in value for value in values if isinstance(value, str)):
            return []  # no text in the database holds one
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
        """The scene of each account; each shows the holds that its own operations named, whosever they are."""
        scenes: dict[str, HoldContext] = {}
        for name, one in seen.items():
            if self._prices is None or one.epoch != self._prices[0]:
                raise _CatalogMoved
            scenes[name] = HoldContext(one.now_us, one.account, one.held, {}, self._prices[1])
        for operation in operations:
            shown = ((name, named[name]) for name in operation.wanted if name in named)
            scenes[operation.account].holds.update(shown)
        return scenes


def _written(changed: Iterable[Hold], named: Mapping[str, Hold]) -> list[Sent]:
    """The statements that write holds: those that are there, which are locked already, then new ones in the order of
    their ids (another transaction may be writing one of the same id)."""
    ordered = sorted(changed, key=lambda hold: hold.reservation_id)
    sent: list[Sent] = [(b"update", rows.changed_row(hold)) for hold in ordered if hold.reservation_id in named]
    made = [hold for hold in ordered if hold.reservation_id not in named]
    return [*sent, (b"insert", rows.new_rows(made))] if made else sent
