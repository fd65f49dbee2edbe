"""Rating groups of telecom gateways in SQL, as API administrators define them. The body is stored uninterpreted."""

from typing import Any

from psycopg.types.json import Jsonb

from billing.store.api.pool import ApiDatabase


async def read_rating_group(database: ApiDatabase, number: int) -> dict[str, Any] | None:
    """Return the definition of a rating group; None if it has none."""
    async with database.connection() as connection:
        found = await connection.execute("SELECT body FROM rating_group WHERE rating_group = %s", (number,))
        row = await found.fetchone()
    return None if row is None else dict(row[0])


async def list_rating_groups(database: ApiDatabase) -> list[tuple[int, dict[str, Any]]]:
    """Return every defined rating group, sorted by number."""
    async with database.connection() as connection:
        found = await connection.execute("SELECT rating_group, body FROM rating_group ORDER BY rating_group")
        return [(number, dict(body)) for number, body in await found.fetchall()]


async def put_rating_group(database: ApiDatabase, number: int, body: dict[str, Any]) -> None:
    """Store the definition of a rating group, replacing an earlier one."""
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO rating_group (rating_group, body) VALUES (%s, %s)"
            " ON CONFLICT (rating_group) DO UPDATE SET body = excluded.body",
            (number, Jsonb(body)),
        )
