"""Keys of the HTTP API in SQL: each has a role and, optionally, one account and prefixes of sources.

Only the digest of a secret is stored.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from pydantic_core import PydanticCustomError

from billing.store.api.pool import ApiDatabase
from billing.store.database import Connection, Database
from schemas.fields import check_name
from schemas.sources import OWN_SOURCES, may_be_prefix, overlap

ROLES = ("admin", "operator", "ingest", "read")
SENDS_USAGE = frozenset({"admin", "ingest"})
"""Roles whose keys may send usage."""
PREFIX = "tbk"
_ID_BYTES = 6
_SECRET_BYTES = 32
_INSERT: LiteralString = """
INSERT INTO api_key (key_id, name, secret_sha256, role, account, expires_at, sources)
VALUES (%s, %s, %s, %s, %s, %s, %s)
RETURNING key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at, sources
"""
_ALL: LiteralString = """
SELECT key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at, sources
FROM api_key ORDER BY created_at, key_id
"""
_IN_FORCE: LiteralString = """
SELECT key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at, sources
FROM api_key WHERE key_id = %s AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""
_WITH_STATE: LiteralString = """
SELECT key_id, name, secret_sha256, role, account, created_at, expires_at, revoked_at, sources,
    coalesce(expires_at <= now(), false)
FROM api_key WHERE key_id = %s
"""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    ``account`` of None permits every account. ``sources`` are prefixes of the sources whose usage the key may send.
    Times are those of the database clock.
    """

    key_id: str
    name: str
    secret_sha256: bytes
    role: str
    account: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    sources: tuple[str, ...] = ()


def digest_of(secret: str) -> bytes:
    """Return the digest that is stored of a secret.

    The secret is 256 random bits, so it cannot be found from a plain digest by guessing.
    """
    return hashlib.sha256(secret.encode()).digest()


def read_token(token: str) -> tuple[str, str] | None:
    """Return the id and the secret in a token ``tbk_ID_SECRET``; None if it has another form."""
    prefix, _, rest = token.strip().partition("_")
    key_id, _, secret = rest.partition("_")
    return (key_id, secret) if prefix == PREFIX and key_id and secret else None


def has_secret(key: ApiKey, secret: str) -> bool:
    """True if this is the secret of the key. Digests of equal length are compared in constant time."""
    return hmac.compare_digest(key.secret_sha256, digest_of(secret))


def key_of_token(connection: Connection, token: str) -> tuple[ApiKey, bool] | None:
    """Return the key of a token, and True if it has expired; None if no key has this id and secret."""
    parts = read_token(token)
    row = None if parts is None else connection.execute(_WITH_STATE, (parts[0],)).fetchone()
    if parts is None or row is None:
        return None
    key = _key(row[:-1])
    return (key, bool(row[-1])) if has_secret(key, parts[1]) else None


def create_key(
    database: Database,
    name: str,
    role: str,
    account: str | None,
    expires_at: datetime | None,
    sources: Sequence[str] = (),
) -> tuple[ApiKey, str]:
    """Create a key. Returns it and its token ``tbk_ID_SECRET``, which cannot be read again.

    Raises:
        ValueError: a key that may send usage of one account has no sources, or a prefix is not allowed; the message is
            a sentence for people.
    """
    fault = sources_fault(role, account, sources)
    if fault is not None:
        raise ValueError(fault)
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    with database.transaction() as connection:
        given = (key_id, name, digest_of(secret), role, account, expires_at, list(sources))
        row = connection.execute(_INSERT, given).fetchall()[0]
    return _key(row), f"{PREFIX}_{key_id}_{secret}"


def _key(row: Sequence[Any]) -> ApiKey:
    values: list[Any] = [*row[:-1], tuple(row[-1])]
    return ApiKey(*values)


def sources_fault(role: str, account: str | None, sources: Sequence[str]) -> str | None:
    """Return why a key may not be made with these prefixes of sources, or None if it may."""
    if role in SENDS_USAGE and account is not None and not sources:
        return f"a key that sends usage of account {account!r} needs the sources it may use"
    if sources and role not in SENDS_USAGE:
        return f"a key of the role {role} sends no usage, so it has no sources"
    for prefix in sources:
        if not may_be_prefix(prefix):
            return f"{prefix!r} is no prefix of sources: sources that begin with {OWN_SOURCES} are the product's own"
        try:
            check_name(prefix)
        except PydanticCustomError as error:
            return f"{prefix!r} is no prefix of sources: {error}"
    return None


def overlapping_keys(database: Database, account: str | None, sources: Sequence[str]) -> list[tuple[ApiKey, str, str]]:
    """Return the keys in force of other accounts whose sources overlap with these: key, its prefix, and ours."""
    return [
        (key, theirs, ours)
        for key in list_keys(database)
        if key.account is not None and key.account != account and key.revoked_at is None
        for theirs in key.sources
        for ours in sources
        if overlap(theirs, ours)
    ]


def list_keys(database: Database) -> list[ApiKey]:
    """Return every key, including revoked ones, oldest first."""
    with database.transaction() as connection:
        return [_key(row) for row in connection.execute(_ALL)]


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
    return None if row is None else _key(row)
