"""Orders: commands requested over HTTP, each stored under its idempotency key with its outcome.

A row is written before its command is sent, and it is never deleted. ``command_seen`` shows that a command was
accepted, and the position of the partition shows that it was decided. The row only caches the outcome and holds the
reason of a refusal.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import LiteralString

from billing.commits.commit_record import ACCEPTED
from billing.store.api.pool import ApiDatabase, AsyncConnection

SOURCE_PREFIX = "urn:tokenbill:api:"
"""Prefix of the source of every command ordered over HTTP. The id of the key that ordered it follows."""
REJECTED = "rejected"

_INSERT: LiteralString = """
INSERT INTO api_idempotency (caller, key, request_sha256, account, type, record, partition)
VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
# One statement reads one snapshot, so command_seen is final once the position has passed the command.
_READ: LiteralString = """
SELECT r.request_sha256, r.account, r.type, r.record, r.partition, r.record_offset, r.outcome, r.reason, r.detail,
    s.id IS NOT NULL, coalesce(p.next_offset > r.record_offset, false)
FROM api_idempotency AS r
LEFT JOIN command_seen AS s ON s.source = 'urn:tokenbill:api:' || r.caller AND s.id = r.key
LEFT JOIN position AS p ON p.topic = 'account.commands' AND p.partition = r.partition
WHERE r.caller = %s AND r.key = %s
"""
_SETTLE: LiteralString = """
UPDATE api_idempotency SET outcome = %s WHERE caller = %s AND key = %s AND outcome IS DISTINCT FROM %s
"""
_HEARD: LiteralString = """
UPDATE api_idempotency AS r SET reason = h.reason, detail = h.detail
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS h (caller, key, reason, detail)
WHERE r.caller = h.caller AND r.key = h.key
"""
_MOVE: LiteralString = """
INSERT INTO api_position AS a (partition, next_offset) SELECT * FROM unnest(%s::integer[], %s::bigint[])
ON CONFLICT (partition) DO UPDATE SET next_offset = greatest(a.next_offset, excluded.next_offset)
"""


@dataclass(frozen=True, slots=True)
class Order:
    """A command as it was ordered. ``record`` is the CloudEvent to send; a retry sends the same bytes."""

    caller: str
    key: str
    request_sha256: bytes
    account: str
    type: str
    record: bytes
    partition: int

    @property
    def source(self) -> str:
        """Source of the command. The id of the command is the idempotency key."""
        return SOURCE_PREFIX + self.caller


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order and its known state.

    ``outcome`` is None while the command is undecided, or refused and the reason not yet received.
    """

    order: Order
    record_offset: int | None
    outcome: str | None
    reason: str | None
    detail: str | None


async def remember_order(database: ApiDatabase, order: Order) -> tuple[bool, Ordered]:
    """Store an order unless its key is used. Returns True if it is new, and the order that is stored under the key."""
    async with database.connection() as connection:
        given = (order.request_sha256, order.account, order.type, order.record, order.partition)
        done = await connection.execute(_INSERT, (order.caller, order.key, *given))
        new = done.rowcount == 1
    if new:
        return True, Ordered(order, None, None, None, None)
    found = await read_order(database, order.caller, order.key)
    if found is None:
        raise LookupError(f"the order {order.key!r} of {order.caller!r} was kept and is gone")
    return False, found


async def read_order(database: ApiDatabase, caller: str, key: str) -> Ordered | None:
    """Return an order with its outcome as of now; None if there is none."""
    async with database.connection() as connection:
        found = await connection.execute(_READ, (caller, key))
        row = await found.fetchone()
        if row is None:
            return None
        sha256, account, kind, record, partition, offset, outcome, reason, detail, seen, decided = row
        settled = ACCEPTED if seen else REJECTED if decided and reason is not None else outcome
        if settled != outcome:
            await connection.execute(_SETTLE, (settled, caller, key, settled))
    order = Order(caller, key, sha256, account, kind, record, partition)
    return Ordered(order, offset, settled, reason, detail)


class Sending:
    """Exclusive right to send one order: one request holds it at a time, over all processes."""

    def __init__(self, connection: AsyncConnection, caller: str, key: str, record_offset: int | None) -> None:
        self._connection = connection
        self._caller, self._key = caller, key
        self.record_offset = record_offset

    async def sent(self, record_offset: int) -> None:
        """Store the offset that Kafka assigned to the record."""
        await self._connection.execute(
            "UPDATE api_idempotency SET record_offset = %s WHERE caller = %s AND key = %s",
            (record_offset, self._caller, self._key),
        )
        self.record_offset = record_offset


@asynccontextmanager
async def sending(database: ApiDatabase, caller: str, key: str) -> AsyncIterator[Sending]:
    """Lock an order while it is sent.

    Waits for the current holder, at most as long as Kafka takes to answer it. The lock ends with the connection, so a
    process that dies releases it.
    """
    async with database.transaction() as connection:
        found = await connection.execute(
            "SELECT record_offset FROM api_idempotency WHERE caller = %s AND key = %s FOR UPDATE", (caller, key)
        )
        row = await found.fetchone()
        if row is None:
            raise LookupError(f"there is no order {key!r} of {caller!r}")
        yield Sending(connection, caller, key, row[0])


async def outcome_positions(database: ApiDatabase) -> dict[int, int]:
    """Return the offset to read outcomes from, by partition; empty before the first run of the API."""
    async with database.connection() as connection:
        rows = await connection.execute("SELECT partition, next_offset FROM api_position")
        return dict(await rows.fetchall())


async def keep_outcomes(
    database: ApiDatabase, positions: Mapping[int, int], refused: Sequence[tuple[str, str, str, str]]
) -> None:
    """Store the reasons of refused orders, as (caller, key, reason, detail), and the next offset of each partition."""
    async with database.transaction() as connection:
        if refused:
            await connection.execute(_HEARD, [list(column) for column in zip(*refused, strict=True)])
        await connection.execute(_MOVE, (list(positions), list(positions.values())))
