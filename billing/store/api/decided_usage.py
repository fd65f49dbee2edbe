"""The outcome of one usage record, for the HTTP API: read from what the commit that decided it stored. Never writes.

Rated and duplicate usage leave no row of their own. A commit stores the identities that it rated, so usage whose
identity is not among them was rated before.
"""

from dataclasses import dataclass
from typing import LiteralString

from billing.commits.identities import HASHED_BYTES
from billing.store.api.pool import ApiDatabase, AsyncConnection
from billing.suspense import RecordPlace
from schemas.hashing import identity_hash
from schemas.times import HOUR_US
from schemas.usage import UsageEvent

DECIDED_RATED, DECIDED_DUPLICATE, DECIDED_CONFLICT, DECIDED_REJECTED = "rated", "duplicate", "conflict", "rejected"
_RECENT_BYTES = 16
_POSITION: LiteralString = "SELECT next_offset FROM position WHERE topic = %s AND partition = %s"
_SUSPENSE: LiteralString = (
    "SELECT reason, detail FROM suspense WHERE topic = %s AND partition = %s AND record_offset = %s"
)
_CONFLICT: LiteralString = "SELECT 1 FROM conflict WHERE topic = %s AND partition = %s AND record_offset = %s"
_COMMIT: LiteralString = """
SELECT commit_no FROM commit AS c, jsonb_array_elements(c.positions) AS m
WHERE c.partition = %s AND m->>0 = %s AND (m->>1)::bigint <= %s AND (m->>2)::bigint > %s
ORDER BY commit_no DESC LIMIT 1
"""
_NUMBERED: LiteralString = "SELECT numbered FROM dedupe_source WHERE partition = %s AND source = %s"
_BY_NUMBER: LiteralString = "SELECT payload FROM dedupe_recent WHERE partition = %s AND commit_no = %s AND source = %s"
_BY_HASH: LiteralString = "SELECT payload FROM dedupe_hour WHERE partition = %s AND commit_no = %s AND hour_us = %s"


@dataclass(frozen=True, slots=True)
class DecidedUsage:
    """Outcome of a record: rated, duplicate, conflict or rejected; a rejection has a reason and a detail."""

    outcome: str
    reason: str | None = None
    detail: str | None = None


async def decided_usage(database: ApiDatabase, place: RecordPlace, event: UsageEvent) -> DecidedUsage | None:
    """Return the outcome of the event of a record on the partition of its account; None if it is not decided yet."""
    async with database.snapshot() as connection:
        position = await (await connection.execute(_POSITION, (place.topic, place.partition))).fetchone()
        if position is None or position[0] <= place.offset:
            return None
        rejected = await (await connection.execute(_SUSPENSE, place)).fetchone()
        if rejected is not None:
            return DecidedUsage(DECIDED_REJECTED, rejected[0], rejected[1])
        if await (await connection.execute(_CONFLICT, place)).fetchone() is not None:
            return DecidedUsage(DECIDED_CONFLICT)
        rated = await _was_rated(connection, place, event)
    return DecidedUsage(DECIDED_RATED if rated else DECIDED_DUPLICATE)


async def _was_rated(connection: AsyncConnection, place: RecordPlace, event: UsageEvent) -> bool:
    """Return True if the commit that decided the record rated the identity of the event."""
    asked = (place.partition, place.topic, place.offset, place.offset)
    commit = await (await connection.execute(_COMMIT, asked)).fetchone()
    source = await (await connection.execute(_NUMBERED, (place.partition, event.source))).fetchone()
    if commit is None or source is None:
        return False
    if source[0]:
        rows = await connection.execute(_BY_NUMBER, (place.partition, commit[0], event.source), binary=True)
        wanted = (event.sequence or 0).to_bytes(8, "little")
        size = _RECENT_BYTES
    else:
        hour_us = event.time_us - event.time_us % HOUR_US
        rows = await connection.execute(_BY_HASH, (place.partition, commit[0], hour_us), binary=True)
        wanted = identity_hash(event.account, event.source, event.id)
        size = HASHED_BYTES
    return any(_holds(payload, wanted, size) for (payload,) in await rows.fetchall())


def _holds(payload: bytes, wanted: bytes, size: int) -> bool:
    """Return True if one of the packed items of ``size`` bytes begins with ``wanted``."""
    at = payload.find(wanted)
    while at >= 0 and at % size:
        at = payload.find(wanted, at + 1)
    return at >= 0
