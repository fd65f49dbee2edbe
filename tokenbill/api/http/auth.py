"""Authentication and roles: every request but the health pages needs a key, whose role limits what it may do.

A key that was looked up is cached: a revoked key is refused after :data:`KEYS_REMEMBERED_SECONDS` at the latest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from fastapi import Depends, Request

from billing.store.api.keys import PREFIX, ApiKey, has_secret, read_token, usable_key
from billing.store.api.pool import ApiDatabase
from schemas.sources import OWN_SOURCES, covers, is_own
from tokenbill.api.http.problems import Problem

K = TypeVar("K")
V = TypeVar("V")
Right = Literal["read", "order", "correct", "ingest", "reserve"]

RIGHTS: dict[str, frozenset[Right]] = {
    "read": frozenset({"read"}),
    "ingest": frozenset({"ingest", "reserve"}),
    "operator": frozenset({"read", "order", "reserve"}),
    "admin": frozenset({"read", "order", "correct", "ingest", "reserve"}),
}
"""Rights of each role: read, send commands, correct what was booked, send usage, hold quota for a request."""

KEYS_REMEMBERED_SECONDS = 5.0
REMEMBERED_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    ``account`` is the only account that its key may use; None for every account. ``sources`` are the prefixes of the
    sources of its usage; a key for every account may have none, and then uses any.
    """

    key_id: str
    role: str
    account: str | None
    sources: tuple[str, ...] = ()

    def barred_source(self, source: str) -> str | None:
        """Return why the key may not send usage with this source, or None if it may."""
        if is_own(source):
            return f"source is {source!r}: sources that begin with {OWN_SOURCES} are the product's own"
        if any(covers(prefix, source) for prefix in self.sources):
            return None
        if self.sources:
            return f"source is {source!r}: expected one of the key's sources, {', '.join(self.sources)}"
        if self.account is None:
            return None
        return (
            "The key is for one account and has no sources, which it needs to send usage: replace it by a new one, "
            f"`tokenbill api-key create NAME --role {self.role} --account {self.account} --source PREFIX`"
        )

    def check_account(self, account: str) -> None:
        """Refuse an account that the key may not use.

        Raises:
            Problem: ``other_account``.
        """
        if self.account is not None and self.account != account:
            raise Problem("other_account", f"The key is for account {self.account!r}, not for {account!r}.")


class KeyRing:
    """Verifies bearer tokens. Caches for a few seconds what the database returns for a key id."""

    def __init__(self, database: ApiDatabase) -> None:
        self._database = database
        self._known: dict[str, tuple[float, ApiKey | None]] = {}
        self._verified: dict[bytes, tuple[float, Caller]] = {}

    async def verify(self, header: bytes | None) -> Caller:
        """Return the caller that an ``Authorization`` header identifies. Verified headers are cached like their keys.

        Raises:
            Problem: ``key_required``, ``key_unknown``.
        """
        if header is None:
            raise Problem("key_required", "Send the header `Authorization: Bearer KEY`.")
        found = self._verified.get(header)
        if found is not None and time.monotonic() < found[0]:
            return found[1]
        until, caller = await self._verify(header)
        _remember(self._verified, header, (until, caller))
        return caller

    async def _verify(self, header: bytes) -> tuple[float, Caller]:
        """Return the monotonic time until which the result may be cached, and the caller."""
        scheme, _, token = header.decode("latin-1").partition(" ")
        parts = read_token(token)
        if scheme.lower() != "bearer" or parts is None:
            raise Problem("key_unknown", f"Expected `Authorization: Bearer {PREFIX}_ID_SECRET`.")
        until, key = await self._find(parts[0])
        if key is None or not has_secret(key, parts[1]):
            raise Problem("key_unknown", "No key in force has this id and secret.")
        return until, Caller(key.key_id, key.role, key.account, key.sources)

    async def _find(self, key_id: str) -> tuple[float, ApiKey | None]:
        now = time.monotonic()
        found = self._known.get(key_id)
        if found is not None and now < found[0]:
            return found
        key = await usable_key(self._database, key_id)
        _remember(self._known, key_id, known := (now + KEYS_REMEMBERED_SECONDS, key))
        return known


def _remember(known: dict[K, V], name: K, value: V) -> None:
    if len(known) >= REMEMBERED_KEYS:  # invented key ids must not fill the memory
        known.clear()
    known[name] = value


def needs(right: Right) -> Callable[[Request], Caller]:
    """Return a dependency that yields the caller and refuses one whose role lacks the right."""

    def dependency(request: Request) -> Caller:
        caller: Caller = request.scope["state"]["caller"]
        require(caller, right)
        return caller

    return dependency


def require(caller: Caller, right: Right) -> None:
    """Refuse a caller whose role lacks a right.

    Raises:
        Problem: ``role_not_enough``.
    """
    if right not in RIGHTS[caller.role]:
        able = ", ".join(role for role, rights in RIGHTS.items() if right in rights)
        raise Problem("role_not_enough", f"The key has the role {caller.role}; this needs one of: {able}.")


Reader = Annotated[Caller, Depends(needs("read"))]
"""Caller of a route that needs the right ``read``."""
