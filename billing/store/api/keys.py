"""Keys of the HTTP API in SQL: each has a role and, optionally, one account. Only the digest of a secret is stored."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from billing.store.api.pool import ApiDatabase
from billing.store.database import Database

ROLES = ("admin", "operator", "ingest", "read")
PREFIX = "tbk"
_ID_BYTES = 6
_SECRET_BYTES = 32
_INSERT: LiteralString = """
INSERT INTO api_key (key_id, name, secret_sha256, role, account, expires_at) VALUES (%s, %s, %s, %s, %s, %s)
RETURNING key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at
"""
_ALL: LiteralString = """
SELECT key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at
FROM api_key ORDER BY created_at, key_id
"""
_IN_FORCE: LiteralString = """
SELECT key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at
FROM api_key WHERE key_id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret. ``account`` of None permits every account. Times are those of the database clock."""

    key_id: str
    name: str
    secret_sha256: bytes
    role: str
    account: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


def digest_of(secret: str) -> bytes:
    """Return the digest that is stored of a secret.

    The secret is 256 random bits, so it cannot be found from a plain digest by guessing.
    """
    return hashlib.sha256(secret.encode()).digest()


def create_key(
    database: Database, name: str, role: str, account: str | None, expires_at: datetime | None
) -> tuple[ApiKey, str]:
    """Create a key. Returns it and its token ``tbk_ID_SECRET``, which cannot be read again."""
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    with database.transaction() as connection:
        given = (key_id, name, digest_of(secret), role, account, expires_at)
        row = connection.execute(_INSERT, given).fetchall()[0]
    return ApiKey(*row), f"{PREFIX}_{key_id}_{secret}"


def list_keys(database: Database) -> list[ApiKey]:
    """Return every key, including revoked ones, oldest first."""
    with database.transaction() as connection:
        return [ApiKey(*row) for row in connection.execute(_ALL)]


def revoke_key(database: Database, key_id: str) -> bool:
    """Revoke a key permanently. Returns False if there is none. A second revocation keeps the time of the first."""
    with database.transaction() as connection:
        done = connection.execute(
            "UPDATE api_key SET revoked_at = coalesce(revoked_at, now()) WHERE key_id = %s", (key_id,)
        )
        return done.rowcount == 1


async def usable_key(database: ApiDatabase, key_id: str) -> ApiKey | None:
    """Return the key of this id; None if there is none, or if it is revoked or expired by the database clock."""
    async with database.connection() as connection:
        found = await connection.execute(_IN_FORCE, (key_id,))
        row = await found.fetchone()
    return None if row is None else ApiKey(*row)
