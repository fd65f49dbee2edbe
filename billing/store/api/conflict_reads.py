"""Conflicts for the HTTP API: queries, and the transaction of a resolution."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from billing.conflicts import ConflictContent, ListedConflict
from billing.store.api.pool import ApiDatabase, AsyncConnection
from billing.store.conflict_records import (
    AFTER_CONFLICT,
    CONFLICT_AT_PLACE,
    CONFLICT_CONTENT,
    CONFLICT_LOCK,
    LISTED_CONFLICT,
    STORE_RESOLUTION,
    WantedConflicts,
    read_conflict_content,
    read_listed_conflict,
)
from billing.store.suspense_records import after_parameters
from billing.suspense import RecordPlace


async def list_conflicts(
    database: ApiDatabase, wanted: WantedConflicts, after: tuple[int, int, int], limit: int
) -> list[ListedConflict]:
    """Return at most ``limit`` rows after the key ``after``, by partition and in the order of decision."""
    async with database.connection() as connection:
        found = await connection.execute(
            wanted.statement() + AFTER_CONFLICT, wanted.parameters() | after_parameters(after, limit)
        )
        return [read_listed_conflict(row) for row in await found.fetchall()]


async def read_conflict(database: ApiDatabase, place: RecordPlace) -> tuple[ListedConflict, ConflictContent] | None:
    """Return one conflict with its state and its bytes; None if there is none at this place."""
    async with database.snapshot() as connection:
        return await _shown(connection, place)


class ApiResolution:
    """Exclusive right to resolve a conflict: one request holds it at a time, over all processes."""

    def __init__(self, connection: AsyncConnection, found: tuple[ListedConflict, ConflictContent] | None) -> None:
        self._connection = connection
        self.found = found

    async def note(self, one: ListedConflict, outcome: str, reason: str, resolved_by: str) -> None:
        """Store what was decided, why, and by whom."""
        await self._connection.execute(STORE_RESOLUTION, (*one.key, outcome, reason, resolved_by))


@asynccontextmanager
async def resolving(database: ApiDatabase, place: RecordPlace) -> AsyncIterator[ApiResolution]:
    """Lock resolutions and provide the conflict at a place. The lock ends with the transaction."""
    async with database.transaction() as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (CONFLICT_LOCK,))
        yield ApiResolution(connection, await _shown(connection, place))


async def _shown(connection: AsyncConnection, place: RecordPlace) -> tuple[ListedConflict, ConflictContent] | None:
    found = await (await connection.execute(LISTED_CONFLICT + CONFLICT_AT_PLACE, place)).fetchone()
    content = await (await connection.execute(CONFLICT_CONTENT + CONFLICT_AT_PLACE, place)).fetchone()
    if found is None or content is None:
        return None
    return read_listed_conflict(found), read_conflict_content(content)
