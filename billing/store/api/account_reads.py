"""Account queries of the HTTP API. The rows of one result are of one snapshot. Never writes."""

import json
from typing import LiteralString

from billing.accounts.account import Account
from billing.commits.stored_accounts import plain_accounts
from billing.store.account_rows import ACCOUNTS, BUCKETS
from billing.store.api.pool import ApiDatabase


async def read_account(database: ApiDatabase, account: str) -> Account | None:
    """Return an account with its buckets, sorted by bucket id, as of the last commit; None if it was never opened."""
    wanted = json.dumps([account])
    async with database.snapshot() as connection, connection.pipeline():
        found = await connection.execute(ACCOUNTS, (wanted,))
        granted = await connection.execute(BUCKETS, (wanted,))
        accounts = plain_accounts(await found.fetchall(), await granted.fetchall())
    return accounts[0] if accounts else None


async def read_account_as_of(database: ApiDatabase, account: str, partition: int) -> tuple[Account, int] | None:
    """Return an account with its buckets, and the number of the commit of its partition that it is as of."""
    wanted = json.dumps([account])
    async with database.snapshot() as connection, connection.pipeline():
        last = await connection.execute("SELECT commit_no FROM partition_state WHERE partition = %s", (partition,))
        found = await connection.execute(ACCOUNTS, (wanted,))
        granted = await connection.execute(BUCKETS, (wanted,))
        accounts = plain_accounts(await found.fetchall(), await granted.fetchall())
        state = await last.fetchone()
    return (accounts[0], state[0]) if accounts and state else None


_RESERVED: LiteralString = (
    "SELECT e.key, sum(e.value::numeric) FROM hold AS h, jsonb_each_text(h.held_micro) AS e WHERE h.account = %s"
    " AND h.state = 'open' AND h.expires_us > extract(epoch FROM clock_timestamp()) * 1000000 GROUP BY e.key"
)


async def read_reserved(database: ApiDatabase, account: str) -> dict[str, int]:
    """Return the quota that open holds reserve of an account at this moment, in micro by bucket id."""
    async with database.connection() as connection:
        found = await connection.execute(_RESERVED, (account,))
        return {grant_id: int(micro) for grant_id, micro in await found.fetchall()}


async def list_accounts(database: ApiDatabase, after: str, limit: int) -> list[Account]:
    """Return at most ``limit`` accounts whose id is greater than ``after``, sorted by id, without their buckets."""
    async with database.snapshot() as connection:
        ids = await connection.execute(
            "SELECT account FROM account WHERE account > %s ORDER BY account LIMIT %s", (after, limit)
        )
        wanted = json.dumps([account for (account,) in await ids.fetchall()])
        found = await connection.execute(ACCOUNTS, (wanted,))
        return plain_accounts(await found.fetchall(), ())
