"""Stopped partitions, for the readiness page of the HTTP API. Never writes."""

from billing.store.api.pool import ApiDatabase


async def stopped_numbers(database: ApiDatabase) -> list[int]:
    """Return the numbers of the stopped partitions, in order. It also fails where the database is not prepared."""
    async with database.connection() as connection:
        found = await connection.execute("SELECT partition FROM partition_stop ORDER BY partition")
        return [number for (number,) in await found.fetchall()]
