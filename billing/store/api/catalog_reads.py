"""Queries of the HTTP API for the catalogue and for the states of many accounts. Never writes."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from billing.errors import BrokenInvariant
from billing.store.api.pool import ApiDatabase


async def read_epoch(database: ApiDatabase) -> int:
    """Return the epoch of the catalogue: 0 before the first publication."""
    async with database.connection() as connection:
        row = await (await connection.execute("SELECT epoch FROM catalog_state")).fetchone()
    if row is None:
        raise BrokenInvariant("catalog_state has no row")
    return int(row[0])


async def read_bodies(database: ApiDatabase) -> tuple[int, list[dict[str, Any]]]:
    """Return the epoch and the bodies of all entries, read in one snapshot."""
    async with database.connection() as connection:
        found = await connection.execute(
            "SELECT epoch, (SELECT coalesce(jsonb_agg(body), '[]') FROM catalog_entry) FROM catalog_state"
        )
        row = await found.fetchone()
    if row is None:
        raise BrokenInvariant("catalog_state has no row")
    return int(row[0]), row[1]


@dataclass(frozen=True, slots=True)
class AccountTerms:
    """Status (``open``, ``suspended`` or ``closed``) and price book of an account."""

    status: str
    price_book: str


async def account_terms(database: ApiDatabase, accounts: Iterable[str]) -> dict[str, AccountTerms]:
    """Return status and price book by account. Accounts never opened are left out."""
    async with database.connection() as connection:
        found = await connection.execute(
            "SELECT account, status, price_book FROM jsonb_array_elements_text(%s::jsonb) AS wanted (account)"
            " JOIN account USING (account)",
            (json.dumps(sorted(set(accounts))),),
        )
        return {account: AccountTerms(status, book) for account, status, book in await found.fetchall()}
