"""Suspense queries of the HTTP API. Never writes."""

from billing.store.api.pool import ApiDatabase
from billing.store.suspense_records import (
    AFTER,
    AT_PLACE,
    IS_OPEN,
    KEPT,
    LISTED,
    WHERE,
    Wanted,
    after_parameters,
    read_kept,
    read_listed,
)
from billing.suspense import Listed, RecordPlace, SuspendedRecord


async def list_suspense(database: ApiDatabase, wanted: Wanted, after: tuple[int, int, int], limit: int) -> list[Listed]:
    """Return at most ``limit`` rows after the key ``after``, by partition and in the order of rejection."""
    statement = LISTED + WHERE + (IS_OPEN if wanted.only_open else "") + AFTER
    async with database.connection() as connection:
        found = await connection.execute(statement, wanted.parameters() | after_parameters(after, limit))
        return [read_listed(row) for row in await found.fetchall()]


async def read_suspense(database: ApiDatabase, place: RecordPlace) -> tuple[Listed, SuspendedRecord] | None:
    """Return one record with its state and its bytes; None if no record was rejected at this place."""
    async with database.snapshot() as connection:
        found = await (await connection.execute(LISTED + AT_PLACE, place)).fetchone()
        kept = await (await connection.execute(KEPT + AT_PLACE, place)).fetchone()
    return None if found is None or kept is None else (read_listed(found), read_kept(kept).held)
